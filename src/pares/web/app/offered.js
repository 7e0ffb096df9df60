/** What circles of this node offer: found, compared, and fetched. */

import { html, signal, useState } from "../vendor/preact.js";
import { fetchVersions, versions } from "./commons_state.js";
import { FitChip } from "./fit.js";
import { bytes, parameters } from "./format.js";
import { GetVersion } from "./get_version.js";
import { Icon } from "./icons.js";
import { circles, fetchCircles } from "./network_state.js";
import { PullProgress } from "./pulls.js";
import { href } from "./router.js";
import { pulls } from "./state.js";
import { t } from "./strings.js";
import { Fault, useFetched } from "./ui.js";

/** @import { VersionRow } from "./types.js" */

const FACETS = /** @type {const} */ (["circle", "licence", "architecture", "publisher"]);
const NOTHING = { text: "", circle: "", licence: "", architecture: "", publisher: "", fits: false };
const FITTING = ["runs well", "tight"];
const MAX_ROWS = 200;
/** What is looked for; it stays while one looks elsewhere. */
const wanted = signal(NOTHING);

/** "3 hold it, 2 whole, 2 there now" @param {VersionRow} row */
export const holderWords = (row) => (row.holders === 0 ? t(row.here === "whole" ? "offered.only_you" : "offered.nobody")
  : t("offered.holders", { n: row.holders, whole: row.whole, online: row.online }));

/** @param {readonly string[]} ids */
export const circleNames = (ids) =>
  (circles.value ?? []).filter((circle) => ids.includes(circle.id)).map((circle) => circle.name).join(", ");

/** @param {VersionRow} row */
const factWords = (row) => [
  t(`version.kind_${row.kind}`), row.architecture,
  row.parameters ? t("models.parameters", { n: parameters(row.parameters) }) : "",
  row.quantization, bytes(row.size), row.licence || t("add.licence_unknown"),
].filter(Boolean).join(" · ");

/** What must be known before one trusts it. @param {{text: string, children?: any}} props */
export const Caution = ({ text, children }) => html`
  <div class="caution"><${Icon} name="warning" /><div><p>${text}</p>${children}</div></div>`;

/** @param {{row: VersionRow}} props */
const Presence = ({ row }) => (row.here === "whole"
  ? html`<span class="chip ok"><${Icon} name="check" />${t("models.here")}</span>`
  : html`
    ${row.here === "part" && html`<span class="chip"><span aria-hidden="true">◐</span> ${t("offered.part")}</span>`}
    ${!row.complete && html`<span class="chip warn"><span aria-hidden="true">◌</span> ${t("offered.gaps")}</span>`}`);

/** @param {{row: VersionRow, rival?: boolean}} props */
function Offer({ row, rival = false }) {
  const [getting, setGetting] = useState(false);
  const coming = pulls.value.find((pull) => pull.version === row.id && pull.state !== "done");
  const where = circleNames(row.circles);
  return html`
    <li class="row">
      <div class="row-head">
        <div class="row-name">
          <a class="strong" href=${href("inspect", "version", row.id)}>${row.name}</a>
          ${row.label && html`${" "}<span class="chip break">${row.label}</span>`}
          <p class="fine">${t("offered.by")}${" "}
            <span class="publisher" title=${row.publisher.words}>${row.publisher.name}</span>
            ${rival && html`<span class="fingerprint">${row.publisher.words}</span>`}</p>
          <p class="fine num break">${factWords(row)}</p>
          <p class="fine num">${holderWords(row)}${where && ` · ${t("offered.in", { names: where })}`}
            ${row.endorsements > 0 && ` · ${t("offered.endorsed", { n: row.endorsements })}`}</p>
        </div>
        <div class="presence">${row.fit && html`<${FitChip} fit=${row.fit} need=${row.need ?? null} />`}
          <${Presence} row=${row} /></div>
        <div class="buttons">
          ${row.here !== "whole" && html`
            <button type="button" class="gentle" disabled=${coming !== undefined}
              aria-label=${t("offered.get_named", { name: row.name, publisher: row.publisher.name })}
              onClick=${() => setGetting(true)}>
              <${Icon} name="get" />${t(row.here === "part" ? "offered.get_rest" : "models.get")}</button>`}</div>
      </div>
      ${row.trouble && html`<${Caution} text=${row.trouble} />`}
      ${coming && html`<${PullProgress} pull=${coming} />`}
      ${getting && html`<${GetVersion} row=${row} onClose=${() => setGetting(false)} />`}
    </li>`;
}

/**
 * Several people publish something under one name: nobody but the reader decides which is meant.
 * @param {{rows: VersionRow[]}} props
 */
