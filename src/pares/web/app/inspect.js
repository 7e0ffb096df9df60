/** What is inside a model, and what is said of a version: tensors, templates, signatures, lineage, differences. */

import { html, useEffect } from "../vendor/preact.js";
import { tell } from "./announce.js";
import { call, part } from "./api.js";
import { fetchVersions, versionOf, versionOfModel, versions } from "./commons_state.js";
import { CompareTab } from "./compare.js";
import { FactTable } from "./facts.js";
import { FitChip } from "./fit.js";
import { bytes, count, moment, parameters } from "./format.js";
import { Icon } from "./icons.js";
import { load } from "./load.js";
import { go, href } from "./router.js";
import { loadedModel, models } from "./state.js";
import { t } from "./strings.js";
import { TensorsTab } from "./tensors.js";
import { TokenizerTab } from "./tokenizer.js";
import { CopyButton, Fault, Tabs, useAction, useFetched } from "./ui.js";
import { VersionPage } from "./version.js";

/** @import { Loaded, ModelDetail } from "./types.js" */

const TABS = /** @type {const} */ (["", "tensors", "tokenizer", "template", "file", "compare"]);
const VERSION = "version";
const ID = /^[0-9a-f]{8,64}$/;

/** @param {{loaded: Loaded | undefined, name: string}} props */
function Exactness({ loaded, name }) {
  const { busy, error, run } = useAction();
  if (!loaded || loaded.state === "loading") {
    return html`<p class="fine">${t("inspect.exact_unknown")}</p>
      <div class="buttons start">
        <button type="button" class="quiet" disabled=${busy || loaded !== undefined}
          onClick=${() => run(() => load(name))}>${t("inspect.measure")}</button></div>
      ${error && html`<${Fault} error=${error} />`}`;
  }
  return html`
    <dl class="facts">
      <dt>${t("inspect.profile")}</dt><dd>${t(`load.${loaded.profile}`)}</dd>
      <dt>${t("inspect.exactness")}</dt>
      <dd><span class=${`chip ${loaded.exact ? "warn" : "ok"}`}>${t(loaded.exact
          ? "inspect.not_exact" : "inspect.is_exact")}</span>
        ${" "}${loaded.exact || t("inspect.exact_text")}</dd>
      <dt>${t("inspect.fingerprint")}</dt>
      <dd class="mono break">${loaded.fingerprint || t("inspect.no_fingerprint")}
        ${loaded.fingerprint && html`
          <${CopyButton} text=${loaded.fingerprint} label=${t("inspect.copy_fingerprint")} />`}</dd>
    </dl>`;
}

/** @param {{name: string}} props */
const Model = ({ name }) => html`<a href=${href("inspect", name)}>${name}</a>`;

/** @param {{detail: ModelDetail}} props */
function Overview({ detail }) {
  const { row } = detail;
  const version = versionOfModel(row.name);
  /** @type {[string, string, string][]} */
  const figures = [
    ["parameters", parameters(row.parameters), count(row.parameters)],
    ["layers", count(detail.layers), ""],
    ["width", count(detail.embedding_length), t("inspect.width_hint")],
    ["vocabulary", count(detail.vocabulary), t("inspect.vocabulary_hint")],
    ["context", count(detail.context_trained), t("inspect.context_hint")],
    ["size", bytes(row.size), row.quantization],
  ];
  return html`
    <dl class="figures">${figures.map(([key, value, hint]) => html`
      <div><dt>${t(`inspect.${key}`)}</dt><dd>${value}<small>${hint}</small></dd></div>`)}</dl>
    <section><h2>${t("inspect.can")}</h2>
      <p class="chips">${detail.capabilities.map((name) => html`<span class="chip">${t(`inspect.can_${name}`)}</span>`)}
        <${FitChip} fit=${row.fit} need=${row.need} /></p></section>
    ${version && html`
      <section><h2>${t("version.statement")}</h2>
        <p>${t("version.published_by", { name: version.publisher.name })}${" "}
          <a href=${href("inspect", VERSION, version.id)}>${t("version.see_statement")}</a>${" · "}
          <a href=${href("inspect", VERSION, version.id, "lineage")}>${t("version.see_lineage")}</a></p></section>`}
    <section><h2>${t("inspect.exact_title")}</h2>
      <${Exactness} loaded=${loadedModel(row.name)} name=${row.name} /></section>
    ${(detail.alias_of || detail.base || detail.system) && html`
      <section><h2>${t("inspect.made_of")}</h2><dl class="facts">
        ${detail.alias_of && html`<dt>${t("inspect.alias_of")}</dt><dd><${Model} name=${detail.alias_of} /></dd>`}
        ${detail.base && html`<dt>${t("inspect.base")}</dt><dd><${Model} name=${detail.base} /></dd>`}
        ${detail.adapter && html`<dt>${t("inspect.adapter")}</dt><dd>${detail.adapter}</dd>`}
        ${detail.system && html`<dt>${t("drawer.system")}</dt><dd class="plain">${detail.system}</dd>`}
      </dl></section>`}
    <section><h2>${t("inspect.facts")}</h2>
      <${FactTable} facts=${detail.facts} label=${t("inspect.facts")} /></section>`;
}

