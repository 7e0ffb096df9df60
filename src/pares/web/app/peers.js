/** Peers, as a map or as a table: the same people, the same words. */

import { html, signal, useEffect, useState } from "../vendor/preact.js";
import { ago } from "./format.js";
import { circles, peers } from "./network_state.js";
import { PeerMap } from "./peer_map.js";
import { ReachChip, rttOf } from "./peer_words.js";
import { href } from "./router.js";
import { t } from "./strings.js";

/** @import { Peer } from "./types.js" */

const VIEWS = /** @type {const} */ (["map", "table"]);
const KEY = "pares.peers";
const SHOWN = 100;
const NARROW = matchMedia("(max-width: 620px)");

/** What was chosen; empty: the map, and on a phone the table. */
const chosen = signal(localStorage.getItem(KEY) ?? "");

/** @param {string} view */
function choose(view) {
  chosen.value = view;
  localStorage.setItem(KEY, view);
}

export function useNarrow() {
  const [narrow, setNarrow] = useState(NARROW.matches);
  useEffect(() => {
    const look = () => setNarrow(NARROW.matches);
    NARROW.addEventListener("change", look);
    return () => NARROW.removeEventListener("change", look);
  }, []);
  return narrow;
}

/** @param {Peer} peer */
export const circleNames = (peer) =>
  (circles.value ?? []).filter((circle) => peer.circles.includes(circle.id)).map((circle) => circle.name).join(", ");

/** @param {{rows: Peer[]}} props */
function PeerTable({ rows }) {
  const [all, setAll] = useState(false);
  const sorted = rows.toSorted((a, b) => Number(b.online) - Number(a.online) || a.name.localeCompare(b.name));
  const shown = all ? sorted : sorted.slice(0, SHOWN);
  return html`
    <div class="scroll" tabindex="0" role="region" aria-label=${t("peers.table")}><table class="grid people">
      <thead><tr><th scope="col">${t("peers.name")}</th><th scope="col">${t("peers.way")}</th>
        <th scope="col" class="to-right wide-only">${t("peers.rtt")}</th>
        ${["since", "offers", "circles"].map((key) => html`
          <th scope="col" class="wide-only">${t(`peers.${key}`)}</th>`)}</tr></thead>
      <tbody>${shown.map((peer) => html`
        <tr key=${peer.id}>
          <th scope="row" class="break"><a href=${href("network", "peer", peer.id)}>${peer.name}</a>
            <span class="fingerprint">${peer.words}</span></th>
          <td><${ReachChip} peer=${peer} /> <span class="narrow-only fine num">${rttOf(peer)}</span></td>
          <td class="num to-right wide-only">${rttOf(peer) || "–"}</td>
          <td class="wide-only num">${peer.since ? ago(peer.since) : t("peers.never")}</td>
          <td class="wide-only break">${peer.offers.join(", ") || t("peers.nothing")}</td>
          <td class="wide-only break">${circleNames(peer)}</td></tr>`)}</tbody>
    </table></div>
    ${shown.length < rows.length && html`
      <button type="button" class="quiet" onClick=${() => setAll(true)}>
        ${t("peers.all", { n: rows.length })}</button>`}`;
}

export function Peers() {
  const narrow = useNarrow();
  const rows = peers.value;
  if (rows === null) return null;
  const view = VIEWS.find((name) => name === chosen.value) ?? (narrow ? "table" : "map");
  return html`
    <section aria-label=${t("peers.title")}>
      <div class="line spread"><h2>${t("peers.title")}</h2>
        ${rows.length > 0 && html`
          <fieldset class="segments"><legend class="unseen">${t("peers.view")}</legend>
            ${VIEWS.map((name) => html`<label>
              <input type="radio" name="peers-view" checked=${view === name} onChange=${() => choose(name)} />
              <span>${t(`peers.${name}`)}</span></label>`)}</fieldset>`}</div>
      <p class="fine num" role="status">${rows.length === 0 ? t("peers.none")
        : t("peers.summary", { n: rows.length, online: rows.filter((peer) => peer.online).length })}</p>
      ${rows.length > 0 && (view === "map"
        ? html`<${PeerMap} peers=${rows} narrow=${narrow} />` : html`<${PeerTable} rows=${rows} />`)}
    </section>`;
}
