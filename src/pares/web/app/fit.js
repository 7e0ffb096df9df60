/** Whether a model fits this machine: a word, and the sum behind it. */

import { html } from "../vendor/preact.js";
import { bytes, count } from "./format.js";
import { t } from "./strings.js";
import { Popover } from "./ui.js";

/** @import { Fit, Need } from "./types.js" */

const LOOKS = /** @type {const} */ ({
  "runs well": ["ok", "●"], tight: ["warn", "◐"], "needs more machines": ["", "◇"], "will not run": ["bad", "✕"],
});

/** @param {{fit: Fit}} props */
export const FitWord = ({ fit }) => html`
  <span class=${`chip ${LOOKS[fit][0]}`}><span aria-hidden="true">${LOOKS[fit][1]}</span> ${t(`fit.${fit}`)}</span>`;

/** The parts of the sum beside what is free, to scale. @param {{need: Need}} props */
function SumBar({ need }) {
  const scale = 100 / Math.max(need.total, need.free, 1);
  const parts = [need.weights, need.kv_cache, need.buffers];
  let x = 0;
  const rects = parts.map((size, i) => {
    const width = size * scale;
    x += width;
    return html`<rect class=${`part-${i + 1}`} x=${x - width} y="0" width=${width} height="10" />`;
  });
  return html`
    <svg class="sum" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
      <rect class="room" x="0" y="0" width=${need.free * scale} height="10" />${rects}
    </svg>`;
}

/** @param {{need: Need}} props */
export const Sum = ({ need }) => html`
  <${SumBar} need=${need} />
  <table class="sums">
    <tbody>
      <tr><th scope="row"><span class="key part-1" />${t("fit.weights")}</th><td>${bytes(need.weights)}</td></tr>
      <tr><th scope="row"><span class="key part-2" />${t("fit.kv_cache", { n: count(need.context) })}</th>
        <td>${bytes(need.kv_cache)}</td></tr>
      <tr><th scope="row"><span class="key part-3" />${t("fit.buffers")}</th><td>${bytes(need.buffers)}</td></tr>
      <tr class="total"><th scope="row">${t("fit.total")}</th><td>${bytes(need.total)}</td></tr>
      <tr><th scope="row"><span class="key room" />${t("fit.free")}</th><td>${bytes(need.free)}</td></tr>
      <tr><th scope="row">${t("fit.largest_context")}</th>
        <td>${t("fit.tokens", { n: count(need.largest_context) })}</td></tr>
    </tbody>
  </table>`;

/** The word, and on a click the sum. @param {{fit: Fit, need: Need | null}} props */
export const FitChip = ({ fit, need }) => need === null
  ? html`<${FitWord} fit=${fit} />`
  : html`
    <${Popover} class="bare" label=${t("fit.open", { fit: t(`fit.${fit}`) })} face=${html`<${FitWord} fit=${fit} />`}>
      ${() => html`<h2>${t("fit.title")}</h2><${Sum} need=${need} />`}
    <//>`;
