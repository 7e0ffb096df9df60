/** The shell: the rail, the word about the node, and the screen that the address names. */

import { html, useEffect, useState } from "../vendor/preact.js";
import { note, spoken, tell } from "./announce.js";
import { locked } from "./api.js";
import { Chat, findConversation } from "./chat.js";
import { current } from "./chat_state.js";
import { link, retry } from "./events.js";
import { bytes } from "./format.js";
import { Icon } from "./icons.js";
import { Login } from "./login.js";
import { go, href, route } from "./router.js";
import { models, onEvent, status } from "./state.js";
import { t } from "./strings.js";
import { Dialog, focusContent, inlineCode } from "./ui.js";
import { Welcome, isFirstRun } from "./welcome.js";

/** @import { NodeStatus } from "./types.js" */

const SCREENS = /** @type {const} */ (["chat", "models", "network", "inspect", "settings"]);
const KEYS = /** @type {const} */ (["enter", "newline", "up", "escape", "find", "new", "write", "help"]);
onEvent((kind, data) => kind === "joined" && tell(t("node.joined", { name: data.peer.name })));

/** Screens that are fetched when they are first looked at. @type {Record<string, () => Promise<{default: any}>>} */
const LATER = {
  models: () => import("./models.js"), network: () => import("./network.js"), inspect: () => import("./inspect.js"),
  settings: () => import("./settings.js"),
};

/** @param {{name: string, rest: string[]}} props */
function Later({ name, rest }) {
  const [loaded, setLoaded] = useState(/** @type {{name: string, screen: any} | null} */ (null));
  useEffect(() => {
    LATER[name]?.().then((module) => setLoaded({ name, screen: module.default }));
  }, [name]);
  return loaded?.name === name ? html`<${loaded.screen} tab=${rest[0] ?? ""} rest=${rest} />` : null;
}

/** Never ready while its peers are still being looked for. @param {NodeStatus} now */
const standing = (now) => (now.offline || now.network === "offline" ? t("node.offline")
  : now.network === "connecting" ? t("node.seeking")
    : now.network === "connected" ? t("node.connected", { n: now.peers_online }) : t("node.ready"));

function NodeWord() {
  const { state } = link.value;
  const now = status.value;
  if (state !== "up" || !now) {
    const words = t(state === "down" ? "node.gone" : "node.connecting");
    return html`<div class="node"><span class="dot off" aria-hidden="true" />${words}</div>`;
  }
  const memory = now.loaded.reduce((sum, row) => sum + row.memory_bytes, 0);
  const words = now.loaded.length ? t("node.loaded", { n: now.loaded.length, memory: bytes(memory) }) : t("node.idle");
  return html`
    <div class="node"><span class=${`dot ${now.network === "connecting" ? "off" : "on"}`} aria-hidden="true" />
      ${standing(now)}
      <small class="num">${words}</small></div>`;
}

/** @param {{n: number | undefined}} props */
const Count = ({ n }) => html`<span class="num" aria-hidden="true">${n || ""}</span>`;

/** Back to the conversation that was open. */
const lastChat = () => href("chat", ...[current.value.row.id].filter(Boolean));

/** @param {{screen: string}} props */
const Rail = ({ screen }) => html`
  <nav class="rail" aria-label=${t("rail.label")}>
    <a class="mark" href=${href("chat")} aria-label=${t("rail.home")}>pares<i>.</i></a>
    ${SCREENS.map((name) => html`
      <a class="entry" href=${name === "chat" && screen !== name ? lastChat() : href(name)}
        aria-current=${screen === name ? "page" : undefined}>
        <${Icon} name=${name} /><span>${t(`rail.${name}`)}</span>
        ${name === "models" && html`<${Count} n=${models.value?.length} />`}
        ${name === "network" && html`<${Count} n=${status.value?.peers_online} />`}
      </a>`)}
    <${NodeWord} />
  </nav>`;

function ReconnectBar() {
  const { state, retryIn } = link.value;
  if (state !== "down") return null;
  return html`
    <div class="bar" role="alert">
      <${Icon} name="warning" />
      <p>${inlineCode(t("node.bar"))}${" "}
        <span class="num" aria-hidden="true">${t("node.retrying", { n: retryIn })}</span></p>
      <button type="button" class="quiet" onClick=${retry}>${t("node.retry_now")}</button>
    </div>`;
}

const Note = () => html`<div class="note" role="status">${note.value && html`<p>${note.value}</p>`}</div>`;
const Spoken = () => html`<div class="unseen" role="status">${spoken.value}</div>`;

/** @param {{onClose: () => void}} props */
const Keys = ({ onClose }) => html`
  <${Dialog} title=${t("keys.title")} onClose=${onClose}>
    <dl class="facts keys-list">
      ${KEYS.map((key) => html`<dt><kbd>${t(`keys.${key}_key`)}</kbd></dt><dd>${t(`keys.${key}`)}</dd>`)}</dl>
  <//>`;

export function App() {
  const [name = "chat", ...rest] = route.value;
  const screen = SCREENS.find((known) => known === name) ?? "chat";
  const [help, setHelp] = useState(false);
  const title = (screen === "chat" && current.value.row.title) || t(`rail.${screen}`);
  useEffect(() => {
    document.title = t("rail.title", { title });
  }, [title]);
  useEffect(() => {
    /** @param {KeyboardEvent} event */
    const onKeyDown = (event) => {
      const typing = event.target instanceof Element && event.target.matches("input, textarea, select");
      const control = event.ctrlKey || event.metaKey;
      const key = event.key.toLowerCase();
      const act = control && key === "k" ? () => {
        if (route.value[0] !== undefined && route.value[0] !== "chat") go("chat");
        findConversation();
      } : control && event.shiftKey && key === "o" ? () => go("chat")
        : typing || control || event.altKey ? null
          : key === "?" ? () => setHelp(true)
            : key === "/" ? focusContent : null;
      if (!act || document.querySelector("dialog[open]")) return;
      event.preventDefault();
      act();
    };
    addEventListener("keydown", onKeyDown);
    return () => removeEventListener("keydown", onKeyDown);
  }, []);
  if (locked.value) return html`<${Login} />`;
  const first = screen === "chat" && isFirstRun.value;
  return html`
    <a class="skip" href="#main" onClick=${(/** @type {Event} */ event) => {
      event.preventDefault();
      document.getElementById("main")?.focus();
    }}>${t("rail.skip")}</a>
    <div class="shell">
      <${Rail} screen=${screen} />
      <div class="stage">
        <${ReconnectBar} />
        <main id="main" tabindex="-1">
          ${screen !== "chat" ? html`<${Later} name=${screen} rest=${rest} />`
            : first ? html`<${Welcome} />`
              : models.value !== null && html`<${Chat} id=${rest[0] ?? ""} />`}
        </main>
      </div>
    </div>
    <${Note} /><${Spoken} />
    ${help && html`<${Keys} onClose=${() => setHelp(false)} />`}`;
}
