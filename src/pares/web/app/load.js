/** Bring a model into memory, as it is or with a context, a profile and a time to stay. */

import { html, useId, useState } from "../vendor/preact.js";
import { tell } from "./announce.js";
import { call, part } from "./api.js";
import { bytes, count, percent } from "./format.js";
import { loadedModel, models } from "./state.js";
import { t } from "./strings.js";
import { Dialog, Fault, Progress, useAction } from "./ui.js";

/**
 * @param {string} name
 * @param {{context?: number | null, profile?: "fast" | "exact", keep_alive_s?: number | null}} [how]
 */
export async function load(name, how = {}) {
  const loaded = await call("POST", `/models/${part(name)}/load`, how);
  tell(t("models.loaded_note", { name, memory: bytes(loaded.memory_bytes) }));
}

/** @param {string} name */
export async function unload(name) {
  const memory = loadedModel(name)?.memory_bytes ?? 0;
  await call("POST", `/models/${part(name)}/unload`);
  tell(t("models.unloaded_note", { name, memory: bytes(memory) }));
}

/** Seconds after the last use, and how they are called. */
const STAYS = /** @type {const} */ ([
  ["", "load.stay_default"], ["300", "load.stay_5min"], ["3600", "load.stay_1h"], ["-1", "load.stay_always"],
]);

/** @param {{name: string, onClose: () => void}} props */
export function LoadDialog({ name, onClose }) {
  const id = useId();
  const { busy, error, run } = useAction();
  const loaded = loadedModel(name);
  const need = models.value?.find((row) => row.name === name)?.need;
  const [context, setContext] = useState(loaded ? String(loaded.context) : "");
  const [profile, setProfile] = useState(/** @type {"fast" | "exact"} */ (loaded?.profile ?? "fast"));
  const [stay, setStay] = useState("");
  const largest = need?.largest_context ?? 0;
  const tooLong = largest > 0 && Number(context) > largest;
  /** @param {Event} event */
  const submit = (event) => {
    event.preventDefault();
    run(async () => {
      await load(name, {
        context: context === "" ? null : Number(context), profile, keep_alive_s: stay === "" ? null : Number(stay),
      });
      onClose();
    });
  };
  /** @param {"fast" | "exact"} value */
  const choice = (value) => html`
    <label class="option"><input type="radio" name=${`${id}-profile`} checked=${profile === value}
      onChange=${() => setProfile(value)} />
      <span><strong>${t(`load.${value}`)}</strong><small>${t(`load.${value}_hint`)}</small></span></label>`;
  return html`
    <${Dialog} title=${t("load.title", { name })} onClose=${onClose}>
      <form onSubmit=${submit}>
        <div class="field"><label for=${`${id}-context`}>${t("load.context")}</label>
          <input id=${`${id}-context`} type="number" min="64" step="1" value=${context}
            placeholder=${t("load.context_own")}
            aria-describedby=${`${id}-hint`} onInput=${(/** @type {any} */ event) => setContext(event.target.value)} />
          <p id=${`${id}-hint`} class=${`fine ${tooLong ? "wrong" : ""}`}>${largest > 0
            ? t(tooLong ? "load.too_long" : "load.largest", { n: count(largest) }) : t("load.context_hint")}</p></div>
        <fieldset><legend>${t("load.profile")}</legend>${choice("fast")}${choice("exact")}</fieldset>
        <div class="field"><label for=${`${id}-stay`}>${t("load.stay")}</label>
          <select id=${`${id}-stay`} value=${stay}
            onChange=${(/** @type {any} */ event) => setStay(event.target.value)}>
            ${STAYS.map(([value, key]) => html`<option value=${value}>${t(key)}</option>`)}</select></div>
        ${error && html`<${Fault} error=${error} />`}
        ${busy && loaded && html`<p class="fine">${t("load.loading", { share: percent(loaded.progress) })}</p>
          <${Progress} value=${loaded.progress} max=${1} label=${t("load.progress")} />`}
        <div class="buttons"><button type="button" class="quiet" onClick=${onClose}>${t("ui.cancel")}</button>
          <button type="submit" disabled=${busy}>${t(loaded ? "load.again" : "load.go")}</button></div>
      </form>
    <//>`;
}