const Rivals = ({ rows }) => html`
  <li class="rivals">
    <${Caution} text=${t("offered.conflict", {
      name: rows[0]?.name ?? "", n: new Set(rows.map((row) => row.publisher.id)).size,
    })} />
    <ul aria-label=${t("offered.conflict_label", { name: rows[0]?.name ?? "" })}>
      ${rows.map((row) => html`<${Offer} key=${row.id} row=${row} rival />`)}</ul>
  </li>`;

/** @param {VersionRow} row @param {(typeof FACETS)[number]} facet @returns {[string, string][]} value and words */
const facetsOf = (row, facet) => (facet === "publisher" ? [[row.publisher.id, row.publisher.name]]
  : facet === "circle" ? row.circles.map((id) => [id, circleNames([id])])
    : row[facet] ? [[row[facet], row[facet]]] : []);

/** @param {VersionRow} row */
function isWanted(row) {
  const { text, fits, ...facets } = wanted.value;
  const words = `${row.name} ${row.label} ${row.publisher.name} ${row.architecture} ${row.quantization} ${row.licence}`
    .toLowerCase();
  return text.toLowerCase().split(/\s+/).every((word) => words.includes(word))
    && (!fits || (row.fit !== null && FITTING.includes(row.fit)))
    && FACETS.every((facet) => !facets[facet] || facetsOf(row, facet).some(([value]) => value === facets[facet]));
}

/** @param {{rows: VersionRow[], found: number}} props */
function Filters({ rows, found }) {
  const now = wanted.value;
  /** @param {Partial<typeof NOTHING>} change */
  const set = (change) => (wanted.value = { ...now, ...change });
  return html`
    <div class="filters" role="search" aria-label=${t("offered.search")}>
      <input type="search" aria-label=${t("offered.search")} placeholder=${t("offered.search")} value=${now.text}
        onInput=${(/** @type {any} */ event) => set({ text: event.target.value })} />
      ${FACETS.map((facet) => {
        const choices = new Map(rows.flatMap((row) => facetsOf(row, facet)));
        return choices.size > 1 && html`
          <select key=${facet} aria-label=${t(`offered.${facet}`)} value=${now[facet]}
            onChange=${(/** @type {any} */ event) => set({ [facet]: event.target.value })}>
            <option value="">${t(`offered.any_${facet}`)}</option>
            ${[...choices].map(([value, words]) => html`<option value=${value} key=${value}>${words}</option>`)}
          </select>`;
      })}
      <label class="option"><input type="checkbox" checked=${now.fits}
        onChange=${(/** @type {any} */ event) => set({ fits: event.target.checked })} />${t("offered.fits")}</label>
      <p class="fine num" role="status">${t("offered.found", { n: found, all: rows.length })}</p>
    </div>`;
}

/** Rows in order; those of a contested name together. @param {VersionRow[]} rows */
function groups(rows) {
  /** @type {Map<string, VersionRow[]>} */
  const byName = new Map();
  for (const row of rows) {
    const key = row.conflict ? `${row.name} is contested` : row.id;
    byName.set(key, [...(byName.get(key) ?? []), row]);
  }
  return [...byName.entries()];
}

export function Offered() {
  const { error, again } = useFetched("offered", () => Promise.all([fetchVersions(), fetchCircles()]));
  const [all, setAll] = useState(false);
  const rows = (versions.value ?? []).filter((row) => row.circles.length > 0 || row.here !== "whole");
  if (error) {
    return html`<${Fault} error=${error}>
      <button type="button" class="quiet" onClick=${again}>${t("chat.retry")}</button><//>`;
  }
  if (versions.value === null || circles.value === null) return html`<p class="fine">${t("offered.asking")}</p>`;
  if (!rows.length) {
    return circles.value.length
      ? html`<p class="empty">${t("offered.none")}${" "}<a href=${href("models")}>${t("offered.none_way")}</a></p>`
      : html`<p class="empty">${t("offered.no_circle")}
          ${" "}<a href=${href("network")}>${t("offered.to_network")}</a></p>`;
  }
  const found = rows.filter(isWanted);
  const shown = all ? found : found.slice(0, MAX_ROWS);
  return html`
    <${Filters} rows=${rows} found=${found.length} />
    <ul class="rows">${groups(shown).map(([key, members]) => (members.length > 1
      ? html`<${Rivals} key=${key} rows=${members} />`
      : html`<${Offer} key=${key} row=${members[0]} rival=${members[0]?.conflict} />`))}</ul>
    ${shown.length < found.length && html`
      <button type="button" class="quiet" onClick=${() => setAll(true)}>
        ${t("offered.all", { n: found.length })}</button>`}`;
}
