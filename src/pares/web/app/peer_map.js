/** Peers around this node. Who sits where follows from their keys, so that the map looks the same every time. */

import { html } from "../vendor/preact.js";
import { reachOf, reachWords, rttOf } from "./peer_words.js";
import { href } from "./router.js";
import { t } from "./strings.js";

/** @import { Peer } from "./types.js" */

/** @typedef {{width: number, height: number, letters: number, rings: {seats: number, x: number, y: number}[]}} Plan */
/** @typedef {{peer: Peer, x: number, y: number}} Place */

/** Enough for one or two, who sit beside this node. */
const FLAT = 180;
const LEGEND = /** @type {const} */ (["direct", "lan", "relayed", "offline"]);

/** Rings from the inside; a lone ring is the outer one. @type {Plan} */
const DESK = {
  width: 780, height: 430, letters: 16, rings: [{ seats: 6, x: 175, y: 88 }, { seats: 12, x: 300, y: 165 }],
};
/** @type {Plan} */
const PHONE = { width: 340, height: 400, letters: 11, rings: [{ seats: 8, x: 118, y: 150 }] };

/** @param {Peer[]} peers at most as many as there are seats @param {Plan} plan @returns {Place[]} */
function seat(peers, { width, height, rings }) {
  const rows = peers.toSorted((a, b) => (a.id < b.id ? -1 : 1));
  const used = rows.length <= (rings.at(-1)?.seats ?? 0) ? rings.slice(-1) : rings;
  /** @type {Place[]} */
  const places = [];
  used.forEach(({ seats, x, y }, ring) => {
    const row = rows.splice(0, ring === used.length - 1 ? rows.length : seats);
    row.forEach((peer, i) => {
      const turn = 2 * Math.PI * ((i + (ring % 2 ? 0.5 : 0)) / row.length) - (row.length > 2 ? Math.PI / 2 : 0);
      const round = (/** @type {number} */ value) => Math.round(value * 10) / 10;
      places.push({ peer, x: round(width / 2 + x * Math.cos(turn)), y: round(height / 2 - 14 + y * Math.sin(turn)) });
    });
  });
  return places;
}

/** @param {string} name @param {number} letters */
const short = (name, letters) => (name.length > letters ? `${name.slice(0, letters - 1)}…` : name);

/** A shape of its own for every way of being reached. @param {{reach: string}} props */
const Mark = ({ reach }) => (reach === "lan"
  ? html`<path class="sign lan" d="M0-10 10 0 0 10-10 0z" />`
  : reach === "blocked" ? html`<path class="sign blocked" d="M-8-8H8V8H-8zM-4-4 4 4M4-4-4 4" />`
    : html`<circle class=${`sign ${reach}`} r="9" />
        ${reach === "relayed" && html`<path class="sign half" d="M0-9A9 9 0 0 1 0 9z" />`}`);

/** @param {{place: Place, letters: number, words: string}} props */
function Seat({ place: { peer, x, y }, letters, words }) {
  const reach = reachOf(peer);
  return html`
    <a class="seat" href=${href("network", "peer", peer.id)} aria-label=${`${peer.name}, ${reachWords(peer)}`}
      transform=${`translate(${x} ${y})`}>
      <title>${peer.name}: ${peer.words}</title>
      <circle class="halo" r="17" />
      <${Mark} reach=${reach} />
      <text class="seat-name" y="28">${short(peer.name, letters)}</text>
      <text class="seat-words" y="44">${words}</text>
    </a>`;
}

/** A line and its word. @param {{reach: string}} props */
const Sample = ({ reach }) => html`
  <li><svg viewBox="-14 -12 74 24" width="56" height="18" aria-hidden="true">
    <line class=${`edge ${reach}`} x1="12" y1="0" x2="60" y2="0" /><${Mark} reach=${reach} /></svg>
    ${t(`peers.${reach}`)}</li>`;

/** @param {{peers: Peer[], narrow: boolean}} props */
export function PeerMap({ peers, narrow }) {
  const full = narrow ? PHONE : DESK;
  const plan = peers.length > 2 ? full : { ...full, height: FLAT };
  const seats = plan.rings.reduce((sum, ring) => sum + ring.seats, 0);
  const shown = peers.toSorted((a, b) => Number(b.online) - Number(a.online)).slice(0, seats);
  const places = seat(shown, plan);
  const [x, y] = [plan.width / 2, plan.height / 2 - 14];
  return html`
    <figure class="peer-map">
      <svg viewBox=${`0 0 ${plan.width} ${plan.height}`} role="group" aria-label=${t("peers.map_label")}>
        ${places.map((place) => html`
          <line key=${`to ${place.peer.id}`} class=${`edge ${reachOf(place.peer)}`} x1=${x} y1=${y} x2=${place.x}
            y2=${place.y} />`)}
        <g transform=${`translate(${x} ${y})`}>
          <circle class="center" r="15" /><text class="seat-name" y="34">${t("peers.you")}</text></g>
        ${places.map((place) => html`
          <${Seat} key=${place.peer.id} place=${place} letters=${plan.letters}
            words=${(narrow && rttOf(place.peer)) || reachWords(place.peer)} />`)}
      </svg>
      <figcaption><ul class="legend">${LEGEND.map((reach) => html`<${Sample} reach=${reach} />`)}</ul>
        ${peers.length > shown.length && html`
          <p class="fine">${t("peers.more", { n: peers.length - shown.length })}</p>`}
      </figcaption>
    </figure>`;
}
