/** One version: who says what about it, what was checked, where it comes from, who holds it. */

import { html, useState } from "../vendor/preact.js";
import { tell } from "./announce.js";
import { address, call, part } from "./api.js";
import { fetchVersions, turns } from "./commons_state.js";
import { FactTable } from "./facts.js";
import { FitChip } from "./fit.js";
import { bytes, count, moment, parameters } from "./format.js";
import { GetVersion } from "./get_version.js";
import { Icon } from "./icons.js";
import { LineageTab } from "./lineage.js";
import { fetchCircles } from "./network_state.js";
import { Caution, circleNames, holderWords } from "./offered.js";
import { href } from "./router.js";
import { t } from "./strings.js";
import { CopyButton, Fault, Tabs, useAction, useFetched } from "./ui.js";
import { Voices } from "./voices.js";

/** @import { Finding, Holder, VersionDetail, VersionFile, Who } from "./types.js" */

const TABS = /** @type {const} */ (["", "lineage", "files", "licence"]);
const SECOND_MS = 1000;

/** @param {Finding} finding @returns {["ok" | "bad" | "", "check" | "cross" | "more", string]} */
const lookOf = ({ ok }) => (ok ? ["ok", "check", t("version.holds")]
  : ok === false ? ["bad", "cross", t("version.fails")] : ["", "more", t("version.unchecked")]);

/** @param {{findings: Finding[]}} props */
const Findings = ({ findings }) => html`
  <ul class="checks">${findings.map((finding) => {
    const [look, icon, words] = lookOf(finding);
    return html`
      <li key=${finding.what} class=${look}><span class="check-mark"><${Icon} name=${icon} /></span>
        <div><strong>${finding.what}</strong> <span class="fine">${words}</span>
          <p class="break">${finding.message}</p></div></li>`;
  })}</ul>`;

/** @param {{detail: VersionDetail, onVerified: () => void}} props */
function Checked({ detail, onVerified }) {
  const { busy, error, run } = useAction();
  const { model, name } = detail.row;
  const verify = () => run(async () => {
    await call("POST", `/models/${part(model)}/verify`);
    tell(t("version.verified", { name }));
    onVerified();
  });
  return html`
    <section aria-label=${t("version.checked")}><h2>${t("version.checked")}</h2>
      <${Findings} findings=${detail.findings} />
      ${model && html`<div class="buttons start">
        <button type="button" class="quiet" disabled=${busy} onClick=${verify}>
          <${Icon} name="check" />${t(busy ? "inspect.verifying" : "version.verify")}</button></div>`}
      ${error && html`<${Fault} error=${error} />`}</section>`;
}

/** What a statement says is written by somebody else: whatever is not of the kind that it should be is left out. */
const read = {
  /** @param {unknown} value @returns {Record<string, unknown>} */
  table: (value) => (value !== null && typeof value === "object" && !Array.isArray(value)
    ? /** @type {Record<string, unknown>} */ (value) : {}),
  /** @param {unknown} value @returns {Record<string, unknown>[]} */
  list: (value) => (Array.isArray(value) ? value.map(read.table) : []),
  /** @param {unknown} value */
  text: (value) => (typeof value === "string" ? value : ""),
  /** @param {unknown} value */
  number: (value) => (typeof value === "number" && Number.isFinite(value) ? value : 0),
};

/** @param {{parent: Record<string, unknown>}} props */
const Parent = ({ parent }) => {
  const id = read.text(parent.version);
  const name = read.text(parent.name) || `${id.slice(0, 16)}…`;
  return id ? html`<a class="break" href=${href("inspect", "version", id)}>${name}</a>`
    : html`<span class="break">${name}</span>`;
};

