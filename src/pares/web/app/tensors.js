/** Every tensor of a model: as a map to scale, and as a table. */

import { html, useMemo, useState } from "../vendor/preact.js";
import { call, part } from "./api.js";
import { bytes, count, decimal, parameters } from "./format.js";
import { Icon } from "./icons.js";
import { Statistics } from "./statistics.js";
import { t } from "./strings.js";
import { Fault, useFetched } from "./ui.js";

/** @import { TensorRow } from "./types.js" */
/** @typedef {{layer: number, size: number, tensors: TensorRow[]}} Layer */

const COLOURS = 8;
const MAX_ROWS = 400;
/** A share of its row that leaves room for a name. */
const ROOMY = 0.09;

/** "blk.3.ffn_up.weight" in its own layer is "ffn_up". @param {TensorRow} tensor */
const short = (tensor) => tensor.name.replace(/^blk\.\d+\./, "").replace(/\.weight$/, "");

/** @param {TensorRow} tensor */
const shape = (tensor) => tensor.shape.map(count).join(" × ");

/** @param {TensorRow} tensor */
const words = (tensor) => t("tensors.block", {
  name: tensor.name, type: tensor.type, shape: shape(tensor), size: bytes(tensor.size),
  parameters: parameters(tensor.elements),
});

/** @param {TensorRow[]} tensors @returns {Layer[]} */
function layersOf(tensors) {
  const groups = Map.groupBy(tensors, (tensor) => tensor.layer);
  return [...groups].sort(([a], [b]) => a - b)
    .map(([layer, members]) => ({ layer, size: members.reduce((sum, { size }) => sum + size, 0), tensors: members }));
}

/** The types by their bytes, most first; their place is their colour. @param {TensorRow[]} tensors */
function typesOf(tensors) {
  /** @type {Map<string, {bytes: number, tensors: number}>} */
  const sums = new Map();
  for (const { type, size } of tensors) {
    const sum = sums.get(type) ?? { bytes: 0, tensors: 0 };
    sums.set(type, { bytes: sum.bytes + size, tensors: sum.tensors + 1 });
  }
  return [...sums].sort(([, a], [, b]) => b.bytes - a.bytes)
    .map(([type, sum], i) => ({ type, ...sum, colour: (i % COLOURS) + 1 }));
}

/**
 * @param {{layer: Layer, label: string, scale: number, named: boolean, colours: Map<string, number>,
 *   onLook: (tensor: TensorRow) => void, onChoose: (text: string) => void}} props
 */
const MapRow = ({ layer, label, scale, named, colours, onLook, onChoose }) => html`
  <div class=${`map-row ${named ? "named" : ""}`}>
    <span class="map-label num">${label}</span>
    <div class="map-track"><div class="map-blocks" style=${{ width: `${Math.max(1, layer.size * scale)}%` }}>
      ${layer.tensors.map((tensor) => html`
        <span key=${tensor.name} class=${`cell c-${colours.get(tensor.type)}`} style=${{ flexGrow: tensor.size }}
          title=${words(tensor)} onMouseEnter=${() => onLook(tensor)} onClick=${() => onChoose(tensor.name)}>
          ${named && tensor.size > layer.size * ROOMY ? short(tensor) : ""}</span>`)}
    </div></div>
    <span class="map-size num">${bytes(layer.size)}</span>
  </div>`;

/** @param {{tensors: TensorRow[], types: ReturnType<typeof typesOf>, onChoose: (text: string) => void}} props */
function TensorMap({ tensors, types, onChoose }) {
  const [looked, setLooked] = useState(/** @type {TensorRow | null} */ (null));
  const layers = useMemo(() => layersOf(tensors), [tensors]);
  const colours = new Map(types.map(({ type, colour }) => [type, colour]));
  const inner = layers.filter(({ layer }) => layer >= 0);
  const outer = layers.filter(({ layer }) => layer < 0);
  const widest = Math.max(1, ...inner.map(({ size }) => size));
  const outermost = Math.max(1, ...outer.map(({ size }) => size));
  /** @param {Layer} layer @param {string} label @param {number} most @param {boolean} named */
  const row = (layer, label, most, named) => html`
    <${MapRow} key=${layer.layer} layer=${layer} label=${label} scale=${100 / most} named=${named} colours=${colours}
      onLook=${setLooked} onChoose=${onChoose} />`;
  return html`
    <div class="legend">${types.map(({ type, bytes: size, tensors: n, colour }) => html`
      <span key=${type}>
        <span class=${`key c-${colour}`} />${t("tensors.type", { type, n, size: bytes(size) })}</span>`)}</div>
    <div class="map" role="group" aria-label=${t("tensors.map_label", { n: tensors.length, layers: inner.length })}>
      ${outer.map((layer) => row(layer, t("tensors.outside"), outermost, true))}
      ${outer.length > 0 && inner.length > 0 && html`
        <p class="fine">${t("tensors.scale", { n: decimal(outermost / widest) })}</p>`}
      ${inner.map((layer, i) => row(layer, String(layer.layer), widest, i === 0))}
    </div>
    <p class="looked fine num" aria-hidden="true">${looked ? words(looked) : t("tensors.look")}</p>`;
}

