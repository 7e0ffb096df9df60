/** The list of conversations: search, rename, export, import, delete. */

import { html, signal, useEffect, useRef, useSignalEffect, useState } from "../vendor/preact.js";
import { tell } from "./announce.js";
import { ApiError, address, asApiError, call, part } from "./api.js";
import { close as closeChat, current, isAnswering, stopIn } from "./chat_state.js";
import { TEMPORARY } from "./drafts.js";
import { Icon } from "./icons.js";
import { go, href } from "./router.js";
import { conversations, fetchConversations, search } from "./state.js";
import { t } from "./strings.js";
import { Confirm, Dialog, Fault, MenuItem, Popover, useAction } from "./ui.js";

/** @import { ConversationRow } from "./types.js" */

const SEARCH_MS = 200;

/** Whether the search is to get the focus as soon as it is there. */
export const finding = signal(false);
const DAY_MS = 86_400_000;

/** @param {ConversationRow} row */
function age(row) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  const time = Date.parse(row.updated_at);
  if (time >= midnight) return "today";
  if (time >= midnight - DAY_MS) return "yesterday";
  return time >= midnight - 6 * DAY_MS ? "week" : "older";
}

/** @param {{row: ConversationRow, onClose: () => void}} props */
function Rename({ row, onClose }) {
  const { busy, error, run } = useAction();
  const [title, setTitle] = useState(row.title);
  /** @param {Event} event */
  const submit = (event) => {
    event.preventDefault();
    run(async () => {
      await call("PATCH", `/conversations/${part(row.id)}`, { title: title.trim() });
      await fetchConversations();
      if (current.value.row.id === row.id) {
        current.value = { ...current.value, row: { ...current.value.row, title: title.trim() } };
      }
      onClose();
    });
  };
  return html`
    <${Dialog} title=${t("list.rename_title")} onClose=${onClose}>
      <form onSubmit=${submit}>
        <input type="text" aria-label=${t("list.title")} maxlength="200" autofocus value=${title}
          onInput=${(/** @type {any} */ event) => setTitle(event.target.value)} />
        ${error && html`<${Fault} error=${error} />`}
        <div class="buttons"><button type="button" class="quiet" onClick=${onClose}>${t("ui.cancel")}</button>
          <button type="submit" disabled=${busy || !title.trim()}>${t("list.rename")}</button></div>
      </form>
    <//>`;
}

/** @param {{row: ConversationRow, onChoose: () => void}} props */
function Item({ row, onChoose }) {
  const [asking, setAsking] = useState(/** @type {"" | "rename" | "delete"} */ (""));
  const open = current.value.row.id === row.id;
  const title = row.title || t("list.untitled");
  const remove = async () => {
    if (open) {
      closeChat(); // first, or the news of its end makes the page ask for it again
      go("chat");
    }
    stopIn(row.id);
    await call("DELETE", `/conversations/${part(row.id)}`);
    await fetchConversations();
    tell(t("list.deleted", { title }));
  };
  const file = address(`/conversations/${part(row.id)}/export?format=`);
  return html`
    <li class=${`conversation ${open ? "open" : ""}`}>
      <a href=${href("chat", row.id)} aria-current=${open ? "page" : undefined} onClick=${onChoose}>
        <span class="title">${title}</span>
        ${isAnswering(row.id) && html`<span class="caret" role="img" aria-label=${t("list.answering")} />`}
      </a>
      <${Popover} class="tool later" role="menu" align="end" label=${t("list.more", { title })}
        face=${html`<${Icon} name="more" />`}>
        ${(/** @type {() => void} */ shut) => {
          const ask = (/** @type {"rename" | "delete"} */ what) => () => {
            shut();
            setAsking(what);
          };
          return html`
            <${MenuItem} icon="edit" onClick=${ask("rename")}>${t("list.rename")}<//>
            <${MenuItem} icon="get" href=${`${file}md`} download onClick=${shut}>${t("list.export_md")}<//>
            <${MenuItem} icon="get" href=${`${file}json`} download onClick=${shut}>${t("list.export_json")}<//>
            <${MenuItem} icon="trash" danger onClick=${ask("delete")}>${t("list.delete")}<//>`;
        }}
      <//>
      ${asking === "rename" && html`<${Rename} row=${row} onClose=${() => setAsking("")} />`}
      ${asking === "delete" && html`
        <${Confirm} title=${t("list.delete_title")} action=${t("list.delete")} onClose=${() => setAsking("")}
          onConfirm=${remove}>
          <p>${t("list.delete_text", { title, n: row.messages })}</p><//>`}
    </li>`;
}

function Import() {
  const input = useRef(/** @type {HTMLInputElement | null} */ (null));
  const { busy, error, run } = useAction();
  /** @param {any} event */
  const onChange = ({ target }) => run(async () => {
    const [file] = target.files;
    if (!file) return;
    let exported;
    try {
      exported = JSON.parse(await file.text());
    } catch {
      throw new ApiError(0, { message: t("list.import_wrong", { file: file.name }), hint: t("list.import_hint") });
    } finally {
      target.value = "";
    }
    const made = await call("POST", "/conversations/import", exported);
    go("chat", made.row.id);
  });
  return html`
    ${error && html`<${Fault} error=${error} />`}
    <input ref=${input} type="file" accept=".json,application/json" hidden aria-label=${t("list.import")}
      onChange=${onChange} />
    <button type="button" class="item" disabled=${busy} onClick=${() => input.current?.click()}>
      <${Icon} name="get" />${t("list.import")}</button>`;
}

/** @param {{onChoose: () => void}} props what to do once a conversation was chosen */
export function Conversations({ onChoose }) {
  const timer = useRef(/** @type {ReturnType<typeof setTimeout> | undefined} */ (undefined));
  useSignalEffect(() => {
    search.value;
    clearTimeout(timer.current);
    timer.current = setTimeout(() => fetchConversations().catch((fault) => tell(asApiError(fault).message)), SEARCH_MS);
  });
  const field = useRef(/** @type {HTMLInputElement | null} */ (null));
  useEffect(() => {
    if (finding.value) field.current?.focus();
    finding.value = false;
  }, [finding.value]);
  const rows = conversations.value ?? [];
  const groups = Map.groupBy(rows, age);
  return html`
    <div class="list-head">
      <a class="button" href=${href("chat")} onClick=${onChoose}><${Icon} name="add" />${t("list.new")}</a>
      <input ref=${field} type="search" class="find" aria-label=${t("list.search")} placeholder=${t("list.search")}
        value=${search.value} onInput=${(/** @type {any} */ event) => (search.value = event.target.value)} />
    </div>
    <nav class="list" aria-label=${t("list.label")}>
      ${[...groups].map(([name, members]) => html`
        <h3 key=${name}>${t(`list.${name}`)}</h3>
        <ul>${members.map((row) => html`<${Item} key=${row.id} row=${row} onChoose=${onChoose} />`)}</ul>`)}
      ${conversations.value && !rows.length && html`
        <p class="empty">${t(search.value ? "list.none_found" : "list.none")}</p>`}
    </nav>
    <div class="list-foot">
      <a class="item" href=${href("chat", TEMPORARY)} onClick=${onChoose}>
        <${Icon} name="temporary" />${t("list.temporary")}</a>
      <${Import} />
    </div>`;
}
