/** What this node fetches and gives away: every file, its pieces, and who sends what to whom. */

import { html, useEffect, useId, useState } from "../vendor/preact.js";
import { announce } from "./announce.js";
import { call } from "./api.js";
import { fetchSwarm, followSwarm, isFresh, swarm, versionOf } from "./commons_state.js";
import { PullControls, limitOf, limitText } from "./downloads.js";
import { bytes, decimal, percent } from "./format.js";
import { PieceMap } from "./piece_map.js";
import { href } from "./router.js";
import { pulls } from "./state.js";
import { t } from "./strings.js";
import { Fault, useAction, useFetched } from "./ui.js";

/** @import { Source, Swarm, TorrentRow } from "./types.js" */

const POLL_MS = 2000;
const MAX_SOURCES = 50;
const LOOKS = /** @type {const} */ ({
  checking: ["", "◌"], fetching: ["ok", "↓"], seeding: ["ok", "↑"], paused: ["warn", "‖"], failed: ["bad", "✕"],
});
/** Causes for which there is something that one can do. */
const KNOWN_CODES = ["disk_full", "not_found", "verification_failed", "no_peers", "peers_unreachable"];

/** @param {number} n */
const rate = (n) => (n > 0 ? t("pull.rate", { rate: bytes(n) }) : "–");

/** "1.4", given over taken. @param {number} given @param {number} taken */
const ratio = (given, taken) => (taken > 0 ? decimal(given / taken) : given > 0 ? "∞" : "–");

/** @param {Source} source */
const sourceName = (source) => source.peer?.name
  ?? (source.kind === "web" ? source.address : t("swarm.stranger"));

/** @param {{sources: Source[], name: string}} props */
function Sources({ sources, name }) {
  const shown = sources.slice(0, MAX_SOURCES);
  return html`
    <div class="scroll" tabindex="0" role="region" aria-label=${t("swarm.sources", { name })}>
      <table class="grid people">
        <thead><tr><th scope="col">${t("swarm.who")}</th>
          <th scope="col" class="to-right">${t("swarm.sends")}</th>
          <th scope="col" class="to-right">${t("swarm.takes")}</th>
          <th scope="col" class="to-right wide-only">${t("swarm.sent")}</th>
          <th scope="col" class="to-right wide-only">${t("swarm.taken")}</th>
          <th scope="col" class="to-right wide-only">${t("swarm.has")}</th></tr></thead>
        <tbody>${shown.map((source) => html`
          <tr key=${source.address}>
            <th scope="row" class="break">${source.peer
              ? html`<a href=${href("network", "peer", source.peer.id)} title=${source.peer.words}>
                  ${source.peer.name}</a>` : sourceName(source)}
              <span class="fine by-way">${t(`swarm.way_${source.kind}`)}</span></th>
            <td class="num to-right">${rate(source.down_bytes_per_s)}</td>
            <td class="num to-right">${rate(source.up_bytes_per_s)}</td>
            <td class="num to-right wide-only">${bytes(source.downloaded)}</td>
            <td class="num to-right wide-only">${bytes(source.uploaded)}</td>
            <td class="num to-right wide-only">${percent(source.have)}</td></tr>`)}</tbody>
      </table></div>
    ${sources.length > shown.length && html`
      <p class="fine">${t("swarm.more", { n: sources.length - shown.length })}</p>`}`;
}

/** @param {{row: TorrentRow}} props */
function Torrent({ row }) {
  const [look, sign] = LOOKS[row.state];
  const pull = pulls.value.find((other) => other.id === row.pull);
  const version = row.versions.map(versionOf).find(Boolean);
  const facts = [
    row.wanted < row.size
      ? t("swarm.part_of", { done: bytes(row.done), wanted: bytes(row.wanted), size: bytes(row.size) })
      : t("pull.of", { done: bytes(row.done), total: bytes(row.size) }),
    row.down_bytes_per_s > 0 ? t("swarm.comes", { rate: bytes(row.down_bytes_per_s) }) : "",
    row.up_bytes_per_s > 0 ? t("swarm.goes", { rate: bytes(row.up_bytes_per_s) }) : "",
    t("swarm.ratio", { given: bytes(row.uploaded), ratio: ratio(row.uploaded, row.downloaded) }),
    row.wasted > 0 ? t("swarm.wasted", { size: bytes(row.wasted) }) : "",
  ];
  return html`
    <li class="row">
      <div class="row-head">
        <div class="row-name">${version
          ? html`<a class="strong" href=${href("inspect", "version", version.id)}>${row.name}</a>`
          : html`<strong class="break">${row.name}</strong>`}${" "}
          <span class=${`chip ${look}`}><span aria-hidden="true">${sign}</span> ${t(`swarm.state_${row.state}`)}</span>
          <p class="fine num">${facts.filter(Boolean).join(" · ")}</p></div>
        ${pull && html`<${PullControls} pull=${pull} />`}
      </div>
      <${PieceMap} pieces=${row.pieces} pieceBytes=${row.piece_bytes} name=${row.name} />
      ${row.error && html`<${Fault} error=${{
        message: row.error, code: row.code, hint: KNOWN_CODES.includes(row.code) ? t(`swarm.hint_${row.code}`) : "",
      }} />`}
      ${row.sources.length ? html`<${Sources} sources=${row.sources} name=${row.name} />`
        : row.state === "fetching" && html`<p class="fine">${t("swarm.nobody_sends")}</p>`}
    </li>`;
}

