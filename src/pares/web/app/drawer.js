/** How this conversation is answered: system prompt and sampling. An empty field is the model's default. */

import { html, useEffect, useId, useRef, useState } from "../vendor/preact.js";
import { capabilities, change, current, model } from "./chat_state.js";
import { count } from "./format.js";
import { Icon } from "./icons.js";
import { LoadDialog } from "./load.js";
import { loadedModel } from "./state.js";
import { t } from "./strings.js";

/** @import { ChatSettings } from "./types.js" */

const SAVE_MS = 500;

/** @typedef {{key: "temperature" | "top_p" | "top_k" | "min_p" | "repeat_penalty" | "seed" | "max_tokens",
 *   min: number, max: number, step: number}} Dial */
/** @type {Dial[]} */
const DIALS = [
  { key: "temperature", min: 0, max: 2, step: 0.05 },
  { key: "top_p", min: 0, max: 1, step: 0.01 },
  { key: "top_k", min: 0, max: 1000, step: 1 },
  { key: "min_p", min: 0, max: 1, step: 0.01 },
  { key: "repeat_penalty", min: 0.5, max: 2, step: 0.01 },
  { key: "seed", min: 0, max: Number.MAX_SAFE_INTEGER, step: 1 },
  { key: "max_tokens", min: 1, max: 1_000_000, step: 1 },
];

/** @param {ChatSettings} settings */
const put = (settings) => change({ settings: { ...current.value.settings, ...settings } });

/** @param {{dial: Dial, value: number | null | undefined}} props */
function DialField({ dial, value }) {
  const id = useId();
  const [bad, setBad] = useState(false);
  /** @param {any} event */
  const onChange = ({ target }) => {
    setBad(!target.validity.valid);
    if (target.validity.valid) put({ [dial.key]: target.value === "" ? null : target.valueAsNumber });
  };
  return html`
    <div class="field">
      <label for=${id}>${t(`drawer.${dial.key}`)}</label>
      <input id=${id} type="number" inputmode="decimal" min=${dial.min} max=${dial.max}
        step=${dial.step === 1 ? 1 : "any"} value=${value ?? ""} placeholder=${t("drawer.own")} aria-invalid=${bad}
        aria-describedby=${`${id}-hint`} onChange=${onChange} />
      <p id=${`${id}-hint`} class=${`fine ${bad ? "wrong" : ""}`}>${bad
        ? t("drawer.between", { min: count(dial.min), max: count(dial.max) }) : t(`drawer.${dial.key}_hint`)}</p>
    </div>`;
}

/**
 * A text that is kept shortly after the last key.
 * @param {{label: string, hint?: string, value: string, placeholder?: string, code?: boolean, rows?: number,
 *   wrong?: string, onSave: (text: string) => void}} props
 */
function TextField({ label, hint, value, placeholder, code = false, rows = 4, wrong = "", onSave }) {
  const id = useId();
  const [text, setText] = useState(value);
  const [unsaved, setUnsaved] = useState(false);
  const save = useRef(onSave);
  save.current = onSave;
  useEffect(() => {
    if (!unsaved) setText(value);
  }, [value]);
  useEffect(() => {
    if (!unsaved) return;
    const timer = setTimeout(() => {
      setUnsaved(false);
      save.current(text);
    }, SAVE_MS);
    return () => clearTimeout(timer);
  }, [text, unsaved]);
  return html`
    <div class="field wide">
      <label for=${id}>${label}</label>
      <textarea id=${id} rows=${rows} class=${code ? "mono" : ""} value=${text} placeholder=${placeholder}
        spellcheck=${!code} aria-invalid=${wrong !== ""} aria-describedby=${`${id}-hint`}
        onInput=${(/** @type {any} */ event) => {
          setText(event.target.value);
          setUnsaved(true);
        }} />
      <p id=${`${id}-hint`} class=${`fine ${wrong ? "wrong" : ""}`}>${wrong || hint}</p>
    </div>`;
}

