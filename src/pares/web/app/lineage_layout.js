/** Where the nodes of a lineage lie: roots first, every version after all that it was made from. */

/** @import { Lineage, LineageNode } from "./types.js" */
/** @typedef {{node: LineageNode, x: number, y: number}} Place */
/** @typedef {{across: number, down: number, width: number, height: number, upright: boolean}} Grid */

/** Versions of one rank lie side by side; edges that close a circle count for nothing. @param {Lineage} lineage */
function ranksOf({ nodes, edges }) {
  const ranks = new Map(nodes.map((node) => [node.id, 0]));
  const steps = edges.filter((edge) => edge.state !== "cycle" && edge.child !== edge.parent);
  // As many rounds as there are nodes at most, whatever a hostile lineage says.
  for (let round = 0, moved = true; moved && round < nodes.length; round++) {
    moved = false;
    for (const { child, parent } of steps) {
      const least = Math.min((ranks.get(parent) ?? 0) + 1, nodes.length);
      if ((ranks.get(child) ?? 0) < least) {
        ranks.set(child, least);
        moved = true;
      }
    }
  }
  return ranks;
}

/** @param {number[]} numbers */
const mean = (numbers) => (numbers.length ? numbers.reduce((sum, n) => sum + n, 0) / numbers.length : 0);

/**
 * @param {Lineage} lineage @param {Grid} grid
 * @returns {{places: Map<string, Place>, width: number, height: number}}
 */
export function layout(lineage, { across, down, width, height, upright }) {
  const ranks = ranksOf(lineage);
  const levels = [...Map.groupBy(lineage.nodes, (node) => ranks.get(node.id) ?? 0)].sort(([a], [b]) => a - b);
  /** Its place within its level. @type {Map<string, number>} */
  const order = new Map();
  const widest = Math.max(1, ...levels.map(([, level]) => level.length));
  const rows = levels.map(([, level]) => {
    const above = (/** @type {LineageNode} */ node) => mean(lineage.edges.filter((edge) => edge.child === node.id)
      .map((edge) => order.get(edge.parent) ?? 0));
    const sorted = level.toSorted((a, b) => above(a) - above(b) || (a.id < b.id ? -1 : 1));
    const start = (widest - sorted.length) / 2;
    sorted.forEach((node, i) => order.set(node.id, start + i));
    return sorted;
  });
  /** @type {Map<string, Place>} */
  const places = new Map();
  rows.forEach((level, rank) => level.forEach((node) => {
    const along = rank * (upright ? down : across) + (upright ? height : width) / 2;
    const beside = (order.get(node.id) ?? 0) * (upright ? across : down) + (upright ? width : height) / 2;
    places.set(node.id, { node, x: upright ? beside : along, y: upright ? along : beside });
  }));
  const [ranksLong, wide] = [levels.length, widest];
  return {
    places,
    width: (upright ? wide : ranksLong) * across - (across - width),
    height: (upright ? ranksLong : wide) * down - (down - height),
  };
}

/**
 * The nearest node from one in a direction; null where there is none.
 * @param {Map<string, Place>} places @param {string} from @param {string} key of the keyboard
 */
export function nearest(places, from, key) {
  const [dx, dy] = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[key] ?? [0, 0];
  const here = places.get(from);
  if (!here || (!dx && !dy)) return null;
  let best = null;
  let least = Infinity;
  for (const [id, place] of places) {
    const [x, y] = [place.x - here.x, place.y - here.y];
    const ahead = x * dx + y * dy;
    const aside = Math.abs(x * dy) + Math.abs(y * dx);
    const far = ahead + 2 * aside;
    if (ahead > 0 && far < least) [best, least] = [id, far];
  }
  return best;
}
