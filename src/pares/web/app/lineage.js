/** What a version was made from, and what was made from it: a graph, and the same as a table. */

import { html } from "../vendor/preact.js";
import { call, part } from "./api.js";
import { turns } from "./commons_state.js";
import { layout, nearest } from "./lineage_layout.js";
import { useNarrow } from "./peers.js";
import { href } from "./router.js";
import { t } from "./strings.js";
import { Fault, useFetched } from "./ui.js";

/** @import { Lineage, LineageEdge, LineageNode } from "./types.js" */
/** @import { Place } from "./lineage_layout.js" */

const STATES = /** @type {const} */ (["checked", "stated", "missing", "wrong", "cycle", "revoked"]);
/** Columns that a phone has no room for: it says the same in others. */
const WIDE_ONLY = ["relation", "why"];
const LOOKS = { checked: "ok", stated: "", missing: "warn", wrong: "bad", cycle: "warn", revoked: "bad" };
const SIGNS = { checked: "✓", stated: "·", missing: "?", wrong: "✕", cycle: "↻", revoked: "!" };
const GRID = { across: 262, down: 96, width: 168, height: 64, upright: false };
const NARROW = { across: 164, down: 136, width: 152, height: 64, upright: true };
const MAX_NODES = 60;
const MARGIN = 8;
/** Room below or beside the nodes for edges that lead back. */
const DETOUR = 48;

/** @param {string} text @param {number} letters */
const short = (text, letters) => (text.length > letters ? `${text.slice(0, letters - 1)}…` : text);

/** @param {LineageNode} node @returns {[look: string, words: string]} */
const standing = (node) => (!node.known ? ["unknown", t("lineage.unknown")]
  : node.troubles.length ? ["troubled", t("lineage.troubled")]
    : node.here === "whole" ? ["here", t("version.here_whole")] : ["", node.publisher?.name ?? ""]);

/** @param {{place: Place, of: string, narrow: boolean, onArrow: (event: KeyboardEvent) => void}} props */
function Node({ place: { node, x, y }, of, narrow, onArrow }) {
  const [look, words] = standing(node);
  const { width, height } = narrow ? NARROW : GRID;
  const letters = narrow ? 16 : 18;
  const label = [node.name, node.kind ? t(`version.kind_${node.kind}`) : "", node.publisher
    ? t("lineage.by", { name: node.publisher.name }) : "", node.id === of ? t("lineage.this") : "",
    look ? words : "", ...node.troubles].filter(Boolean).join(", ");
  const inside = html`
    <title>${node.publisher ? `${node.name}: ${node.publisher.words}` : node.name}</title>
    <rect class="node-box" x=${-width / 2} y=${-height / 2} width=${width} height=${height} rx="10" />
    <text class="seat-name" y="-7">${short(node.name, letters)}</text>
    <text class="seat-words" y="14">${short(look ? words : t("lineage.by", { name: words }), letters + 4)}</text>`;
  const facts = {
    class: `lineage-node ${look} ${node.id === of ? "this" : ""}`, transform: `translate(${x} ${y})`,
    "data-id": node.id, onKeyDown: onArrow,
  };
  return node.known
    ? html`<a ...${facts} href=${href("inspect", "version", node.id, "lineage")} aria-label=${label}
        aria-current=${node.id === of ? "true" : undefined}>${inside}</a>`
    : html`<g ...${facts} tabindex="0" role="img" aria-label=${label}>${inside}</g>`;
}

/**
 * A line from parent to child, and its word.
 * @param {{edge: LineageEdge, from: Place, to: Place, upright: boolean, end: number}} props `end`: where the
 *   nodes end, beside or below
 */
function Edge({ edge, from, to, upright, end }) {
  const { width, height } = upright ? NARROW : GRID;
  const ahead = upright ? to.y > from.y : to.x > from.x;
  const [w, h] = [width / 2, height / 2];
  let [x1, y1, x2, y2] = upright ? [from.x, from.y + h, to.x, to.y - h] : [from.x + w, from.y, to.x - w, to.y];
  let [mx, my] = [(x1 + x2) / 2, (y1 + y2) / 2];
  let curve = upright ? `${x1} ${my} ${x2} ${my}` : `${mx} ${y1} ${mx} ${y2}`;
  if (!ahead) { // around all nodes: the middle of a Bezier curve is an eighth of its ends and six of its handles
    const middle = end + DETOUR / 2;
    [x1, y1, x2, y2] = upright ? [from.x + w, from.y, to.x + w, to.y] : [from.x, from.y + h, to.x, to.y + h];
    const out = (8 * middle - (upright ? x1 + x2 : y1 + y2)) / 6;
    curve = upright ? `${out} ${y1} ${out} ${y2}` : `${x1} ${out} ${x2} ${out}`;
    [mx, my] = upright ? [middle, (y1 + y2) / 2] : [(x1 + x2) / 2, middle];
  }
  return html`
    <g class=${`lineage-edge ${edge.state}`} aria-hidden="true">
      <path d=${`M${x1} ${y1}C${curve} ${x2} ${y2}`} />
      <text x=${mx} y=${my - 3}>${t(`version.kind_${edge.relation}`)}</text>
      <text class="edge-state" x=${mx} y=${my + 13}>${SIGNS[edge.state]} ${t(`lineage.${edge.state}`)}</text></g>`;
}

