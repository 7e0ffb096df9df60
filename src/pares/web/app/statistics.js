/** What the weights of one tensor look like: looked up on demand, as words and as a small histogram. */

import { html } from "../vendor/preact.js";
import { call, part } from "./api.js";
import "./commons_state.js";
import { bytes, count, percent } from "./format.js";
import { t } from "./strings.js";
import { Dialog, Fault, useFetched } from "./ui.js";

/** @import { TensorStatistics } from "./types.js" */

const HEIGHT = 80;
const digits = new Intl.NumberFormat(navigator.language, { maximumSignificantDigits: 4 });
/** @param {number} n */
const figure = (n) => (Math.abs(n) > 0 && Math.abs(n) < 1e-4 ? n.toExponential(2) : digits.format(n));

/** @param {{found: TensorStatistics}} props */
function Histogram({ found: { histogram, least, most } }) {
  const highest = Math.max(1, ...histogram);
  const total = Math.max(1, histogram.reduce((sum, n) => sum + n, 0));
  const step = (most - least) / Math.max(1, histogram.length);
  const peak = histogram.indexOf(Math.max(...histogram));
  const words = t("statistics.peak", {
    share: percent((histogram[peak] ?? 0) / total), from: figure(least + peak * step),
    to: figure(least + (peak + 1) * step),
  });
  return html`
    <figure class="histogram">
      <svg viewBox=${`0 0 ${histogram.length} ${HEIGHT}`} preserveAspectRatio="none" role="img"
        aria-label=${t("statistics.histogram", { from: figure(least), to: figure(most), words })}>
        ${histogram.map((n, i) => html`
          <rect key=${i} x=${i + 0.06} width="0.88" y=${HEIGHT - (n / highest) * HEIGHT}
            height=${(n / highest) * HEIGHT} />`)}</svg>
      <figcaption class="fine num"><span>${figure(least)}</span><span>${figure(most)}</span></figcaption>
      <p class="fine num">${words}</p>
    </figure>`;
}

/** @param {{found: TensorStatistics}} props */
const Facts = ({ found }) => html`
  <dl class="facts">
    <dt>${t("tensors.kind")}</dt><dd>${found.type}</dd>
    <dt>${t("tensors.shape")}</dt><dd class="num">${found.shape.map(count).join(" × ")}</dd>
    <dt>${t("tensors.size")}</dt><dd class="num">${bytes(found.size)}</dd>
    <dt>${t("statistics.range")}</dt><dd class="num">
      ${t("statistics.from_to", { from: figure(found.least), to: figure(found.most) })}</dd>
    <dt>${t("statistics.mean")}</dt><dd class="num">${figure(found.mean)}</dd>
    <dt>${t("statistics.deviation")}</dt><dd class="num">${figure(found.deviation)}</dd>
    <dt>${t("statistics.zeros")}</dt><dd class="num">${digits.format(found.zeros * 100)} %</dd>
    ${found.odd > 0 && html`<dt>${t("statistics.odd")}</dt>
      <dd><span class="chip bad"><span aria-hidden="true">✕</span> ${count(found.odd)}</span></dd>`}
    <dt>${t("statistics.sampled")}</dt><dd class="num">${count(found.sampled)}</dd>
  </dl>`;

/** @param {{model: string, tensor: string, onClose: () => void}} props */
export function Statistics({ model, tensor, onClose }) {
  const { value, error, again } = useFetched(`${model} ${tensor}`, async () => /** @type {TensorStatistics} */ (
    await call("GET", `/models/${part(model)}/statistics?tensor=${part(tensor)}`)));
  return html`
    <${Dialog} title=${tensor} onClose=${onClose}>
      ${error && html`<${Fault} error=${error}>
        <button type="button" class="quiet" onClick=${again}>${t("chat.retry")}</button><//>`}
      ${!value && !error && html`<p class="fine" role="status">${t("statistics.looking")}</p>`}
      ${value && value.histogram.length > 0 && html`<${Histogram} found=${value} />`}
      ${value && html`<${Facts} found=${value} />`}
    <//>`;
}