/** @param {{detail: VersionDetail}} props */
function Evaluations({ detail }) {
  const rows = read.list(detail.predicate.evaluations);
  if (!rows.length) return html`<p class="fine">${t("version.no_evaluations")}</p>`;
  /** @type {Map<string, Who>} */
  const known = new Map([detail.row.publisher, ...detail.voices.map((voice) => voice.by),
    ...detail.holders.map((holder) => holder.peer)].map((person) => [person.id, person]));
  return html`
    <div class="scroll" tabindex="0" role="region" aria-label=${t("version.evaluations")}><table class="grid">
      <thead><tr><th scope="col">${t("version.suite")}</th><th scope="col">${t("version.metric")}</th>
        <th scope="col" class="to-right">${t("version.result")}</th><th scope="col">${t("version.measured_by")}</th>
        <th scope="col">${t("version.when")}</th></tr></thead>
      <tbody>${rows.map((row) => {
        const by = read.text(row.by);
        return html`<tr><th scope="row" class="break">${read.text(row.suite)}</th><td>${read.text(row.metric)}</td>
          <td class="num to-right">${read.number(row.value)}</td>
          <td class="break">${known.get(by)?.name ?? `${by.slice(0, 16)}…`}
            ${by === detail.row.publisher.id && html`
              ${" "}<span class="chip">${t("version.the_publisher")}</span>`}</td>
          <td class="num">${moment(new Date(read.number(row.at) * SECOND_MS).toISOString())}</td></tr>`;
      })}</tbody>
    </table></div>`;
}

/** @param {{detail: VersionDetail}} props */
function Stated({ detail }) {
  const { row, predicate } = detail;
  const architecture = read.table(predicate.architecture);
  const parents = read.list(predicate.parents);
  const base = read.table(predicate.base);
  const recipe = read.table(predicate.recipe);
  const description = read.text(predicate.description);
  /** @type {[string, string, string][]} */
  const figures = [
    ["inspect.parameters", parameters(row.parameters), count(row.parameters)],
    ["inspect.layers", count(row.layers), ""],
    ["inspect.vocabulary", count(read.number(architecture.vocabulary)), t("inspect.vocabulary_hint")],
    ["inspect.context", count(read.number(architecture.context)), t("inspect.context_hint")],
    ["inspect.size", bytes(row.size), row.quantization],
  ];
  return html`
    ${description && html`<section><p class="lead plain">${description}</p></section>`}
    <dl class="figures stated">${figures.map(([name, value, hint]) => html`
      <div key=${name}><dt>${t(name)}</dt><dd>${value}<small>${hint}</small></dd></div>`)}</dl>
    <dl class="facts">
      <dt>${t("version.kind")}</dt><dd>${t(`version.kind_${row.kind}`)}</dd>
      ${Object.keys(base).length > 0 && html`<dt>${t("version.base")}</dt><dd><${Parent} parent=${base} /></dd>`}
      ${parents.length > 0 && html`<dt>${t("version.parents")}</dt>
        <dd>${parents.map((parent) => html`<p><${Parent} parent=${parent} /></p>`)}</dd>`}
      <dt>${t("inspect.licence")}</dt><dd class="break">${row.licence || t("add.licence_unknown")}</dd>
      ${read.text(predicate.source) && html`<dt>${t("inspect.origin")}</dt>
        <dd class="break">${read.text(predicate.source)}</dd>`}
      <dt>${t("version.id")}</dt><dd class="mono break">${row.id}
        <${CopyButton} text=${row.id} label=${t("version.copy_id")} /></dd>
    </dl>
    <section aria-label=${t("version.data")}><h2>${t("version.data")}</h2>
      ${read.list(predicate.data).map((data) => html`
        <p class="plain">${read.text(data.note)}</p>
        ${data.private ? html`
          <p class="fine">${t("version.private")} <code class="break">${read.text(data.private)}</code></p>` : null}
        ${data.croissant ? html`<pre tabindex="0" class="wrap paper" aria-label=${t("version.croissant")}>
          ${JSON.stringify(data.croissant, null, 2)}</pre>` : null}`)}
      ${!read.list(predicate.data).length && html`<p class="fine">${t("version.no_data")}</p>`}</section>
    ${Object.keys(recipe).length > 0 && html`
      <section><h2>${t("version.recipe")}</h2>
        <${FactTable} facts=${recipe} label=${t("version.recipe")} /></section>`}
    <section><h2>${t("version.evaluations")}</h2>
      <${Evaluations} detail=${detail} /></section>`;
}