/** @param {{lineage: Lineage}} props */
function Graph({ lineage }) {
  const narrow = useNarrow();
  const grid = narrow ? NARROW : GRID;
  const { places, width, height } = layout(lineage, grid);
  const leadsBack = lineage.edges.some((edge) => edge.state === "cycle");
  const [wide, tall] = [width + 2 * MARGIN + (leadsBack && narrow ? DETOUR : 0),
    height + 2 * MARGIN + (leadsBack && !narrow ? DETOUR : 0)];
  /** @param {KeyboardEvent} event */
  const onArrow = (event) => {
    const current = /** @type {SVGElement} */ (event.currentTarget);
    const next = nearest(places, current.dataset.id ?? "", event.key);
    if (!next) return;
    event.preventDefault();
    const nodes = /** @type {NodeListOf<SVGElement>} */ (current.ownerSVGElement?.querySelectorAll(".lineage-node"));
    [...nodes].find((node) => node.dataset.id === next)?.focus();
  };
  const used = STATES.filter((state) => lineage.edges.some((edge) => edge.state === state));
  return html`
    <figure class="peer-map lineage">
      <div class="scroll"><svg width=${wide} height=${tall} role="group"
        viewBox=${`${-MARGIN} ${-MARGIN} ${wide} ${tall}`}
        aria-label=${t("lineage.label", { n: lineage.nodes.length })}>
        ${lineage.edges.map((edge, i) => {
          const [from, to] = [places.get(edge.parent), places.get(edge.child)];
          return from && to && html`<${Edge} key=${i} edge=${edge} from=${from} to=${to} upright=${narrow}
            end=${narrow ? width : height} />`;
        })}
        ${[...places.values()].map((place) => html`
          <${Node} key=${place.node.id} place=${place} of=${lineage.of} narrow=${narrow} onArrow=${onArrow} />`)}
      </svg></div>
      <figcaption><ul class="legend">${used.map((state) => html`
        <li key=${state}><svg viewBox="0 0 48 12" width="48" height="12" aria-hidden="true">
          <g class=${`lineage-edge ${state}`}><path d="M0 6H48" /></g></svg>
          ${SIGNS[state]} ${t(`lineage.${state}_text`)}</li>`)}</ul></figcaption>
    </figure>`;
}

/** @param {{lineage: Lineage}} props */
function EdgeTable({ lineage }) {
  const byId = new Map(lineage.nodes.map((node) => [node.id, node]));
  /** @param {string} id */
  const name = (id) => {
    const node = byId.get(id);
    if (!node?.known) return html`<span class="break">${node?.name ?? id}</span>`;
    return html`<a class="break" href=${href("inspect", "version", id, "lineage")}>${node.name}</a>`;
  };
  return html`
    <section><h2>${t("lineage.table")}</h2>
      <div class="scroll" tabindex="0" role="region" aria-label=${t("lineage.table")}><table class="grid people">
        <thead><tr>${["child", "relation", "parent", "state", "why"].map((key) => html`
          <th scope="col" key=${key} class=${WIDE_ONLY.includes(key) ? "wide-only" : ""}>${t(`lineage.${key}`)}</th>`)}
        </tr></thead>
        <tbody>${lineage.edges.map((edge) => html`
          <tr><th scope="row" class="break">${name(edge.child)}</th>
            <td class="wide-only">${t(`version.kind_${edge.relation}`)}</td>
            <td class="break"><span class="narrow-only fine">${t(`version.kind_${edge.relation}`)}</span>
              ${name(edge.parent)}</td>
            <td><span class=${`chip ${LOOKS[edge.state]}`}><span aria-hidden="true">${SIGNS[edge.state]}</span>
              ${" "}${t(`lineage.${edge.state}`)}</span>
              ${edge.state !== "checked" && html`<span class="narrow-only fine">${edge.message}</span>`}</td>
            <td class="break wide-only">${edge.message}</td></tr>`)}</tbody>
      </table></div></section>`;
}

/**
 * What is nearest to the version in question, where there is more than can be drawn.
 * @param {Lineage} lineage @returns {Lineage}
 */
function around(lineage) {
  const near = new Set([lineage.of]);
  for (let grown = true; grown && near.size < MAX_NODES;) {
    grown = false;
    for (const { child, parent } of lineage.edges) {
      if (near.size < MAX_NODES && near.has(child) !== near.has(parent)) {
        near.add(child).add(parent);
        grown = true;
      }
    }
  }
  return {
    of: lineage.of, nodes: lineage.nodes.filter((node) => near.has(node.id)),
    edges: lineage.edges.filter((edge) => near.has(edge.child) && near.has(edge.parent)),
  };
}

/** @param {{id: string}} props */
export function LineageTab({ id }) {
  const { value, error, again } = useFetched(`${id} ${turns.value}`, async () =>
    /** @type {Lineage} */ (await call("GET", `/versions/${part(id)}/lineage`)));
  if (error) {
    return html`<${Fault} error=${error}>
      <button type="button" class="quiet" onClick=${again}>${t("chat.retry")}</button><//>`;
  }
  if (!value || value.of !== id) return html`<p class="fine">${t("lineage.asking")}</p>`;
  const shown = around(value);
  return html`
    ${value.edges.length === 0 && html`<p class="lead">${t("lineage.alone")}</p>`}
    <${Graph} lineage=${shown} />
    ${shown.nodes.length < value.nodes.length && html`
      <p class="fine">${t("lineage.more", { n: value.nodes.length - shown.nodes.length })}</p>`}
    ${value.edges.length > 0 && html`<${EdgeTable} lineage=${value} />`}`;
}
