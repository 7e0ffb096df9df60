/** Which pieces of a file are here: a drawing to scale, and the same in words. */

import { html } from "../vendor/preact.js";
import { bytes } from "./format.js";
import { t } from "./strings.js";

/** @typedef {"here" | "part" | "missing" | "unwanted"} Look */

const HEIGHT = 24;
/** Columns that a drawing has at most; in a larger file one column stands for several pieces. */
const COLUMNS = 480;
/** Told apart by height as much as by colour. @type {[Look, number][]} */
const LOOKS = [["here", HEIGHT], ["part", HEIGHT / 2], ["missing", 4], ["unwanted", 1]];
const SIGNS = /** @type {const} */ ({ "+": 0, "-": 1, "~": 2 });

/** "12+ 3- 8~" as [pieces, sign]. @param {string} text @returns {[number, keyof typeof SIGNS][]} */
const runsOf = (text) => [...text.matchAll(/(\d+)([-+~])/g)]
  .map(([, n, sign]) => [Number(n), /** @type {keyof typeof SIGNS} */ (sign)]);

/** How many pieces are here, missing and not wanted. @param {string} text */
export function countPieces(text) {
  const sums = [0, 0, 0];
  for (const [n, sign] of runsOf(text)) sums[SIGNS[sign]] += n;
  const [here = 0, missing = 0, unwanted = 0] = sums;
  return { here, missing, unwanted, all: here + missing + unwanted };
}

/**
 * A path per look: each column says what most of its pieces are.
 * @param {string} text @param {number} pieces @returns {Map<Look, string>}
 */
function drawn(text, pieces) {
  const columns = Math.min(pieces, COLUMNS);
  const sums = Array.from({ length: columns }, () => [0, 0, 0]);
  let at = 0;
  for (const [n, sign] of runsOf(text)) {
    const end = at + n;
    while (at < end) {
      const column = Math.min(columns - 1, Math.floor((at * columns) / pieces));
      const next = Math.min(end, Math.ceil(((column + 1) * pieces) / columns));
      const sum = sums[column];
      if (sum) sum[SIGNS[sign]] = (sum[SIGNS[sign]] ?? 0) + Math.max(1, next - at);
      at = Math.max(at + 1, next);
    }
  }
  /** @type {Map<Look, string>} */
  const paths = new Map();
  const heights = new Map(LOOKS);
  sums.forEach(([here = 0, missing = 0, unwanted = 0], x) => {
    const look = unwanted > here + missing ? "unwanted" : !missing && here ? "here" : here ? "part" : "missing";
    const height = heights.get(look) ?? 0;
    paths.set(look, `${paths.get(look) ?? ""}M${x} ${HEIGHT}v${-height}h1v${height}z`);
  });
  return paths;
}

/** @param {{pieces: string, pieceBytes: number, name: string}} props */
export function PieceMap({ pieces, pieceBytes, name }) {
  const { here, missing, unwanted, all } = countPieces(pieces);
  if (!all) return null;
  const paths = drawn(pieces, all);
  const words = [
    t("pieces.here", { n: here, all }), missing ? t("pieces.missing", { n: missing }) : "",
    unwanted ? t("pieces.unwanted", { n: unwanted }) : "", t("pieces.size", { size: bytes(pieceBytes) }),
  ].filter(Boolean).join(" · ");
  return html`
    <figure class="pieces">
      <svg viewBox=${`0 0 ${Math.min(all, COLUMNS)} ${HEIGHT}`} preserveAspectRatio="none" role="img"
        aria-label=${t("pieces.label", { name, words })}>
        ${[...paths].map(([look, path]) => html`<path key=${look} class=${`piece ${look}`} d=${path} />`)}</svg>
      <figcaption class="fine num">${words}</figcaption>
    </figure>`;
}
