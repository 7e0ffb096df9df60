/** Bring in a model: by address, with its cost shown before the first byte, or a file that lies here already. */

import { html, useId, useState } from "../vendor/preact.js";
import { tell } from "./announce.js";
import { call } from "./api.js";
import { FitChip } from "./fit.js";
import { bytes } from "./format.js";
import { Icon } from "./icons.js";
import { pull } from "./pulls.js";
import { go } from "./router.js";
import { fetchModels, status } from "./state.js";
import { t } from "./strings.js";
import { CopyButton, Dialog, Fault, useAction } from "./ui.js";

/** @import { PullPlan } from "./types.js" */

/** @param {{plan: PullPlan}} props */
const Plan = ({ plan, plan: { fits_disk: fits } }) => html`
  <div class="plan" role="status">
    <h3>${plan.name}</h3>
    <dl class="facts">
      <dt>${t("add.size")}</dt><dd class="num">${plan.size ? bytes(plan.size) : t("add.unknown")}</dd>
      <dt>${t("add.disk")}</dt>
      <dd class="num">${t("add.disk_of", { needed: bytes(plan.disk_needed), free: bytes(plan.disk_free) })}
        ${" "}<span class=${`chip ${fits ? "ok" : "bad"}`}>${t(fits ? "add.fits" : "add.too_big")}</span></dd>
      <dt>${t("add.memory")}</dt>
      <dd>${plan.fit ? html`<${FitChip} fit=${plan.fit} need=${plan.need} />` : t("add.memory_later")}</dd>
      <dt>${t("add.licence")}</dt><dd>${plan.licence || t("add.licence_unknown")}</dd>
      <dt>SHA-256</dt><dd class="mono break">${plan.sha256 || t("add.hash_unknown")}</dd>
    </dl>
  </div>`;

/** Why nothing can be fetched, where the node is set to stay offline. */
export const OfflineNote = () => status.value?.offline
  ? html`<${Fault} error=${{ message: t("welcome.offline"), hint: t("welcome.offline_hint") }} />` : null;

export function AddByAddress() {
  const id = useId();
  const { busy, error, run } = useAction();
  const [source, setSource] = useState("");
  const [plan, setPlan] = useState(/** @type {PullPlan | null} */ (null));
  /** @param {Event} event */
  const look = (event) => {
    event.preventDefault();
    run(async () => setPlan(await call("POST", "/pulls", { source: source.trim(), dry_run: true })));
  };
  /** @param {any} event */
  const typed = ({ target }) => {
    setSource(target.value);
    setPlan(null);
  };
  const get = () => run(async () => {
    await pull(source.trim());
    setPlan(null);
    setSource("");
    go("models", "downloads");
  });
  return html`
    <form class="add" onSubmit=${look}>
      <label for=${id}>${t("add.label")}</label>
      <div class="line">
        <input id=${id} type="text" class="mono" value=${source} spellcheck="false" autocomplete="off"
          placeholder="hf:owner/repo/file.gguf" aria-describedby=${`${id}-hint`} onInput=${typed} />
        <button type="submit" class="quiet" disabled=${busy || !source.trim()}>${t("add.look")}</button>
      </div>
      <p id=${`${id}-hint`} class="fine">${t("add.hint")}</p>
      ${error && html`<${Fault} error=${error} />`}
      ${plan && html`<${Plan} plan=${plan} />
        <div class="buttons start"><button type="button" disabled=${busy || !plan.fits_disk} onClick=${get}>
          <${Icon} name="get" />${plan.size ? t("add.get", { size: bytes(plan.size) }) : t("add.get_unknown")}</button>
          <${CopyButton} text=${`pares pull ${source.trim()}`} label=${t("add.copy_command")} /></div>`}
    </form>`;
}

/** @param {{onClose: () => void}} props */
export function ImportDialog({ onClose }) {
  const id = useId();
  const { busy, error, run } = useAction();
  const [path, setPath] = useState("");
  /** @param {Event} event */
  const submit = (event) => {
    event.preventDefault();
    run(async () => {
      const { models } = await call("POST", "/models/import", { path: path.trim() });
      await fetchModels();
      const names = models.map((/** @type {{name: string}} */ row) => row.name);
      tell(t("add.imported", { n: names.length, names: names.join(", ") }));
      onClose();
    });
  };
  return html`
    <${Dialog} title=${t("add.import_title")} onClose=${onClose}>
      <form onSubmit=${submit}>
        <p>${t("add.import_text")}</p>
        <div class="field wide"><label for=${id}>${t("add.path")}</label>
          <input id=${id} type="text" class="mono" autofocus spellcheck="false" autocomplete="off" value=${path}
            placeholder="/home/you/models/model.gguf"
            onInput=${(/** @type {any} */ event) => setPath(event.target.value)} /></div>
        ${error && html`<${Fault} error=${error} />`}
        <div class="buttons"><button type="button" class="quiet" onClick=${onClose}>${t("ui.cancel")}</button>
          <button type="submit" disabled=${busy || !path.trim()}>${t("add.import")}</button></div>
      </form>
    <//>`;
}