/** @param {{detail: ModelDetail}} props */
function Templates({ detail }) {
  const entries = Object.entries(detail.templates);
  if (!entries.length) return html`<p class="empty">${t("inspect.no_template")}</p>`;
  return html`
    <p class="lead">${t("inspect.template_text")}</p>
    ${entries.map(([name, text]) => html`
      <figure class="code" key=${name}>
        <figcaption><span>${name}</span>
          <${CopyButton} text=${text} label=${t("inspect.copy_template", { name })} words /></figcaption>
        <pre tabindex="0" class="wrap" aria-label=${t("inspect.template", { name })}><code>${text}</code></pre>
      </figure>`)}`;
}

/** @param {{detail: ModelDetail, onVerified: () => void}} props */
function FileTab({ detail, onVerified }) {
  const { busy, error, run } = useAction();
  const verify = () => run(async () => {
    const { sha256 } = await call("POST", `/models/${part(detail.row.name)}/verify`);
    tell(t("models.verified", { name: detail.row.name, hash: sha256.slice(0, 12) }));
    onVerified();
  });
  return html`
    <dl class="facts">
      <dt>${t("inspect.path")}</dt>
      <dd class="mono break">${detail.path} <${CopyButton} text=${detail.path} label=${t("inspect.copy_path")} /></dd>
      <dt>${t("inspect.origin")}</dt><dd class="break">${detail.origin || t("inspect.no_origin")}</dd>
      <dt>${t("inspect.added")}</dt><dd>${moment(detail.row.added_at)}</dd>
      <dt>${t("inspect.size")}</dt>
      <dd class="num">${bytes(detail.row.size)} (${t("inspect.bytes", { n: count(detail.row.size) })})</dd>
      <dt>SHA-256</dt><dd class="mono break">${detail.sha256 || t("inspect.hashing")}
        ${detail.sha256 && html`<${CopyButton} text=${detail.sha256} label=${t("inspect.copy_hash")} />`}</dd>
      <dt>${t("inspect.licence")}</dt><dd>${detail.row.licence || t("add.licence_unknown")}</dd>
    </dl>
    <div class="buttons start"><button type="button" class="quiet" disabled=${busy} onClick=${verify}>
      <${Icon} name="check" />${t(busy ? "inspect.verifying" : "models.verify")}</button></div>
    ${error && html`<${Fault} error=${error} />`}
    ${detail.licence_text.trim().toLowerCase() !== detail.row.licence.toLowerCase() && html`
      <section><h2>${t("inspect.licence_text")}</h2>
        <pre tabindex="0" class="wrap paper" aria-label=${t("inspect.licence_text")}>${detail.licence_text}</pre>
      </section>`}`;
}

/**
 * What can be looked into: models by name, versions by id.
 * @param {{chosen: string, names: string[], tab: string}} props the tab of a model stays when another one is chosen
 */