/** @param {{settings: ChatSettings}} props */
function SchemaField({ settings }) {
  const [wrong, setWrong] = useState("");
  /** @param {string} text */
  const onSave = (text) => {
    let schema = null;
    try {
      schema = text.trim() ? JSON.parse(text) : null;
    } catch (fault) {
      setWrong(t("drawer.schema_wrong", { fault: /** @type {Error} */ (fault).message }));
      return;
    }
    const object = schema === null || (typeof schema === "object" && !Array.isArray(schema));
    setWrong(object ? "" : t("drawer.schema_object"));
    if (object) put({ schema });
  };
  return html`<${TextField} label=${t("drawer.schema")} hint=${t("drawer.schema_hint")} wrong=${wrong} code
    onSave=${onSave} value=${settings.schema ? JSON.stringify(settings.schema, null, 2) : ""}
    placeholder=${'{"type": "object"}'} />`;
}

/** @param {{settings: ChatSettings}} props */
function ThinkingField({ settings }) {
  const id = useId();
  const value = settings.thinking == null ? "own" : settings.thinking ? "on" : "off";
  /** @param {any} event */
  const onChange = ({ target }) => put({ thinking: target.value === "own" ? null : target.value === "on" });
  return html`
    <div class="field">
      <label for=${id}>${t("drawer.thinking")}</label>
      <select id=${id} value=${value} onChange=${onChange}>
        <option value="own">${t("drawer.own")}</option>
        <option value="on">${t("drawer.thinking_on")}</option>
        <option value="off">${t("drawer.thinking_off")}</option>
      </select>
      <p class="fine">${t("drawer.thinking_hint")}</p>
    </div>`;
}

/** @param {{onClose: () => void}} props */
export function Drawer({ onClose }) {
  const { row, system, settings } = current.value;
  const [loading, setLoading] = useState(false);
  const loaded = loadedModel(model.value);
  const changed = system !== "" || Object.values(settings).some((value) =>
    value !== null && !(Array.isArray(value) && value.length === 0));
  const reset = () => {
    const none = Object.fromEntries(Object.keys(settings).map((key) => [key, key === "stop" ? [] : null]));
    change({ system: "", settings: none });
  };
  return html`
    <aside class="drawer" aria-label=${t("drawer.title")} key=${row.id}>
      <div class="headline"><h2>${t("drawer.title")}</h2>
        <button type="button" class="tool" aria-label=${t("ui.close")} onClick=${onClose}>
          <${Icon} name="close" /></button></div>
      <${TextField} label=${t("drawer.system")} hint=${t("drawer.system_hint")} value=${system} rows=${3}
        placeholder=${t("drawer.system_example")}
        onSave=${(/** @type {string} */ text) => change({ system: text })} />
      <div class="dials">
        ${DIALS.map((dial) => html`<${DialField} key=${dial.key} dial=${dial} value=${settings[dial.key]} />`)}
        ${(capabilities.value?.includes("thinking") || settings.thinking != null) && html`
          <${ThinkingField} settings=${settings} />`}
      </div>
      <${TextField} label=${t("drawer.stop")} hint=${t("drawer.stop_hint")} value=${(settings.stop ?? []).join("\n")}
        rows=${2} code onSave=${(/** @type {string} */ text) => put({ stop: text.split("\n").filter(Boolean) })} />
      <${SchemaField} settings=${settings} />
      <div class="field wide">
        <span class="label">${t("drawer.context")}</span>
        <p class="fine">
          ${loaded ? t("drawer.context_now", { n: count(loaded.context) }) : t("drawer.context_later")}</p>
        <div class="buttons start">
          <button type="button" class="quiet" disabled=${!model.value} onClick=${() => setLoading(true)}>
            ${t("drawer.context_change")}</button>
          <button type="button" class="quiet" disabled=${!changed} onClick=${reset}>${t("drawer.reset")}</button>
        </div>
      </div>
      ${loading && html`<${LoadDialog} name=${model.value} onClose=${() => setLoading(false)} />`}
    </aside>`;
}
