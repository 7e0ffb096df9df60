/** Two models side by side: which tensors differ, and by how much, layer by layer. */

import { html, useState } from "../vendor/preact.js";
import { call } from "./api.js";
import "./commons_state.js";
import { count } from "./format.js";
import { go } from "./router.js";
import { models } from "./state.js";
import { t } from "./strings.js";
import { Fault, useFetched } from "./ui.js";

/** @import { Difference, LayerDifference, TensorDifference } from "./types.js" */

const BAR = 14;
const MAX_ROWS = 200;
const digits = new Intl.NumberFormat(navigator.language, { maximumSignificantDigits: 3 });
/** @param {number} share of the norm */
const relative = (share) => `${digits.format(share * 100)} %`;

/** @param {{layers: LayerDifference[]}} props */
function Bars({ layers }) {
  const most = Math.max(...layers.map((layer) => layer.relative), Number.MIN_VALUE);
  return html`
    <div class="differences"><div class="difference-bars">
      <svg viewBox=${`0 0 100 ${layers.length * BAR}`} preserveAspectRatio="none" role="img"
        aria-label=${t("compare.bars", { n: layers.length, most: relative(most) })}>
        ${layers.map((layer, i) => html`
          <rect key=${layer.layer} class=${layer.relative > 0 ? "differs" : "same"} x="0" y=${i * BAR + 3}
            width=${Math.max(0.5, (layer.relative / most) * 100)} height=${BAR - 6} />`)}</svg></div>
      <div class="scroll" tabindex="0" role="region" aria-label=${t("compare.layers")}><table class="grid">
        <thead><tr><th scope="col" class="to-right">${t("compare.layer")}</th>
          <th scope="col" class="to-right">${t("compare.relative")}</th>
          <th scope="col" class="to-right">${t("compare.changed")}</th></tr></thead>
        <tbody>${layers.map((layer) => html`
          <tr key=${layer.layer}><th scope="row" class="num to-right">
              ${layer.layer < 0 ? t("tensors.outside") : layer.layer}</th>
            <td class="num to-right">${relative(layer.relative)}</td>
            <td class="num to-right">${t("compare.of", { n: layer.changed, all: layer.tensors })}</td></tr>`)}
        </tbody>
      </table></div>
    </div>`;
}

/** @param {{tensors: TensorDifference[]}} props */
function Tensors({ tensors }) {
  const [all, setAll] = useState(false);
  const rows = tensors.filter((tensor) => tensor.state !== "equal")
    .sort((a, b) => (b.relative ?? Infinity) - (a.relative ?? Infinity));
  const shown = all ? rows : rows.slice(0, MAX_ROWS);
  if (!rows.length) return null;
  return html`
    <section><h2>${t("compare.tensors")}</h2>
      <div class="scroll" tabindex="0" role="region" aria-label=${t("compare.tensors")}><table class="grid">
        <thead><tr><th scope="col">${t("tensors.name")}</th><th scope="col">${t("compare.how")}</th>
          <th scope="col" class="to-right">${t("compare.relative")}</th></tr></thead>
        <tbody>${shown.map((tensor) => html`
          <tr key=${tensor.name}><th scope="row" class="mono">${tensor.name}</th>
            <td>${t(tensor.state === "changed" ? "compare.other_weights" : `compare.${tensor.state}`)}</td>
            <td class="num to-right">${tensor.relative === null ? "–" : relative(tensor.relative)}</td></tr>`)}</tbody>
      </table></div>
      ${shown.length < rows.length && html`
        <button type="button" class="quiet" onClick=${() => setAll(true)}>
          ${t("tensors.all", { n: rows.length })}</button>`}</section>`;
}

/** @param {{left: string, right: string}} props */
function Result({ left, right }) {
  const key = `${left} ${right}`;
  const { value, error, again } = useFetched(key, async () => ({
    key, found: /** @type {Difference} */ (await call("POST", "/differences", { left, right })),
  }));
  if (error) {
    return html`<${Fault} error=${error}>
      <button type="button" class="quiet" onClick=${again}>${t("chat.retry")}</button><//>`;
  }
  if (value?.key !== key) return html`<p class="fine" role="status">${t("compare.looking")}</p>`;
  const { found } = value;
  const scaled = found.layers;
  return html`
    <p class="lead num" role="status">${found.changed || found.tensors.some((tensor) => tensor.state !== "equal")
      ? t("compare.sum", { changed: count(found.changed), equal: count(found.equal) }) : t("compare.alike")}</p>
    ${scaled.length > 0 && html`<section><h2>${t("compare.layers")}</h2>
      <p class="fine">${t("compare.relative_text", { left })}</p><${Bars} layers=${scaled} /></section>`}
    <${Tensors} tensors=${found.tensors} />`;
}

/** @param {{name: string, other: string}} props */
export function CompareTab({ name, other }) {
  const names = (models.value ?? []).filter((row) => row.name !== name && !row.missing && !row.broken)
    .map((row) => row.name);
  if (!names.length) return html`<p class="empty">${t("compare.nothing")}</p>`;
  return html`
    <label class="option pair">${t("compare.with")}
      <select class="which" value=${other} onChange=${(/** @type {any} */ event) =>
        go("inspect", name, "compare", ...(event.target.value ? [event.target.value] : []))}>
        <option value="">${t("compare.choose")}</option>
        ${names.map((choice) => html`<option value=${choice} key=${choice}>${choice}</option>`)}</select></label>
    ${other && html`<${Result} left=${name} right=${other} />`}`;
}