function Which({ chosen, names, tab }) {
  const away = (versions.value ?? []).filter((row) => !row.model);
  const version = versionOf(chosen);
  const known = names.includes(chosen) || away.some((row) => row.id === chosen);
  /** @param {any} event */
  const choose = ({ target: { value } }) => (ID.test(value) && versionOf(value)
    ? go("inspect", VERSION, value) : go("inspect", value, ...(tab ? [tab] : [])));
  const model = (/** @type {string} */ name) => html`<option value=${name} key=${name}>${name}</option>`;
  return html`
    <select class="which" aria-label=${t("inspect.which")} value=${chosen} onChange=${choose}>
      ${!known && html`<option value=${chosen}>${version?.name ?? chosen}</option>`}
      ${away.length ? html`
        <optgroup label=${t("models.tab_here")}>${names.map(model)}</optgroup>
        <optgroup label=${t("offered.tab")}>${away.map((row) => html`
          <option value=${row.id} key=${row.id}>
            ${t("version.choice", { name: row.name, publisher: row.publisher.name })}</option>`)}</optgroup>`
        : names.map(model)}</select>`;
}

/** @param {{name: string, rest: string[]}} props */
function ModelPage({ name, rest }) {
  const tab = TABS.find((known) => known === (rest[0] ?? "")) ?? "";
  const shown = models.value?.find((row) => row.name === name);
  const { value: detail, error, again } = useFetched(`${name} ${shown?.added_at}`, async () =>
    /** @type {ModelDetail} */ (await call("GET", `/models/${part(name)}`)));
  const to = (/** @type {string} */ key) => href("inspect", name, ...(key ? [key] : []));
  const tabs = TABS.map((key) => ({ href: to(key), name: t(key === "compare" ? "compare.tab"
    : `inspect.tab_${key || "overview"}`) }));
  const known = detail?.row.name === name ? detail : null;
  return html`
    <${Tabs} label=${t("inspect.parts", { name })} tabs=${tabs} current=${to(tab)} />
    ${error && html`<${Fault} error=${error}>
      <button type="button" class="quiet" onClick=${again}>${t("chat.retry")}</button><//>`}
    ${known && tab === "" && html`<${Overview} detail=${known} />`}
    ${known && tab === "tensors" && html`<${TensorsTab} key=${name} name=${name} />`}
    ${known && tab === "tokenizer" && html`<${TokenizerTab} key=${name} detail=${known} />`}
    ${known && tab === "template" && html`<${Templates} detail=${known} />`}
    ${known && tab === "file" && html`<${FileTab} detail=${known} onVerified=${again} />`}
    ${known && tab === "compare" && html`<${CompareTab} name=${name} other=${rest[1] ?? ""} />`}`;
}

/** @param {{rest: string[]}} props */
export default function Inspect({ rest }) {
  const names = (models.value ?? []).map((row) => row.name);
  const [first = "", second = ""] = rest;
  const id = first === VERSION && ID.test(second) ? second : "";
  useEffect(() => {
    fetchVersions().catch(() => {}); // a version that is asked for says itself what is wrong
  }, []);
  useEffect(() => {
    if (!first && names[0]) go("inspect", names[0]);
  }, [first, names[0]]);
  return html`
    <div class="page wide">
      <header class="page-head"><h1 class="break">${(id && versionOf(id)?.name) || t("inspect.title")}</h1>
        ${(names.length > 0 || id) && html`
          <${Which} chosen=${id || first} names=${names} tab=${id ? "" : second} />`}</header>
      ${models.value && !names.length && !id && html`<p class="empty">${t("inspect.none")}
        ${" "}<a href=${href("models", "catalogue")}>${t("models.see_catalogue")}</a></p>`}
      ${id ? html`<${VersionPage} key=${id} id=${id} rest=${rest.slice(2)} />`
        : first && html`<${ModelPage} key=${first} name=${first} rest=${rest.slice(1)} />`}
    </div>`;
}