/** @param {{detail: VersionDetail}} props */
const Publisher = ({ detail: { row } }) => html`
  <section class="you" aria-label=${t("version.publisher")}>
    <p class="fine">${t("version.published", { when: moment(row.created) })}</p>
    <p class="strong break">${row.publisher.name}</p>
    <p class="line"><span class="fingerprint">${row.publisher.words}</span>
      <${CopyButton} text=${row.publisher.words} label=${t("network.copy_words")} /></p>
    <div class="line"><code>${row.publisher.id.slice(0, 16)}…</code>
      <${CopyButton} text=${row.publisher.id} label=${t("peers.copy_key", { name: row.publisher.name })} words /></div>
  </section>`;

/** @param {{detail: VersionDetail, onChange: () => void}} props */
const Card = ({ detail, onChange }) => html`
  <${Publisher} detail=${detail} />
  <${Checked} detail=${detail} onVerified=${onChange} />
  <${Stated} detail=${detail} />
  <${Voices} detail=${detail} onChange=${onChange} />`;

/** @param {Holder} holder */
const holdingWords = (holder) => {
  const [first, end] = holder.layers ?? [0, 0];
  if (holder.layers === null) return t("version.holds_whole");
  if (first === end) return t(holder.head ? "version.holds_head" : "version.holds_header");
  return t(holder.head ? "version.holds_layers_head" : "version.holds_layers", { first, last: end - 1 });
};

/** @param {{detail: VersionDetail}} props */
const Files = ({ detail }) => html`
  <section><h2>${t("version.holders")}</h2>
    <p class="fine num">${holderWords(detail.row)}</p>
    <div class="scroll" tabindex="0" role="region" aria-label=${t("version.holders")}><table class="grid people">
      <thead><tr><th scope="col">${t("version.holder")}</th><th scope="col">${t("version.holding")}</th>
        <th scope="col">${t("circle.now")}</th></tr></thead>
      <tbody>${detail.holders.map((holder) => html`
        <tr key=${holder.peer.id}><th scope="row" class="break">${holder.you
          ? html`<strong>${holder.peer.name}</strong> <span class="chip ok">${t("circle.you")}</span>`
          : html`<a href=${href("network", "peer", holder.peer.id)}>${holder.peer.name}</a>`}
            <span class="fingerprint">${holder.peer.words}</span></th>
          <td class="break">${holdingWords(holder)}</td>
          <td><span class=${`chip ${holder.online ? "ok" : ""}`}>
            <span aria-hidden="true">${holder.online ? "●" : "○"}</span>
            ${" "}${t(holder.online ? "circle.online_now" : "circle.away")}</span></td></tr>`)}</tbody>
    </table></div></section>
  <section aria-label=${t("version.files")}><h2>${t("version.files")}</h2>
    ${detail.files.map((/** @type {VersionFile} */ file) => html`
      <dl class="facts file" key=${file.root}>
        <dt>${t("version.file")}</dt><dd class="break">${file.name}${" "}
          <span class=${`chip ${file.here === "whole" ? "ok" : ""}`}>${t(`version.here_${file.here}`)}</span></dd>
        <dt>${t("inspect.size")}</dt>
        <dd class="num">${bytes(file.size)} (${t("inspect.bytes", { n: count(file.size) })})</dd>
        <dt>${t("version.root")}</dt><dd class="mono break">${file.root}
          <${CopyButton} text=${file.root} label=${t("version.copy_root")} /></dd>
        <dt>SHA-256</dt><dd class="mono break">${file.sha256}
          <${CopyButton} text=${file.sha256} label=${t("inspect.copy_hash")} /></dd></dl>`)}</section>`;

