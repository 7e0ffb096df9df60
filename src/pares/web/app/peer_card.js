/** Everything about one peer: name, words, how it is reached, what it offers; name or block it. */

import { html, useId, useState } from "../vendor/preact.js";
import { announce } from "./announce.js";
import { call, part } from "./api.js";
import { MAX_NAME } from "./circles.js";
import { duration } from "./format.js";
import { Icon } from "./icons.js";
import { fetchPeers, peerOf, peers } from "./network_state.js";
import { ReachChip, rttOf, sinceWords } from "./peer_words.js";
import { circleNames } from "./peers.js";
import { t } from "./strings.js";
import { CopyButton, Dialog, Fault, inlineCode, useAction } from "./ui.js";

/** @import { Peer } from "./types.js" */

/** From here on something may go wrong because of it. */
const CLOCK_OFF_S = 30;

/** @param {{seconds: number}} props how far their clock is ahead of ours */
const Clock = ({ seconds }) => html`
  <dt>${t("peers.clock")}</dt>
  <dd><span class="chip warn"><${Icon} name="warning" />
      ${t(seconds > 0 ? "peers.ahead" : "peers.behind", { time: duration(Math.abs(seconds)) })}</span>
    <small>${t("peers.clock_hint")}</small></dd>`;

/** @param {{peer: Peer}} props */
const Facts = ({ peer }) => html`
  <dl class="facts">
    ${!peer.online && peer.reason && html`<dt>${t("peers.reason")}</dt><dd>${inlineCode(peer.reason)}</dd>`}
    ${rttOf(peer) && html`<dt>${t("peers.rtt")}</dt><dd class="num">${rttOf(peer)}</dd>`}
    <dt>${t("peers.offers")}</dt><dd class="break">${peer.offers.join(", ") || t("peers.nothing")}</dd>
    ${circleNames(peer) && html`<dt>${t("peers.circles")}</dt><dd class="break">${circleNames(peer)}</dd>`}
    ${peer.version && html`<dt>${t("peers.version")}</dt><dd class="break">Pares ${peer.version}</dd>`}
    ${peer.clock_offset_s !== null && Math.abs(peer.clock_offset_s) >= CLOCK_OFF_S && html`
      <${Clock} seconds=${peer.clock_offset_s} />`}
    <dt>${t("peers.key")}</dt><dd><code>${peer.id.slice(0, 16)}…</code>
      <${CopyButton} text=${peer.id} label=${t("peers.copy_key", { name: peer.name })} /></dd>
  </dl>`;

/** @param {{peer: Peer}} props */
function Actions({ peer }) {
  const id = useId();
  const { busy, error, run } = useAction();
  const [name, setName] = useState(peer.name);
  /** @param {{name?: string, blocked?: boolean}} change @param {(now: Peer) => string} words */
  const change = (change, words) => run(async () => {
    const now = await call("PATCH", `/peers/${part(peer.id)}`, change);
    peers.value = (peers.value ?? []).map((other) => (other.id === now.id ? now : other));
    setName(now.name);
    announce(words(now));
    await fetchPeers();
  });
  /** @param {Event} event */
  const submit = (event) => {
    event.preventDefault();
    change({ name: name.trim() }, (now) => t("peers.saved", { name: now.name }));
  };
  const block = () => change({ blocked: !peer.blocked }, (now) =>
    t(now.blocked ? "peers.was_blocked" : "peers.was_unblocked", { name: now.name }));
  return html`
    <form onSubmit=${submit}><div class="field"><label for=${id}>${t("peers.your_name")}</label>
      <div class="line">
        <input id=${id} type="text" maxlength=${MAX_NAME} autocomplete="off" value=${name}
          aria-describedby=${`${id}-hint`} onInput=${(/** @type {any} */ event) => setName(event.target.value)} />
        <button type="submit" class="quiet" disabled=${busy || name.trim() === peer.name}>${t("peers.save")}</button>
      </div>
      <p id=${`${id}-hint`} class="fine">${t("peers.name_hint")}</p></div></form>
    ${error && html`<${Fault} error=${error} />`}
    <div class="line spread"><p class="fine">${t("peers.block_hint")}</p>
      <button type="button" class="quiet" disabled=${busy} onClick=${block}>
        ${t(peer.blocked ? "peers.unblock" : "peers.block")}</button></div>`;
}

/** @param {{id: string, onClose: () => void}} props */
export function PeerCard({ id, onClose }) {
  const peer = peerOf(id);
  if (peers.value === null) return null;
  return html`
    <${Dialog} title=${peer?.name ?? t("peers.name")} onClose=${onClose}>
      ${peer ? html`
        <p class="fingerprint">${peer.words}</p>
        <p role="status" class="line"><${ReachChip} peer=${peer} /> <span class="fine">${sinceWords(peer)}</span></p>
        <${Facts} peer=${peer} />
        <${Actions} peer=${peer} />` : html`<p>${t("peers.unknown")}</p>`}
    <//>`;
}
