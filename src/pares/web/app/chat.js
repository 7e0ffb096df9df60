/** The chat screen: conversations, the talk itself, and how it is answered. */

import { effect, html, signal, useEffect, useLayoutEffect, useRef, useState } from "../vendor/preact.js";
import {
  again, capabilities, current, isTemporary, model, open, openFault, refused, reply, send, shown, stop,
} from "./chat_state.js";
import { Composer } from "./composer.js";
import { Conversations, finding } from "./conversations.js";
import { Drawer } from "./drawer.js";
import { Icon } from "./icons.js";
import { AnswerTurn, UserTurn } from "./message.js";
import { Picker } from "./picker.js";
import { href, rename } from "./router.js";
import { models } from "./state.js";
import { t } from "./strings.js";
import { Fault } from "./ui.js";
import { Where } from "./where.js";

const NEAR_THE_END = 48;
const LIST = "pares.list";

/** Whether a query of the style sheet holds, as a signal. @param {string} query */
function media(query) {
  const list = matchMedia(query);
  const holds = signal(list.matches);
  list.addEventListener("change", () => (holds.value = list.matches));
  return holds;
}

/** The list lies over the chat instead of beside it. */
const narrow = media("(max-width: 900px)");
const listOpen = signal(!narrow.value && localStorage.getItem(LIST) !== "closed");
const drawerOpen = signal(false);
effect(() => {
  if (narrow.value) listOpen.value = false;
});

/** @param {boolean} wanted */
function showList(wanted) {
  listOpen.value = wanted;
  if (!narrow.value) localStorage.setItem(LIST, wanted ? "open" : "closed");
}

const chosen = () => narrow.value && showList(false);

/** Open the list and search in it. */
export function findConversation() {
  finding.value = true;
  showList(true);
}

function Empty() {
  const base = capabilities.value && !capabilities.value.includes("chat");
  const starters = base ? t("chat.base_starters") : t("chat.starters");
  return html`
    <div class="hello">
      <h2>${isTemporary.value ? t("chat.hello_temporary") : t("chat.hello")}</h2>
      <p>${isTemporary.value ? t("chat.temporary_text") : t("chat.hello_text")}</p>
      ${base && html`<p class="fine">${t("chat.base_model")}</p>`}
      ${model.value && html`<ul class="starters">${starters.split("\n").map((words) => html`
        <li><button type="button" onClick=${() => send(words)}>${words}</button></li>`)}</ul>`}
    </div>`;
}

/** @param {{editing: string | null, onEdit: (id: string | null) => void}} props */
function Turns({ editing, onEdit }) {
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const inner = useRef(/** @type {HTMLElement | null} */ (null));
  const atEnd = useRef(true);
  const seen = useRef("");
  const [away, setAway] = useState(false);
  const nodes = shown.value;
  const writing = reply.value;
  const { id } = current.value.row;
  const toEnd = () => box.current?.scrollTo({ top: box.current.scrollHeight });

  useLayoutEffect(() => {
    atEnd.current = true;
    toEnd();
  }, [id, writing]);
  useEffect(() => {
    if (!inner.current) return;
    const observer = new ResizeObserver(() => atEnd.current && toEnd());
    observer.observe(inner.current);
    if (box.current) observer.observe(box.current);
    return () => observer.disconnect();
  }, []);
  const onScroll = () => {
    const { scrollHeight = 0, scrollTop = 0, clientHeight = 0 } = box.current ?? {};
    const near = scrollHeight - scrollTop - clientHeight < NEAR_THE_END;
    const frame = `${scrollHeight} ${clientHeight}`;
    if (near || frame === seen.current) atEnd.current = near; // a changed frame was not scrolled by a person
    seen.current = frame;
    setAway(!near);
  };
  const turns = nodes.map((node, i) => node.role === "assistant"
    ? html`<${AnswerTurn} key=${node.id} node=${node} writing=${null} last=${!writing && i === nodes.length - 1} />`
    : html`<${UserTurn} key=${node.id} node=${node} editing=${editing === node.id} onEdit=${onEdit} />`);
  if (writing) turns.push(html`<${AnswerTurn} key=${writing.id.value} node=${null} writing=${writing} last />`);
  return html`
    <div class="talk">
      <section ref=${box} class="log" aria-label=${t("chat.log")} tabindex="0" onScroll=${onScroll}>
        <div ref=${inner} class="turns">
          ${!nodes.length && !writing && html`<${Empty} />`}
          ${turns}
          ${!writing && nodes.at(-1)?.role === "user" && html`<${Unanswered} />`}
        </div>
      </section>
      ${away && html`
        <button type="button" class="to-end quiet" onClick=${toEnd}>
          <${Icon} name="down" />${t("chat.to_end")}</button>`}
    </div>`;
}

