/** The turns of a chat: yours, the answers, and the one that is being written. */

import { html, useEffect, useRef, useState } from "../vendor/preact.js";
import { again, current, edit, faults, goOn, isTemporary, reply, select } from "./chat_state.js";
import { decimal, duration, moment, percent } from "./format.js";
import { Icon } from "./icons.js";
import { Markdown } from "./markdown.js";
import { href } from "./router.js";
import { t } from "./strings.js";
import { versions } from "./tree.js";
import { CopyButton, Fault, Popover, Progress } from "./ui.js";

/** @import { MessageNode } from "./types.js" */
/** @import { Reply } from "./replies.js" */

/** Switch between the versions of one message. @param {{node: MessageNode}} props */
function Versions({ node }) {
  const all = versions(current.value.messages, node);
  const at = all.findIndex((other) => other.id === node.id);
  if (all.length < 2 || at < 0) return null;
  /** @param {number} step @param {"back" | "forward"} icon @param {string} label */
  const to = (step, icon, label) => {
    const other = all[at + step];
    return html`<button type="button" class="tool" aria-label=${label} disabled=${!other || reply.value !== null}
      onClick=${() => other && select(other)}><${Icon} name=${icon} /></button>`;
  };
  return html`
    <span class="versions" role="group" aria-label=${t("chat.versions")}>
      ${to(-1, "back", t("chat.older_version"))}
      <span class="num">${at + 1}/${all.length}</span>
      ${to(1, "forward", t("chat.newer_version"))}
    </span>`;
}

/** @param {{node: MessageNode, onDone: () => void}} props */
function Editor({ node, onDone }) {
  const [text, setText] = useState(node.content);
  const area = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
  useEffect(() => {
    area.current?.focus();
    area.current?.setSelectionRange(text.length, text.length);
  }, []);
  const send = () => {
    if (!text.trim() || reply.value) return;
    onDone();
    edit(node, text.trim());
  };
  /** @param {KeyboardEvent} event */
  const onKeyDown = (event) => {
    if (event.key === "Escape") {
      event.stopPropagation(); // it ends the editing, and not an answer
      onDone();
    } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    }
  };
  return html`
    <div class="editor">
      <textarea ref=${area} class="grow" aria-label=${t("chat.edit_label")} value=${text} onKeyDown=${onKeyDown}
        onInput=${(/** @type {any} */ event) => setText(event.target.value)} />
      <div class="buttons">
        <span class="hint">${t("chat.edit_hint")}</span>
        <button type="button" class="quiet" onClick=${onDone}>${t("ui.cancel")}</button>
        <button type="button" onClick=${send} disabled=${!text.trim()}>${t("chat.send")}</button>
      </div>
    </div>`;
}

/** @param {{node: MessageNode, editing: boolean, onEdit: (id: string | null) => void}} props */
export function UserTurn({ node, editing, onEdit }) {
  return html`
    <article class="turn mine" aria-label=${t("chat.you")}>
      ${editing
        ? html`<${Editor} node=${node} onDone=${() => onEdit(null)} />`
        : html`
          <div class="words" dir="auto">${node.content}</div>
          <div class="tools">
            <${Versions} node=${node} />
            <button type="button" class="tool later" aria-label=${t("chat.edit")} title=${t("chat.edit")}
              disabled=${reply.value !== null} onClick=${() => onEdit(node.id)}><${Icon} name="edit" /></button>
            <${CopyButton} class="later" text=${node.content} label=${t("chat.copy_message")} />
          </div>`}
    </article>`;
}

/** @param {{text: string, label: string}} props */
const Thinking = ({ text, label }) => html`
  <details class="thinking"><summary>${label}</summary><div class="plain" dir="auto">${text}</div></details>`;

/** Where an answer was computed, and how long it took. @param {{node: MessageNode}} props */
const Making = ({ node }) => html`
  <${Popover} class="tool later" label=${t("chat.how_made")} face=${html`<${Icon} name="info" />`}>
    ${() => html`
      <h2>${t("chat.how_made")}</h2>
      <dl class="facts">
        <dt>${t("chat.made_where")}</dt><dd>${t("chat.this_pc")}</dd>
        <dt>${t("chat.made_model")}</dt><dd>${node.model}</dd>
        <dt>${t("chat.made_read")}</dt><dd class="num">${t("chat.tokens", { n: node.prompt_tokens })}</dd>
        <dt>${t("chat.made_wrote")}</dt><dd class="num">${t("chat.tokens", { n: node.generated_tokens })}</dd>
        <dt>${t("chat.made_first")}</dt><dd class="num">${duration(node.first_token_s)}</dd>
        <dt>${t("chat.made_speed")}</dt><dd class="num">${t("chat.speed", { n: decimal(node.tokens_per_s) })}</dd>
        ${node.seed !== null && html`<dt>${t("chat.made_seed")}</dt><dd class="num">${node.seed}</dd>`}
        <dt>${t("chat.made_when")}</dt><dd>${moment(node.created_at)}</dd>
      </dl>`}
  <//>`;

