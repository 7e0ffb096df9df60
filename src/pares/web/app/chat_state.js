/** The conversation that is open, and the answers that are being written, here and in conversations left behind. */

import { computed, effect, signal } from "../vendor/preact.js";
import { announce, tell } from "./announce.js";
import { ApiError, asApiError, call, part } from "./api.js";
import { TEMPORARY, moveDraft, setDraft } from "./drafts.js";
import { Reply, storedReply, temporaryReply, withoutEmpty } from "./replies.js";
import { catalogue, chatModels, connected, loadedModel, onEvent } from "./state.js";
import { t } from "./strings.js";
import { branch, newestLeaf } from "./tree.js";

/** @import { ChatSettings, Conversation, MessageNode, ReplyRequest } from "./types.js" */
/** @import { Signal } from "../vendor/preact.js" */

export const UNSAVED = "";
const LAST_MODEL = "pares.model";

/** @type {Signal<Conversation>} */
export const current = signal(empty(UNSAVED));
/** Why the conversation in the address could not be opened. @type {Signal<ApiError | null>} */
export const openFault = signal(null);
/**
 * An answer that was refused before it began, with the words that asked for it.
 * @type {Signal<{error: ApiError, content: string} | null>}
 */
export const refused = signal(null);
/** @type {Signal<ReadonlyMap<string, Reply>>} */
const replies = signal(new Map());
/**
 * What failed in a stored message says only its error; while the page is open it knows the hint too.
 * @type {Signal<ReadonlyMap<string, ApiError>>}
 */
export const faults = signal(new Map());

export const reply = computed(() => replies.value.get(current.value.row.id) ?? null);
export const isTemporary = computed(() => current.value.row.id === TEMPORARY);
/** Whether a conversation is being answered. @param {string} id */
export const isAnswering = (id) => replies.value.has(id);

/** The messages on the screen, without the answer that is being written. */
export const shown = computed(() => {
  const { messages, leaf } = current.value;
  const writing = reply.value;
  if (!writing) return branch(messages, leaf);
  const nodes = branch(messages, writing.anchor);
  return writing.user ? [...nodes, writing.user] : nodes;
});

/** The model that the next message goes to. */
export const model = computed(() => {
  const base = new Set(catalogue.value?.filter((row) => !row.chat).map((row) => row.name));
  const names = chatModels.value.map((row) => row.name).sort((a, b) => Number(base.has(a)) - Number(base.has(b)));
  const chosen = current.value.row.model;
  if (chosen) return chosen;
  const last = localStorage.getItem(LAST_MODEL) ?? "";
  return names.includes(last) ? last : names.find((name) => loadedModel(name)) ?? names[0] ?? "";
});

/** What that model can do; null until it is known. @type {Signal<string[] | null>} */
export const capabilities = signal(null);
effect(() => {
  const name = model.value;
  capabilities.value = null;
  if (!connected.value || !chatModels.value.some((row) => row.name === name)) return;
  call("GET", `/models/${part(name)}`).then((detail) => {
    if (model.value === name) capabilities.value = detail.capabilities;
  }, () => {}); // a model that cannot be read says so when it is used
});

/** @param {string} id @returns {Conversation} */
function empty(id) {
  const row = { id, title: "", model: "", created_at: "", updated_at: "", messages: 0 };
  return { row, system: "", settings: {}, leaf: null, messages: [] };
}

let wanted = UNSAVED;

/** @param {string} id */
export async function open(id) {
  wanted = id;
  openFault.value = null;
  if (current.value.row.id === id) return;
  refused.value = null;
  if (id === UNSAVED || id === TEMPORARY) {
    current.value = empty(id);
    return;
  }
  try {
    const found = await call("GET", `/conversations/${part(id)}`);
    if (wanted === id) current.value = found;
  } catch (fault) {
    if (wanted === id) openFault.value = asApiError(fault);
  }
}

/** Begin a new one; what is open stays where it is kept. */
export function close() {
  current.value = empty(UNSAVED);
}

/** End the answer that is being written in a conversation. @param {string} id */
export const stopIn = (id) => replies.value.get(id)?.abort.abort();

/** @param {string} id @param {(now: Conversation) => Conversation} how */
function update(id, how) {
  if (current.value.row.id === id) current.value = how(current.value);
}

/** @param {string} id @param {MessageNode} node @param {boolean} [asLeaf] */
function put(id, node, asLeaf = true) {
  update(id, (now) => {
    const known = now.messages.some((other) => other.id === node.id);
    const messages = known
      ? now.messages.map((other) => (other.id === node.id ? node : other)) : [...now.messages, node];
    return { ...now, messages, leaf: asLeaf ? node.id : now.leaf };
  });
}

/**
 * Change title, model, system prompt or sampling; a conversation that is kept is changed on the node too.
 * @param {{title?: string, model?: string, system?: string, settings?: ChatSettings}} what
 */
export async function change(what) {
  const { id } = current.value.row;
  if (what.model) localStorage.setItem(LAST_MODEL, what.model);
  update(id, (now) => ({
    ...now,
    row: { ...now.row, title: what.title ?? now.row.title, model: what.model ?? now.row.model },
    system: what.system ?? now.system,
    settings: what.settings ?? now.settings,
  }));
  await patch(id, what);
}

