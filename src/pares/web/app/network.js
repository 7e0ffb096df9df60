/** The network: whether this node can be reached, its circles, its peers, and the ways they are found. */

import { html, useEffect, useState } from "../vendor/preact.js";
import { CirclePage } from "./circle.js";
import { CircleCards, NewCircle } from "./circles.js";
import { Icon } from "./icons.js";
import { JoinDialog } from "./join.js";
import { circles, fetchAll, network } from "./network_state.js";
import { PeerCard } from "./peer_card.js";
import { Peers } from "./peers.js";
import { go, href } from "./router.js";
import { t } from "./strings.js";
import { CopyButton, Fault, inlineCode, useFetched } from "./ui.js";

/** @import { Network, WayState } from "./types.js" */

const REACH = /** @type {const} */ ({
  yes: ["ok", "check"], "relay only": ["warn", "warning"], "not from outside": ["warn", "warning"],
  unknown: ["", "info"], offline: ["", "pause"], alone: ["", "info"],
});
const WAYS = /** @type {const} */ ({
  works: ["ok", "check"], untried: ["", "more"], off: ["", "pause"], fails: ["bad", "cross"],
});

/** @param {{now: Network}} props */
const Reach = ({ now }) => html`
  <section class=${`reach ${REACH[now.reachable][0]}`} aria-label=${t("network.reach")}>
    <span class="check-mark"><${Icon} name=${REACH[now.reachable][1]} /></span>
    <div role="status"><strong>${t(`network.reach_${now.reachable}`)}</strong>
      <p>${inlineCode(now.message)}</p>
      ${now.hint && html`<p class="hint">${inlineCode(now.hint)}</p>`}</div>
  </section>`;

/** @param {{now: Network}} props */
const You = ({ now }) => html`
  <section class="you" aria-label=${t("network.you")}>
    <p class="fine">${t("network.you")}</p>
    <p class="strong break">${now.name}</p>
    <p class="line"><span class="fingerprint">${now.words}</span>
      <${CopyButton} text=${now.words} label=${t("network.copy_words")} /></p>
    <p class="fine">${t("network.words_hint")}</p>
    <div class="line"><code>${now.id.slice(0, 16)}…</code>
      <${CopyButton} text=${now.id} label=${t("network.copy_key")} words /></div>
    <dl class="facts">
      <dt>${t("network.router")}</dt><dd>${t(`network.nat_${now.nat}`)}</dd>
      ${(now.relaying || now.relay) && html`<dt>${t("network.relay")}</dt>
        <dd>${t(now.relaying ? "network.relaying" : "network.relay_used")}</dd>`}
    </dl>
  </section>`;

/** @param {{ways: WayState[]}} props */
const Ways = ({ ways }) => html`
  <section aria-label=${t("network.ways")}><h2>${t("network.ways")}</h2>
    <ul class="checks">${ways.map(({ way, state, message }) => html`
      <li key=${way} class=${WAYS[state][0]}>
        <span class="check-mark"><${Icon} name=${WAYS[state][1]} /></span>
        <div><strong>${t(`network.way_${way}`)}</strong> <span class="fine">${t(`network.${state}`)}</span>
          <p>${inlineCode(message)}</p></div></li>`)}</ul>
  </section>`;

/** @param {{onStart: () => void}} props */
const Empty = ({ onStart }) => html`
  <section class="begin" aria-label=${t("network.circles")}>
    <h2>${t("network.empty")}</h2>
    <p class="lead">${t("network.empty_text")}</p>
    <div class="ways-in">
      <button type="button" onClick=${onStart}>
        <${Icon} name="add" /><span>${t("circle.start")}<small>${t("circle.start_text")}</small></span></button>
      <a class="button quiet" href=${href("network", "join")}>
        <${Icon} name="network" /><span>${t("circle.join")}<small>${t("circle.join_text")}</small></span></a>
    </div>
  </section>`;

/** @param {{error: import("./api.js").ApiError | null, again: () => void}} props */
function Overview({ error, again }) {
  const [starting, setStarting] = useState(false);
  const now = network.value;
  const mine = circles.value;
  return html`
    <div class="page">
      <header class="page-head"><h1>${t("network.title")}</h1>
        ${mine !== null && mine.length > 0 && html`<div class="buttons">
          <a class="button quiet" href=${href("network", "join")}>${t("circle.join")}</a>
          <button type="button" class="gentle" onClick=${() => setStarting(true)}>${t("circle.start")}</button></div>`}
      </header>
      ${error && html`<${Fault} error=${error}>
        <button type="button" class="quiet" onClick=${again}>${t("chat.retry")}</button><//>`}
      ${!now && !error && html`<p class="fine" role="status">${t("network.asking")}</p>`}
      ${now && html`<${Reach} now=${now} />`}
      ${mine?.length === 0 && html`<${Empty} onStart=${() => setStarting(true)} />`}
      ${mine !== null && mine.length > 0 && html`<${CircleCards} rows=${mine} /><${Peers} />`}
      ${now && html`<${You} now=${now} /><${Ways} ways=${now.ways} />`}
      ${starting && html`<${NewCircle} onClose=${() => setStarting(false)} />`}
    </div>`;
}

/** @param {{tab: string, rest: string[]}} props */
export default function NetworkScreen({ tab, rest }) {
  const { error, again } = useFetched("network", fetchAll);
  const id = rest[1] ?? "";
  const home = () => go("network");
  useEffect(() => {
    if ((tab === "peer" || tab === "circle") && !id) home();
  }, [tab, id]);
  if (tab === "circle" && id) return html`<${CirclePage} key=${id} id=${id} />`;
  return html`
    <${Overview} error=${error} again=${again} />
    ${tab === "peer" && id && html`<${PeerCard} key=${id} id=${id} onClose=${home} />`}
    ${tab === "join" && html`<${JoinDialog} onClose=${home} />`}`;
}