/** @param {{now: Swarm}} props */
function Switches({ now }) {
  const id = useId();
  const { busy, error, run } = useAction();
  const [limits, setLimits] = useState({
    upload_limit: limitText(now.upload_limit), download_limit: limitText(now.download_limit),
  });
  /** @param {object} change @param {string} words */
  const change = (change, words) => run(async () => {
    swarm.value = await call("PATCH", "/swarm", change);
    announce(words);
  });
  /** @param {Event} event */
  const submit = (event) => {
    event.preventDefault();
    change({ upload_limit: limitOf(limits.upload_limit), download_limit: limitOf(limits.download_limit) },
      t("swarm.limits_set"));
  };
  /** @param {keyof typeof limits} key */
  const limit = (key) => html`
    <div class="field"><label for=${`${id}-${key}`}>${t(`swarm.${key}`)}</label>
      <input id=${`${id}-${key}`} type="number" min="0" value=${limits[key]} placeholder=${t("downloads.no_limit")}
        onInput=${(/** @type {any} */ event) => setLimits({ ...limits, [key]: event.target.value })} /></div>`;
  return html`
    <section class="switches" aria-label=${t("swarm.giving")}>
      <label class="option"><input type="checkbox" class="switch" role="switch" checked=${now.seeding} disabled=${busy}
        onChange=${(/** @type {any} */ event) => change({ seeding: event.target.checked },
          t(event.target.checked ? "swarm.seeding_on" : "swarm.seeding_off"))} />
        <span><strong>${t("swarm.seeding")}</strong><small>${t("swarm.seeding_hint")}</small></span></label>
      <form onSubmit=${submit}>${limit("upload_limit")}${limit("download_limit")}
        <button type="submit" class="quiet" disabled=${busy}>${t("downloads.set")}</button></form>
      ${error && html`<${Fault} error=${error} />`}
    </section>`;
}

/** @param {TorrentRow[]} rows @param {"up_bytes_per_s" | "down_bytes_per_s"} key */
const nowWords = (rows, key) => t("swarm.now", { rate: rate(rows.reduce((sum, row) => sum + row[key], 0)) });

/** @param {{now: Swarm}} props */
const Totals = ({ now }) => html`
  <dl class="figures">
    <div><dt>${t("swarm.given")}</dt><dd>${bytes(now.uploaded)}
      <small>${nowWords(now.torrents, "up_bytes_per_s")}</small></dd></div>
    <div><dt>${t("swarm.received")}</dt><dd>${bytes(now.downloaded)}
      <small>${nowWords(now.torrents, "down_bytes_per_s")}</small></dd></div>
    <div><dt>${t("swarm.balance")}</dt><dd>${ratio(now.uploaded, now.downloaded)}
      <small>${t("swarm.balance_hint")}</small></dd></div>
    <div><dt>${t("swarm.kept")}</dt><dd>${bytes(now.kept_bytes)}
      <small>${t("swarm.keep", { size: bytes(now.keep_bytes) })}</small></dd></div>
  </dl>`;

export function SwarmView() {
  const { error, again } = useFetched("swarm", fetchSwarm);
  useEffect(() => {
    const leave = followSwarm();
    const timer = setInterval(() => {
      // Events tell of it while something moves; asking is for what moves without them, and only while one looks.
      if (!document.hidden && !isFresh(POLL_MS)) fetchSwarm().catch(() => {});
    }, POLL_MS);
    return () => {
      clearInterval(timer);
      leave();
    };
  }, []);
  const now = swarm.value;
  if (error && !now) {
    return html`<${Fault} error=${error}>
      <button type="button" class="quiet" onClick=${again}>${t("chat.retry")}</button><//>`;
  }
  if (!now) return html`<p class="fine">${t("swarm.asking")}</p>`;
  return html`
    <${Totals} now=${now} />
    <${Switches} now=${now} />
    <section aria-label=${t("swarm.files")}><h2>${t("swarm.files")}</h2>
      ${now.torrents.length ? html`<ul class="rows">${now.torrents.map((row) => html`
        <${Torrent} key=${row.root} row=${row} />`)}</ul>` : html`<p class="empty">${t("swarm.none")}</p>`}</section>
    <p class="fine">${now.port ? t("swarm.port", { port: String(now.port) }) : t("swarm.asleep")}</p>`;
}
