/** The model picker of the chat: what is in memory, what is on this PC, and what could be had. */

import { html } from "../vendor/preact.js";
import { change, model } from "./chat_state.js";
import { FitWord } from "./fit.js";
import { bytes, percent } from "./format.js";
import { Icon } from "./icons.js";
import { pull } from "./pulls.js";
import { href } from "./router.js";
import { catalogue, chatModels, loadedModel, pullOf, underWay } from "./state.js";
import { t } from "./strings.js";
import { Fault, Popover, useAction } from "./ui.js";

/** @import { CatalogueRow, ModelRow } from "./types.js" */

const OFFERED = 4;

/** @param {{row: ModelRow, close: () => void}} props */
function Here({ row, close }) {
  const loaded = loadedModel(row.name);
  const state = loaded?.state === "loading"
    ? t("picker.loading", { share: percent(loaded.progress) }) : t(loaded ? "picker.loaded" : "picker.on_disk");
  const choose = () => {
    close();
    change({ model: row.name });
  };
  return html`
    <li><button type="button" class="choice" aria-current=${row.name === model.value ? "true" : undefined}
      onClick=${choose}>
      <span class=${`mark-of ${loaded ? "on" : ""}`} aria-hidden="true">${loaded ? "●" : "○"}</span>
      <span class="name">${row.name}<small>${state} · ${row.quantization} · ${bytes(row.size)}</small></span>
      <${FitWord} fit=${row.fit} />
    </button></li>`;
}

/** @param {{row: CatalogueRow}} props */
function Offered({ row }) {
  const { busy, error, run } = useAction();
  const coming = pullOf(row.name);
  const state = coming && underWay(coming) && coming.total
    ? t("picker.coming", { share: percent(coming.bytes / coming.total) })
    : coming ? t(`pull.${coming.state}`) : t("picker.not_here");
  return html`
    <li><button type="button" class="choice" disabled=${busy || coming !== undefined}
      aria-label=${t("picker.get", { name: row.title, size: bytes(row.size) })}
      onClick=${() => run(() => pull(row.name))}>
      <span class="mark-of" aria-hidden="true">↓</span>
      <span class="name">${row.title}<small>${state} · ${row.quantization} · ${bytes(row.size)}</small></span>
      <${FitWord} fit=${row.fit} />
    </button>${error && html`<${Fault} error=${error} />`}</li>`;
}

/** @param {{title: string, children: any}} props */
const Group = ({ title, children }) => html`<h2>${title}</h2><ul class="choices">${children}</ul>`;

export function Picker() {
  const here = chatModels.value;
  const loaded = here.filter((row) => loadedModel(row.name));
  const resting = here.filter((row) => !loadedModel(row.name));
  const offered = (catalogue.value ?? [])
    .filter((row) => !row.here && (row.chat || pullOf(row.name)) && row.fit === "runs well").slice(0, OFFERED);
  const face = html`<span class="pick">${model.value || t("picker.none")}</span><${Icon} name="down" />`;
  return html`
    <${Popover} class="picker" label=${t("picker.label", { model: model.value || t("picker.none") })} face=${face}>
      ${(/** @type {() => void} */ close) => html`
        <div class="picking">
          ${loaded.length > 0 && html`<${Group} title=${t("picker.in_memory")}>
            ${loaded.map((row) => html`<${Here} key=${row.name} row=${row} close=${close} />`)}<//>`}
          ${resting.length > 0 && html`<${Group} title=${t("picker.here")}>
            ${resting.map((row) => html`<${Here} key=${row.name} row=${row} close=${close} />`)}<//>`}
          ${offered.length > 0 && html`<${Group} title=${t("picker.offered")}>
            ${offered.map((row) => html`<${Offered} key=${row.name} row=${row} />`)}<//>`}
          <a class="item" href=${href("models")} onClick=${close}><${Icon} name="models" />${t("picker.all")}</a>
        </div>`}
    <//>`;
}
