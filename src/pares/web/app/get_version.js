/** Fetch a version of a circle: what it takes is shown first, its licence is agreed to once; whole, or a part. */

import { html, useId, useState } from "../vendor/preact.js";
import { call } from "./api.js";
import { FitChip } from "./fit.js";
import { bytes } from "./format.js";
import { Icon } from "./icons.js";
import { pull } from "./pulls.js";
import { go } from "./router.js";
import { t } from "./strings.js";
import { Dialog, Fault, useAction, useFetched } from "./ui.js";

/** @import { PullPlan, VersionRow } from "./types.js" */

const PARTS = /** @type {const} */ (["", "header", "head", "layers"]);

/** @param {{plan: PullPlan}} props */
const Plan = ({ plan, plan: { fits_disk: fits } }) => html`
  <dl class="facts">
    <dt>${t("add.size")}</dt><dd class="num">${bytes(plan.size)}</dd>
    <dt>${t("add.disk")}</dt>
    <dd class="num">${t("add.disk_of", { needed: bytes(plan.disk_needed), free: bytes(plan.disk_free) })}
      ${" "}<span class=${`chip ${fits ? "ok" : "bad"}`}>${t(fits ? "add.fits" : "add.too_big")}</span></dd>
    ${plan.fit && html`
      <dt>${t("add.memory")}</dt><dd><${FitChip} fit=${plan.fit} need=${plan.need} /></dd>`}
    <dt>${t("get.from")}</dt>
    <dd class="num">${plan.holders ? t("get.senders", { n: plan.holders }) : t("get.no_senders")}</dd>
  </dl>`;

/** @param {{plan: PullPlan, agreed: boolean, onAgree: (agreed: boolean) => void}} props */
const LicenceOf = ({ plan, agreed, onAgree }) => html`
  <fieldset class="licence"><legend>${t("get.licence", { name: plan.licence || t("add.licence_unknown") })}</legend>
    ${plan.licence_text && html`
      <pre tabindex="0" class="wrap paper" aria-label=${t("inspect.licence_text")}>${plan.licence_text}</pre>`}
    ${plan.licence_accepted ? html`<p class="fine">${t("get.agreed")}</p>` : html`
      <label class="option"><input type="checkbox" checked=${agreed}
        onChange=${(/** @type {any} */ event) => onAgree(event.target.checked)} />
        <span>${t("get.agree")}<small>${t("get.agree_hint")}</small></span></label>`}
  </fieldset>`;

/**
 * @param {{row: VersionRow, wanted: {part: string, first: string, last: string, head: boolean},
 *   onChange: (change: Partial<{part: string, first: string, last: string, head: boolean}>) => void}} props
 */
function Parts({ row, wanted, onChange }) {
  const id = useId();
  /** @param {"first" | "last"} key */
  const layer = (key) => html`
    <div class="field"><label for=${`${id}-${key}`}>${t(`get.${key}`)}</label>
      <input id=${`${id}-${key}`} type="number" min="0" max=${Math.max(0, row.layers - 1)} required
        value=${wanted[key]}
        onInput=${(/** @type {any} */ event) => onChange({ [key]: event.target.value })} /></div>`;
  return html`
    <details class="advanced"><summary>${t("get.part")}</summary>
      <fieldset><legend class="unseen">${t("get.part")}</legend>
        ${PARTS.map((part) => html`
          <label class="option" key=${part}><input type="radio" name=${`${id}-part`} checked=${wanted.part === part}
            onChange=${() => onChange({ part })} />
            <span>${t(`get.part_${part || "whole"}`)}<small>${t(`get.part_${part || "whole"}_hint`)}</small></span>
          </label>`)}</fieldset>
      ${wanted.part === "layers" && html`
        <div class="dials">${layer("first")}${layer("last")}</div>
        <label class="option"><input type="checkbox" checked=${wanted.head}
          onChange=${(/** @type {any} */ event) => onChange({ head: event.target.checked })} />
          <span>${t("get.with_head")}</span></label>`}
    </details>`;
}

/** @param {{row: VersionRow, onClose: () => void}} props */
export function GetVersion({ row, onClose }) {
  const { busy, error, run } = useAction();
  const [agreed, setAgreed] = useState(false);
  const [wanted, setWanted] = useState(
    { part: "", first: "0", last: String(Math.max(0, row.layers - 1)), head: false });
  const [first, last] = [Number(wanted.first), Number(wanted.last)];
  const possible = wanted.part !== "layers"
    || (wanted.first !== "" && wanted.last !== "" && first >= 0 && first <= last && last < row.layers);
  const layers = wanted.part !== "layers" ? wanted.part : `${first}-${last + 1}${wanted.head ? "+head" : ""}`;
  const { value, error: unknown, again } = useFetched(possible ? layers : "none", async () => ({
    layers,
    plan: possible ? /** @type {PullPlan} */ (
      await call("POST", "/pulls", { source: row.id, layers, dry_run: true })) : null,
  }));
  const plan = value?.plan ?? null;
  const ready = plan !== null && value?.layers === layers && possible && !unknown;
  const get = () => run(async () => {
    await pull(row.id, { layers, accept_licence: agreed || (plan?.licence_accepted ?? false) });
    onClose();
    go("models", "downloads");
  });
  return html`
    <${Dialog} title=${t("get.title", { name: row.name })} onClose=${onClose}>
      <p class="fine">${t("get.published", { name: row.publisher.name })}${" "}
        <span class="fingerprint">${row.publisher.words}</span></p>
      ${unknown && html`<${Fault} error=${unknown}>
        <button type="button" class="quiet" onClick=${again}>${t("chat.retry")}</button><//>`}
      <div role="status">${plan && !unknown ? html`<${Plan} plan=${plan} />`
        : !unknown && html`<p class="fine">${t("get.asking")}</p>`}</div>
      ${plan && html`<${LicenceOf} plan=${plan} agreed=${agreed} onAgree=${setAgreed} />`}
      ${row.layers > 0 && html`
        <${Parts} row=${row} wanted=${wanted} onChange=${(/** @type {object} */ change) =>
          setWanted((now) => ({ ...now, ...change }))} />`}
      ${error && html`<${Fault} error=${error} />`}
      <div class="buttons">
        <button type="button" class="quiet" onClick=${onClose}>${t("ui.cancel")}</button>
        <button type="button" onClick=${get}
          disabled=${busy || !ready || !plan?.fits_disk || !(agreed || plan.licence_accepted)}>
          <${Icon} name="get" />${plan ? t("add.get", { size: bytes(plan.size) }) : t("models.get")}</button></div>
    <//>`;
}