/**
 * @param {TensorRow[]} tensors
 * @param {string} query every word must be in the name or the type; `layer:3` is that layer
 */
function matching(tensors, query) {
  const wanted = query.toLowerCase().split(/\s+/).filter(Boolean);
  return tensors.filter((tensor) => wanted.every((word) => word.startsWith("layer:")
    ? String(tensor.layer) === word.slice(6) : `${tensor.name} ${tensor.type}`.toLowerCase().includes(word)));
}

/** @param {{name: string, tensors: TensorRow[], query: string, onQuery: (text: string) => void}} props */
function TensorTable({ name: model, tensors, query, onQuery }) {
  const [looked, setLooked] = useState("");
  const [all, setAll] = useState(false);
  const found = matching(tensors, query);
  const rows = all ? found : found.slice(0, MAX_ROWS);
  return html`
    <div class="filter">
      <input type="search" id="tensor-filter" aria-label=${t("tensors.filter")} placeholder=${t("tensors.filter")}
        value=${query} onInput=${(/** @type {any} */ event) => onQuery(event.target.value)} />
      <span class="fine num" role="status">${t("tensors.found", { n: found.length, all: tensors.length,
        size: bytes(found.reduce((sum, { size }) => sum + size, 0)) })}</span>
    </div>
    <div class="scroll" tabindex="0" role="region" aria-label=${t("tensors.table")}><table class="grid">
      <thead><tr>
        ${["name", "kind", "shape"].map((key) => html`<th scope="col">${t(`tensors.${key}`)}</th>`)}
        ${["elements", "size", "offset"].map((key) => html`
          <th scope="col" class="to-right">${t(`tensors.${key}`)}</th>`)}
        <th scope="col"><span class="unseen">${t("statistics.title")}</span></th>
      </tr></thead>
      <tbody>${rows.map((tensor) => html`
        <tr key=${tensor.name}><th scope="row" class="mono">${tensor.name}</th>
          <td>${tensor.type}</td><td class="num">${shape(tensor)}</td>
          <td class="num to-right">${count(tensor.elements)}</td><td class="num to-right">${bytes(tensor.size)}</td>
          <td class="num to-right">${count(tensor.offset)}</td>
          <td><button type="button" class="tool" aria-label=${t("statistics.of", { name: tensor.name })}
            title=${t("statistics.of", { name: tensor.name })} onClick=${() => setLooked(tensor.name)}>
            <${Icon} name="inspect" /></button></td></tr>`)}</tbody>
    </table></div>
    ${looked && html`<${Statistics} model=${model} tensor=${looked} onClose=${() => setLooked("")} />`}
    ${rows.length < found.length && html`
      <button type="button" class="quiet" onClick=${() => setAll(true)}>
        ${t("tensors.all", { n: found.length })}</button>`}`;
}

/** @param {{name: string}} props */
export function TensorsTab({ name }) {
  const { value, error, again } = useFetched(name, async () => {
    const { tensors } = await call("GET", `/models/${part(name)}/tensors`);
    return /** @type {TensorRow[]} */ (tensors);
  });
  const [query, setQuery] = useState("");
  if (error) {
    return html`<${Fault} error=${error}>
      <button type="button" class="quiet" onClick=${again}>${t("chat.retry")}</button><//>`;
  }
  if (!value) return html`<p class="fine">${t("tensors.reading")}</p>`;
  const choose = (/** @type {string} */ text) => {
    setQuery(text);
    document.getElementById("tensor-filter")?.scrollIntoView({ block: "nearest" });
  };
  return html`
    <${TensorMap} tensors=${value} types=${typesOf(value)} onChoose=${choose} />
    <section><h2>${t("tensors.table")}</h2>
      <${TensorTable} name=${name} tensors=${value} query=${query} onQuery=${setQuery} /></section>`;
}