/** What is awaited, and from whom. @param {{phase: import("./replies.js").Phase, model: string}} props */
function Waiting({ phase, model }) {
  if (phase.name === "loading") {
    const share = phase.progress ?? 0;
    const words = t("chat.loading", { model, share: percent(share) });
    return html`<div class="waiting">${words}<${Progress} value=${share} max=${1} label=${words} /></div>`;
  }
  if (phase.name === "queued") {
    return html`<div class="waiting">${t("chat.queued", { n: phase.place ?? 1 })}</div>`;
  }
  return phase.name === "sending"
    ? html`<div class="waiting">${t("chat.reading", { model })}<span class="caret" /></div>` : null;
}

/** What went into an answer, and what can be done with it. @param {{node: MessageNode, last: boolean}} props */
function Meta({ node, last }) {
  const busy = reply.value !== null;
  const limit = current.value.settings.max_tokens;
  const cut = node.state !== "complete" || (limit != null && node.generated_tokens >= limit);
  const retry = t("chat.retry");
  return html`
    <div class="meta">
      <span class="hop"><${Icon} name="pc" />${t("chat.this_pc")}</span>
      ${node.generated_tokens > 0 && html`<span>${t("chat.tokens", { n: node.generated_tokens })}</span>`}
      ${node.tokens_per_s > 0 && html`<span>${t("chat.speed", { n: decimal(node.tokens_per_s) })}</span>`}
      ${node.state === "stopped" && html`
        <span class="state"><${Icon} name="stop" />${t("chat.stopped_word")}</span>`}
      <span class="tools">
        <${Versions} node=${node} />
        ${node.generated_tokens > 0 && html`<${Making} node=${node} />`}
        <${CopyButton} class="later" text=${node.content} label=${t("chat.copy_answer")} />
        <button type="button" class="tool later" aria-label=${retry} title=${retry} disabled=${busy}
          onClick=${() => again(node)}><${Icon} name="retry" /></button>
        ${last && cut && node.content !== "" && !isTemporary.value && html`
          <button type="button" class="tool" disabled=${busy} onClick=${() => goOn(node)}>
            <${Icon} name="play" /><span>${t("chat.go_on")}</span></button>`}
      </span>
    </div>`;
}

/** @param {{node: MessageNode}} props a failed answer */
function Failure({ node }) {
  const error = faults.value.get(node.id) ?? { message: node.error || t("chat.failed") };
  return html`
    <${Fault} error=${error}>
      <button type="button" class="quiet" disabled=${reply.value !== null} onClick=${() => again(node)}>
        ${t("chat.retry")}</button>
      <a class="button quiet" href=${href("settings", "doctor")}>${t("chat.run_doctor")}</a>
    <//>`;
}

/**
 * An answer, stored or being written: one component, so that nothing on the screen is built anew when it is finished.
 * @param {{node: MessageNode | null, writing: Reply | null, last: boolean}} props
 */
export function AnswerTurn({ node, writing, last }) {
  const phase = writing?.phase.value ?? null;
  const text = writing?.text.value ?? node?.content ?? "";
  const reasoning = writing?.reasoning.value ?? node?.reasoning ?? "";
  const model = writing?.model ?? node?.model ?? "";
  const label = phase?.name === "thinking"
    ? t("chat.thinking", { n: reasoning.split(/\s+/).length }) : t("chat.thought");
  return html`
    <article class=${`turn answer ${last ? "last" : ""} ${phase?.name ?? ""}`} aria-busy=${writing !== null}
      aria-label=${t("chat.answer_of", { model })}>
      <h2 class="who">${model}</h2>
      ${reasoning && html`<${Thinking} text=${reasoning} label=${label} />`}
      ${phase && html`<${Waiting} phase=${phase} model=${model} />`}
      <${Markdown} text=${text} live=${phase !== null} />
      ${node?.state === "failed" && html`<${Failure} node=${node} />`}
      ${node && html`<${Meta} node=${node} last=${last} />`}
    </article>`;
}
