/** How a peer is reached, in a word, a sign and a colour. */

import { html } from "../vendor/preact.js";
import { ago, count, decimal, duration } from "./format.js";
import { t } from "./strings.js";

/** @import { Peer } from "./types.js" */

/** @typedef {"direct" | "lan" | "relayed" | "offline" | "blocked"} Reach */

/** @type {Record<Reach, [string, string]>} */
const LOOKS = {
  direct: ["ok", "●"], lan: ["ok", "◆"], relayed: ["warn", "◐"], offline: ["", "○"], blocked: ["bad", "✕"],
};

/** @param {Peer} peer @returns {Reach} */
export const reachOf = (peer) => (peer.blocked ? "blocked" : peer.online ? peer.path || "direct" : "offline");

/** @param {Peer} peer */
export const rttOf = (peer) => (peer.online && peer.rtt_ms !== null
  ? t("peers.ms", { n: peer.rtt_ms < 10 ? decimal(peer.rtt_ms) : count(Math.round(peer.rtt_ms)) }) : "");

/** "direct · 12 ms" @param {Peer} peer */
export const reachWords = (peer) => [t(`peers.${reachOf(peer)}`), rttOf(peer)].filter(Boolean).join(" · ");

/** "direct for 12 min", "last heard yesterday" @param {Peer} peer */
export const sinceWords = (peer) => (peer.since === null ? t("peers.never") : peer.online
  ? t("peers.online_since", { time: duration(Math.max(0, (Date.now() - Date.parse(peer.since)) / 1000)) })
  : t("peers.heard", { when: ago(peer.since) }));

/** @param {{peer: Peer}} props */
export function ReachChip({ peer }) {
  const reach = reachOf(peer);
  return html`<span class=${`chip ${LOOKS[reach][0]}`}>
    <span aria-hidden="true">${LOOKS[reach][1]}</span> ${t(`peers.${reach}`)}</span>`;
}
