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
const LOOKS = { checked: "ok", stated: "", missing: "warn", wrong: "bad", cycle: "warn", revoked: "bad" };
const SIGNS = { checked: "✓", stated: "·", missing: "?", wrong: "✕", cycle: "↻", revoked: "!" };
const GRID = { across: 300, down: 96, width: 184, height: 64, upright: false };
const NARROW = { across: 164, down: 136, width: 152, height: 64, upright: true };
const MAX_NODES = 60;
const MARGIN = 8;
const LETTERS = { true: 18, false: 22 };

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
  const letters = LETTERS[narrow ? "true" : "false"];
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
 * @param {{edge: LineageEdge, from: Place, to: Place, upright: boolean}} props
 */
function Edge({ edge, from, to, upright }) {
  const { width, height } = upright ? NARROW : GRID;
  const ahead = upright ? to.y > from.y : to.x > from.x;
  const step = ahead ? 1 : -1;
  const [x1, y1] = upright ? [from.x, from.y + (step * height) / 2] : [from.x + (step * width) / 2, from.y];
  const [x2, y2] = upright ? [to.x, to.y - (step * height) / 2] : [to.x - (step * width) / 2, to.y];
  const [mx, my] = [(x1 + x2) / 2, (y1 + y2) / 2];
  const curve = upright ? `${x1} ${my} ${x2} ${my}` : `${mx} ${y1} ${mx} ${y2}`;
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
      <div class="scroll"><svg width=${width + 2 * MARGIN} height=${height + 2 * MARGIN} role="group"
        viewBox=${`${-MARGIN} ${-MARGIN} ${width + 2 * MARGIN} ${height + 2 * MARGIN}`}
        aria-label=${t("lineage.label", { n: lineage.nodes.length })}>
        ${lineage.edges.map((edge, i) => {
          const [from, to] = [places.get(edge.parent), places.get(edge.child)];
          return from && to && html`<${Edge} key=${i} edge=${edge} from=${from} to=${to} upright=${narrow} />`;
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
    <section aria-label=${t("lineage.table")}><h2>${t("lineage.table")}</h2>
      <div class="scroll" tabindex="0" role="region" aria-label=${t("lineage.table")}><table class="grid people">
        <thead><tr>${["child", "relation", "parent", "state", "why"].map((key) => html`
          <th scope="col" key=${key} class=${key === "why" ? "wide-only" : ""}>${t(`lineage.${key}`)}</th>`)}
        </tr></thead>
        <tbody>${lineage.edges.map((edge) => html`
          <tr><th scope="row" class="break">${name(edge.child)}</th><td>${t(`version.kind_${edge.relation}`)}</td>
            <td class="break">${name(edge.parent)}</td>
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
