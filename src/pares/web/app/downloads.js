/** What is being fetched: pause it, hurry it, hold it back, give it up. */

import { html, useId, useState } from "../vendor/preact.js";
import { tell } from "./announce.js";
import { call, part } from "./api.js";
import "./commons_state.js";
import { bytes } from "./format.js";
import { Icon } from "./icons.js";
import { PullProgress } from "./pulls.js";
import { href } from "./router.js";
import { fetchPulls, pulls, underWay } from "./state.js";
import { t } from "./strings.js";
import { Fault, Popover, useAction } from "./ui.js";

/** @import { PullStatus } from "./types.js" */

/** @type {Partial<Record<PullStatus["state"], string>>} */
const LOOKS = { done: "ok", failed: "bad", paused: "warn" };
const PRIORITIES = /** @type {const} */ ([2, 1, 0]);
const KB = 1000;

/** A speed in kB/s; empty: none. @param {number} limit bytes/s */
export const limitText = (limit) => (limit ? String(Math.round(limit / KB)) : "");

/** @param {string} text kB/s @returns {number} bytes/s, 0: no limit */
export const limitOf = (text) => Math.max(0, Math.round(Number(text) * KB)) || 0;

/** @param {{pull: PullStatus, close: () => void}} props */
function Pace({ pull, close }) {
  const id = useId();
  const { busy, error, run } = useAction();
  const [limit, setLimit] = useState(limitText(pull.limit_bytes_per_s));
  const [priority, setPriority] = useState(pull.priority);
  /** @param {Event} event */
  const submit = (event) => {
    event.preventDefault();
    run(async () => {
      await call("PATCH", `/pulls/${part(pull.id)}`, { priority, limit_bytes_per_s: limitOf(limit) });
      await fetchPulls();
      close();
    });
  };
  return html`
    <form class="pace" onSubmit=${submit}>
      <div class="field"><label for=${`${id}-priority`}>${t("downloads.priority")}</label>
        <select id=${`${id}-priority`} value=${priority}
          onChange=${(/** @type {any} */ event) => setPriority(Number(event.target.value))}>
          ${PRIORITIES.map((level) => html`
            <option value=${level} key=${level}>${t(`downloads.priority_${level}`)}</option>`)}</select></div>
      <div class="field"><label for=${`${id}-limit`}>${t("downloads.limit")}</label>
        <input id=${`${id}-limit`} type="number" min="0" value=${limit} placeholder=${t("downloads.no_limit")}
          onInput=${(/** @type {any} */ event) => setLimit(event.target.value)} /></div>
      ${error && html`<${Fault} error=${error} />`}
      <div class="buttons"><button type="submit" disabled=${busy}>${t("downloads.set")}</button></div>
    </form>`;
}

/** Pause, resume, pace and give up, for a row of downloads or of the swarm. @param {{pull: PullStatus}} props */
export function PullControls({ pull: row }) {
  const { busy, error, run } = useAction();
  const path = `/pulls/${part(row.id)}`;
  /** @param {"pause" | "resume"} verb */
  const act = (verb) => run(() => call("POST", `${path}/${verb}`));
  const cancel = () => run(async () => {
    await call("DELETE", path);
    await fetchPulls();
    tell(t("downloads.cancelled", { name: row.name }));
  });
  return html`
    <div class="buttons">
      ${row.state !== "done" && html`
        <${Popover} class="tool" align="end" label=${t("downloads.pace", { name: row.name })}
          face=${html`<${Icon} name="settings" />`}>
          ${(/** @type {() => void} */ close) => html`<${Pace} pull=${row} close=${close} />`}<//>`}
      ${underWay(row) && html`<button type="button" class="quiet" disabled=${busy} onClick=${() => act("pause")}>
        <${Icon} name="pause" />${t("downloads.pause")}</button>`}
      ${(row.state === "paused" || row.state === "failed") && html`
        <button type="button" disabled=${busy} onClick=${() => act("resume")}>
          <${Icon} name="play" />${t(row.state === "failed" ? "downloads.try_again" : "downloads.resume")}</button>`}
      <button type="button" class="quiet" disabled=${busy} onClick=${cancel}>
        ${t(row.state === "done" ? "downloads.clear" : "downloads.cancel")}</button>
    </div>
    ${error && html`<${Fault} error=${error} />`}`;
}

/** "layers 10 to 19 with head"; empty for the whole. @param {string} layers as the API writes it */
export function layerWords(layers) {
  const [, first, last, head] = /^(\d+)-(\d+)(\+head)?$/.exec(layers) ?? [];
  if (!first) return layers ? t(`downloads.only_${layers}`) : "";
  const words = { first, last: Number(last) - 1 };
  return head ? t("downloads.only_layers_head", words) : t("downloads.only_layers", words);
}

/** @param {{pull: PullStatus}} props */
const PullItem = ({ pull: row }) => html`
  <li class="row">
    <div class="row-head">
      <div><strong class="break">${row.name}</strong>${" "}
        <span class=${`chip ${LOOKS[row.state] ?? ""}`}>${t(`pull.${row.state}`)}</span>
        ${row.layers && html`${" "}<span class="chip">${layerWords(row.layers)}</span>`}
        <p class="fine break">${row.version
          ? html`<a href=${href("inspect", "version", row.version)}>${t("downloads.version")}</a>`
          : row.source}</p></div>
      <${PullControls} pull=${row} />
    </div>
    ${row.state === "done"
      ? html`<p class="fine num">${bytes(row.total)}</p>` : html`<${PullProgress} pull=${row} />`}
    ${(row.limit_bytes_per_s > 0 || row.priority !== 1) && html`
      <p class="fine num">${[row.priority === 1 ? "" : t(`downloads.priority_${row.priority}`),
        row.limit_bytes_per_s ? t("downloads.at_most", { rate: bytes(row.limit_bytes_per_s) }) : "",
      ].filter(Boolean).join(" · ")}</p>`}
    ${row.error && html`<${Fault} error=${{ message: row.error, code: row.code }} />`}
  </li>`;

export function Downloads() {
  if (!pulls.value.length) return html`<p class="empty">${t("downloads.none")}</p>`;
  return html`<ul class="rows">${pulls.value.map((row) => html`<${PullItem} key=${row.id} pull=${row} />`)}</ul>`;
}