/** @param {{detail: VersionDetail}} props */
const LicenceTab = ({ detail }) => {
  const template = read.text(detail.predicate.chat_template_sha256);
  return html`
    <section aria-label=${t("inspect.licence")}><h2 class="break">${detail.row.licence || t("add.licence_unknown")}</h2>
      <p class="fine">${t(detail.licence_accepted ? "get.agreed" : "version.not_agreed")}</p>
      ${detail.licence_text ? html`
        <pre tabindex="0" class="wrap paper" aria-label=${t("inspect.licence_text")}>${detail.licence_text}</pre>`
        : html`<p class="fine">${t("version.no_licence_text")}</p>`}</section>
    <section aria-label=${t("version.template")}><h2>${t("version.template")}</h2>
      ${template ? html`
        <dl class="facts"><dt>SHA-256</dt><dd class="mono break">${template}
          <${CopyButton} text=${template} label=${t("inspect.copy_hash")} /></dd></dl>`
        : html`<p class="fine">${t("version.no_template")}</p>`}
      ${detail.row.model && html`
        <p><a href=${href("inspect", detail.row.model, "template")}>${t("version.see_template")}</a></p>`}</section>`;
};

/** @param {{detail: VersionDetail}} props */
function Head({ detail: { row } }) {
  const [getting, setGetting] = useState(false);
  return html`
    <div class="version-head">
      <p class="chips"><span class="chip">${t(`version.kind_${row.kind}`)}</span>
        ${row.label && html`<span class="chip break">${row.label}</span>`}
        <span class=${`chip ${row.here === "whole" ? "ok" : ""}`}>${t(`version.here_${row.here}`)}</span>
        ${row.fit && html`<${FitChip} fit=${row.fit} need=${row.need ?? null} />`}
        ${row.circles.length > 0 && html`
          <span class="chip break">${t("offered.in", { names: circleNames(row.circles) })}</span>`}</p>
      <div class="buttons">
        ${row.model && html`
          <a class="button quiet" href=${href("inspect", row.model, "tensors")}>${t("version.see_model")}</a>`}
        <a class="button quiet" href=${address(`/versions/${part(row.id)}/envelope`)} download="statement.json">
          ${t("version.export")}</a>
        ${row.here !== "whole" && html`<button type="button" onClick=${() => setGetting(true)}>
          <${Icon} name="get" />${t(row.here === "part" ? "offered.get_rest" : "models.get")}</button>`}</div>
    </div>
    ${row.trouble && html`<${Caution} text=${row.trouble} />`}
    ${row.conflict && html`<${Caution} text=${t("version.conflict", { name: row.name })}>
      <a href=${href("models", "circles")}>${t("version.see_all")}</a><//>`}
    ${getting && html`<${GetVersion} row=${row} onClose=${() => setGetting(false)} />`}`;
}

/** @param {{id: string, rest: string[]}} props */
export function VersionPage({ id, rest }) {
  const tab = TABS.find((known) => known === (rest[0] ?? "")) ?? "";
  const { value, error, again } = useFetched(`${id} ${turns.value}`, async () => {
    const [detail] = await Promise.all([call("GET", `/versions/${part(id)}`), fetchCircles(), fetchVersions()]);
    return /** @type {VersionDetail} */ (detail);
  });
  const detail = value?.row.id.startsWith(id) ? value : null;
  const to = (/** @type {string} */ key) => href("inspect", "version", id, ...(key ? [key] : []));
  const tabs = TABS.map((key) => ({ href: to(key), name: t(`version.tab_${key || "card"}`) }));
  if (error) {
    return html`<${Fault} error=${error}>
      <button type="button" class="quiet" onClick=${again}>${t("chat.retry")}</button><//>`;
  }
  if (!detail) return html`<p class="fine">${t("version.asking")}</p>`;
  return html`
    <${Head} detail=${detail} />
    <${Tabs} label=${t("inspect.parts", { name: detail.row.name })} tabs=${tabs} current=${to(tab)} />
    ${tab === "" && html`<${Card} detail=${detail} onChange=${again} />`}
    ${tab === "lineage" && html`<${LineageTab} id=${detail.row.id} />`}
    ${tab === "files" && html`<${Files} detail=${detail} />`}
    ${tab === "licence" && html`<${LicenceTab} detail=${detail} />`}`;
}
