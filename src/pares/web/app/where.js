/** The badge that says where a chat runs, who can read it, and what is kept. */

import { html } from "../vendor/preact.js";
import { isTemporary, model } from "./chat_state.js";
import { bytes } from "./format.js";
import { Icon } from "./icons.js";
import { loadedModel, status } from "./state.js";
import { t } from "./strings.js";
import { Popover } from "./ui.js";

export function Where() {
  const loaded = loadedModel(model.value);
  const face = html`<span class="chip ok"><${Icon} name="pc" />${t("where.badge")}</span>`;
  return html`
    <${Popover} class="bare" label=${t("where.open")} face=${face}>
      ${() => html`
        <h2>${t("where.title")}</h2>
        <p>${t("where.text")}</p>
        <dl class="facts">
          <dt>${t("where.computed")}</dt>
          <dd>${loaded
            ? t("where.process", {
                pid: String(loaded.pid), memory: bytes(loaded.memory_bytes), threads: loaded.threads,
              })
            : t("where.not_loaded")}</dd>
          <dt>${t("where.readers")}</dt><dd>${t("where.you")}</dd>
          <dt>${t("where.kept")}</dt>
          <dd class="break">
            ${isTemporary.value ? t("where.nowhere") : t("where.in_home", { home: status.value?.home ?? "" })}</dd>
          <dt>${t("where.checked")}</dt><dd>${t("where.no_check")}</dd>
        </dl>
        ${status.value?.listening_beyond_this_machine && html`<p class="fine">${t("where.listening")}</p>`}`}
    <//>`;
}
