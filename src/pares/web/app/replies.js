/** One answer as it comes: from a stored conversation's reply stream, or for a temporary chat from /v1. */

import { batch, signal } from "../vendor/preact.js";
import { ApiError, address, part, stream } from "./api.js";
import { branch } from "./tree.js";

/** @import { Conversation, MessageNode, ReplyRequest } from "./types.js" */
/** @typedef {{event: string, data: any}} Piece */

/** @typedef {{name: "sending" | "loading" | "queued" | "thinking" | "writing", progress?: number,
 *   place?: number}} Phase */

/** Run at the next frame; in a hidden tab, where there are none, soon. @param {() => void} work */
const soon = (work) => (document.hidden ? setTimeout(work, 250) : requestAnimationFrame(work));

export class Reply {
  /**
   * @param {Conversation} conversation
   * @param {ReplyRequest} request
   */
  constructor(conversation, request) {
    this.request = request;
    this.abort = new AbortController();
    this.phase = signal(/** @type {Phase} */ ({ name: "sending" }));
    /** The message it stands under while it is written. @type {string | null} */
    this.anchor = request.parent_id ?? null;
    /** @type {MessageNode | null} */
    this.user = null;
    /** Of the answer; one of our own until the node says which. */
    this.id = signal(draftId());
    this.begun = false;
    this.model = request.model ?? conversation.row.model;
    let text = "";
    if (request.content != null) this.user = draftNode("user", this.anchor, request.content);
    if (request.go_on) {
      const unfinished = conversation.messages.find((node) => node.id === request.parent_id);
      this.anchor = unfinished?.parent_id ?? null;
      text = unfinished?.content ?? "";
    }
    this.text = signal(text);
    this.reasoning = signal("");
    this.heard = { text, reasoning: "" };
    this.drawing = false;
  }

  /**
   * Take in more of the answer; what is on the screen follows once per frame.
   * @param {"text" | "reasoning"} kind
   * @param {string} more
   */
  hear(kind, more) {
    this.heard[kind] += more;
    if (this.drawing) return;
    this.drawing = true;
    soon(() => this.draw());
  }

  draw() {
    this.drawing = false;
    batch(() => {
      this.text.value = this.heard.text;
      this.reasoning.value = this.heard.reasoning;
      const name = this.heard.text ? "writing" : this.heard.reasoning ? "thinking" : this.phase.value.name;
      if (name !== this.phase.value.name) this.phase.value = { name };
    });
  }

  /** The message as far as it came. @param {"stopped" | "failed"} state @param {string} error @returns {MessageNode} */
  brokenOff(state, error = "") {
    const parent = this.user ? this.user.id : this.anchor;
    const node = draftNode("assistant", parent, this.heard.text);
    return { ...node, id: this.id.value, reasoning: this.heard.reasoning, model: this.model, state, error };
  }
}

let drafts = 0;
const draftId = () => `draft-${++drafts}`;

/** @param {"user" | "assistant"} role @param {string | null} parent @param {string} content @returns {MessageNode} */
export const draftNode = (role, parent, content) => ({
  id: draftId(), parent_id: parent, role, content, reasoning: "", model: "",
  state: "complete", created_at: new Date().toISOString(), prompt_tokens: 0, generated_tokens: 0, tokens_per_s: 0,
  first_token_s: 0, seed: null, error: "",
});

/**
 * @param {Conversation} conversation
 * @param {ReplyRequest} request
 * @param {AbortSignal} abort
 * @returns {AsyncGenerator<Piece>}
 */
export async function* storedReply(conversation, request, abort) {
  const path = address(`/conversations/${part(conversation.row.id)}/reply`);
  for await (const { event, data } of stream(path, request, abort)) yield { event, data: JSON.parse(data) };
}

/**
 * The same pieces for a chat that is kept nowhere: the page sends the branch, and holds what comes back.
 * @param {Conversation} conversation @param {ReplyRequest} request @param {AbortSignal} abort
 * @returns {AsyncGenerator<Piece>}
 */
export async function* temporaryReply(conversation, request, abort) {
  const user = request.content == null ? null : draftNode("user", request.parent_id ?? null, request.content);
  const node = draftNode("assistant", user ? user.id : request.parent_id ?? null, "");
  node.model = request.model ?? conversation.row.model;
  const history = branch(conversation.messages, request.parent_id ?? null);
  const messages = [...history, ...(user ? [user] : [])].map(({ role, content }) => ({ role, content }));
  if (conversation.system) messages.unshift({ role: "system", content: conversation.system });
  const { schema, thinking, ...sampling } = conversation.settings;
  const body = {
    ...withoutEmpty(sampling), model: node.model, messages, stream: true, stream_options: { include_usage: true },
    ...(schema ? { response_format: { type: "json_schema", json_schema: { name: "answer", schema } } } : {}),
    ...(thinking == null ? {} : { thinking }),
  };
  const began = performance.now();
  let first = 0;
  let begun = false;
  for await (const { data } of stream("/v1/chat/completions", body, abort)) {
    if (!begun) yield { event: "begun", data: { user, assistant_id: node.id, model: node.model } };
    begun = true;
    if (data === "[DONE]") break;
    const { choices, usage, error } = JSON.parse(data);
    if (error) throw new ApiError(0, error);
    const { content, reasoning_content: reasoning } = choices?.[0]?.delta ?? {};
    if (content || reasoning) first ||= performance.now();
    if (reasoning) yield { event: "reasoning", data: { text: reasoning } };
    if (content) yield { event: "text", data: { text: content } };
    node.reasoning += reasoning ?? "";
    node.content += content ?? "";
    if (usage) {
      node.prompt_tokens = usage.prompt_tokens;
      node.generated_tokens = usage.completion_tokens;
    }
  }
  const seconds = (performance.now() - first) / 1000;
  node.first_token_s = first ? (first - began) / 1000 : 0;
  if (first && node.generated_tokens > 1) node.tokens_per_s = (node.generated_tokens - 1) / seconds;
  yield { event: "finished", data: node };
}

/** @param {Record<string, unknown>} object */
export const withoutEmpty = (object) =>
  Object.fromEntries(Object.entries(object).filter(([, value]) =>
    value !== null && value !== undefined && !(Array.isArray(value) && value.length === 0)));