/** Your words stand there without an answer: the node went away before it began. */
function Unanswered() {
  const last = shown.value.at(-1);
  return last && html`
    <div class="turn unanswered"><span class="fine">${t("chat.unanswered")}</span>
      <button type="button" class="quiet" onClick=${() => again({ ...last, parent_id: last.id })}>
        <${Icon} name="retry" />${t("chat.answer_now")}</button></div>`;
}

function Header() {
  return html`
    <header class="chat-head">
      <button type="button" class="tool" aria-label=${t("list.toggle")} title=${t("list.toggle")}
        aria-expanded=${listOpen.value} onClick=${() => showList(!listOpen.value)}><${Icon} name="list" /></button>
      <${Picker} />
      <${Where} />
      ${isTemporary.value && html`<span class="chip warn"><${Icon} name="temporary" />${t("chat.temporary")}</span>`}
      <span class="fill" />
      <a class="tool new-here" href=${href("chat")} aria-label=${t("list.new")} title=${t("list.new")}>
        <${Icon} name="add" /></a>
      <button type="button" class="tool" aria-label=${t("drawer.title")} title=${t("drawer.title")}
        aria-expanded=${drawerOpen.value} onClick=${() => (drawerOpen.value = !drawerOpen.value)}>
        <${Icon} name="settings" /></button>
    </header>`;
}

/** Where it lies over the chat, the focus goes into it. */
function List() {
  const aside = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => {
    if (narrow.value && !finding.value) aside.current?.focus();
  }, []);
  return html`<aside ref=${aside} class="conversations" tabindex="-1" aria-label=${t("list.label")}>
    <${Conversations} onChoose=${chosen} /></aside>`;
}

/** @param {{id: string}} props of the conversation; empty for a new one */
export function Chat({ id }) {
  const area = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
  const [editing, setEditing] = useState(/** @type {string | null} */ (null));
  useLayoutEffect(() => {
    setEditing(null);
    open(id);
  }, [id]);
  useEffect(() => {
    if (!narrow.value && !document.activeElement?.matches(".find")) area.current?.focus();
  }, [id]);
  useEffect(() => {
    // The first message gives a new conversation its name and its address.
    const made = current.value.row.id;
    if (!id && made) rename("chat", made);
  }, [current.value.row.id]);

  useEffect(() => {
    /** @param {KeyboardEvent} event */
    const onKeyDown = (event) => {
      if (event.key !== "Escape" || document.querySelector(":popover-open, dialog[open]")) return;
      if (narrow.value && listOpen.value) showList(false);
      else if (reply.value) stop();
      else drawerOpen.value = false;
    };
    addEventListener("keydown", onKeyDown);
    return () => removeEventListener("keydown", onKeyDown);
  }, []);
  const editLast = () => setEditing(shown.value.findLast((node) => node.role === "user")?.id ?? null);
  const covered = narrow.value && (listOpen.value || drawerOpen.value);
  return html`
    <div class=${`chat ${listOpen.value ? "with-list" : ""} ${drawerOpen.value ? "with-drawer" : ""}`}>
      ${listOpen.value && html`<${List} />`}
      ${covered && html`<div class="scrim" onClick=${() => {
        showList(false);
        drawerOpen.value = false;
      }} />`}
      <div class="middle" inert=${covered}>
        <h1 class="unseen">${current.value.row.title || t("chat.new_title")}</h1>
        <${Header} />
        ${openFault.value
          ? html`<div class="turns"><${Fault} error=${openFault.value}>
              <a class="button" href=${href("chat")}>${t("list.new")}</a><//></div>`
          : html`<${Turns} key=${current.value.row.id} editing=${editing} onEdit=${setEditing} />`}
        ${refused.value && html`<div class="refused"><${Fault} error=${refused.value.error}>
          ${!models.value?.length && html`
            <a class="button" href=${href("models", "catalogue")}>${t("chat.get_model")}</a>`}<//></div>`}
        ${!openFault.value && html`<${Composer} area=${area} onEditLast=${editLast} />`}
      </div>
      ${drawerOpen.value && html`<${Drawer} onClose=${() => (drawerOpen.value = false)} />`}
    </div>`;
}