/** @param {string} id @param {object} what */
async function patch(id, what) {
  if (id === UNSAVED || id === TEMPORARY) return;
  try {
    await call("PATCH", `/conversations/${part(id)}`, what);
  } catch (fault) {
    tell(asApiError(fault).message);
  }
}

/** Show the branch that goes through a message. @param {MessageNode} node */
export async function select(node) {
  const { row, messages } = current.value;
  const leaf = newestLeaf(messages, node.id);
  update(row.id, (now) => ({ ...now, leaf }));
  await patch(row.id, { leaf });
}

/** @param {string} content */
export const send = (content) => ask({ parent_id: current.value.leaf, content });
/** Another version of a message: the old one stays. @param {MessageNode} node @param {string} content */
export const edit = (node, content) => ask({ parent_id: node.parent_id, content });
/** Another answer. @param {MessageNode} node an answer */
export const again = (node) => ask({ parent_id: node.parent_id });
/** Go on with an answer that was broken off. @param {MessageNode} node */
export const goOn = (node) => ask({ parent_id: node.id, go_on: true });
export const stop = () => stopIn(current.value.row.id);

let making = false;

/** The open conversation, made on the node if this is its first message. @param {ReplyRequest} request */
async function kept(request) {
  const now = current.value;
  if (now.row.id !== UNSAVED) return now;
  const made = await call("POST", "/conversations", {
    model: request.model, system: now.system, settings: withoutEmpty(now.settings),
  });
  if (current.value === now) {
    moveDraft(UNSAVED, made.row.id);
    current.value = made;
  }
  return /** @type {Conversation} */ (made);
}

/** @param {ReplyRequest} request */
async function ask(request) {
  if (reply.value || making) return;
  making = true;
  refused.value = null;
  request = { ...request, model: model.value };
  localStorage.setItem(LAST_MODEL, model.value);
  let conversation;
  try {
    conversation = await kept(request);
  } catch (fault) {
    refused.value = { error: asApiError(fault), content: request.content ?? "" };
    return;
  } finally {
    making = false;
  }
  const { id } = conversation.row;
  const writing = new Reply(conversation, request);
  setReply(id, writing);
  try {
    const source = id === TEMPORARY ? temporaryReply : storedReply;
    for await (const piece of source(conversation, request, writing.abort.signal)) take(id, writing, piece);
    if (replies.value.get(id) === writing) breakOff(id, writing, null); // the stream ended without a last word
  } catch (fault) {
    breakOff(id, writing, fault);
  } finally {
    setReply(id, null);
  }
}

/** @param {string} id @param {Reply} writing @param {import("./replies.js").Piece} piece */
function take(id, writing, { event, data }) {
  if (event === "begun") {
    writing.begun = true;
    writing.id.value = data.assistant_id;
    writing.model = data.model;
    if (data.user) {
      writing.user = data.user;
      put(id, data.user);
    }
  } else if (event === "loading") writing.phase.value = { name: "loading", progress: data.progress };
  else if (event === "queued") writing.phase.value = { name: "queued", place: data.place };
  else if (event === "text" || event === "reasoning") writing.hear(event, data.text);
  else if (event === "finished") {
    put(id, data);
    setReply(id, null);
    announce(t("chat.answered", { model: data.model, text: data.content.slice(0, 600) }));
  } else if (event === "error") {
    breakOff(id, writing, new ApiError(0, data));
    setReply(id, null);
  }
}

/** @param {string} id @param {Reply} writing @param {unknown} fault null: the node ended the stream */
function breakOff(id, writing, fault) {
  const stopped = writing.abort.signal.aborted;
  if (writing.begun) {
    const error = stopped ? null : asApiError(fault ?? new ApiError(0, { message: t("chat.cut_off") }));
    put(id, writing.brokenOff(stopped ? "stopped" : "failed", error?.message ?? ""));
    if (error) faults.value = new Map(faults.value).set(writing.id.value, error);
  } else if (current.value.row.id === id) {
    const content = writing.request.content ?? "";
    if (stopped) setDraft(id, content);
    else refused.value = { error: asApiError(fault), content };
  }
  announce(stopped ? t("chat.stopped") : t("chat.failed"));
}

/** @param {string} id @param {Reply | null} writing */
function setReply(id, writing) {
  const next = new Map(replies.value);
  if (writing) next.set(id, writing);
  else next.delete(id);
  replies.value = next;
}

async function refetch() {
  const known = current.value;
  const { id } = known.row;
  if (id === UNSAVED || id === TEMPORARY || replies.value.has(id)) return;
  const fresh = await call("GET", `/conversations/${part(id)}`).catch(() => null); // deleted elsewhere: stays readable
  if (fresh && current.value === known && !replies.value.has(id)) current.value = fresh; // else it is old by now
}

onEvent((kind, data) => {
  if (kind === "up" || (kind === "conversations" && data.id === current.value.row.id)) refetch();
});
