/** Where you write. */

import { html, useEffect, useLayoutEffect } from "../vendor/preact.js";
import { current, model, refused, reply, send, shown, stop } from "./chat_state.js";
import { draftOf, setDraft } from "./drafts.js";
import { count } from "./format.js";
import { Icon } from "./icons.js";
import { loadedModel, models } from "./state.js";
import { t } from "./strings.js";

/** How much of the context the shown branch takes. */
function Context() {
  const last = shown.value.findLast((node) => node.role === "assistant" && node.prompt_tokens > 0);
  const name = model.value;
  const room = loadedModel(name)?.context ?? models.value?.find((row) => row.name === name)?.need?.context ?? 0;
  if (!last || !room) return null;
  const used = last.prompt_tokens + last.generated_tokens;
  const words = t("chat.context", { used: count(used), room: count(room) });
  return html`
    <span class="context" title=${t("chat.context_hint")}>
      <meter min="0" max=${room} high=${room * 0.8} value=${used} aria-label=${words} />
      <span class="num">${words}</span>
    </span>`;
}

/** @param {{onEditLast: () => void, area: {current: HTMLTextAreaElement | null}}} props */
export function Composer({ onEditLast, area }) {
  const { id } = current.value.row;
  const text = draftOf(id);
  const writing = reply.value;
  const ready = () => draftOf(id).trim() !== "" && !reply.value && model.value !== "";

  useEffect(() => {
    // What could not be sent comes back, unless something else was begun meanwhile.
    if (refused.value?.content && !text) setDraft(id, refused.value.content);
  }, [refused.value]);
  useLayoutEffect(() => {
    const style = area.current?.style;
    if (!style || CSS.supports("field-sizing", "content")) return;
    style.height = "auto";
    style.height = `${area.current?.scrollHeight}px`;
  }, [text]);

  const submit = () => {
    if (!ready()) return;
    const content = draftOf(id).trim();
    setDraft(id, "");
    send(content);
  };
  /** @param {KeyboardEvent} event */
  const onKeyDown = (event) => {
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      submit();
    } else if (event.key === "ArrowUp" && text === "") {
      event.preventDefault();
      onEditLast();
    }
  };
  return html`
    <form class="composer" onSubmit=${(/** @type {Event} */ event) => {
      event.preventDefault();
      submit();
    }}>
      <div class="box">
        <textarea ref=${area} class="grow" rows="1" aria-label=${t("chat.write_label")} value=${text} dir="auto"
          placeholder=${model.value ? t("chat.write_to", { model: model.value }) : t("chat.no_model")}
          onInput=${(/** @type {any} */ event) => setDraft(id, event.target.value)} onKeyDown=${onKeyDown} />
        ${writing
          ? html`<button type="button" class="round stop" aria-label=${t("chat.stop")} title=${t("chat.stop_hint")}
              onClick=${stop}><${Icon} name="stop" /></button>`
          : html`<button type="submit" class="round" aria-label=${t("chat.send")} disabled=${!ready()}>
              <${Icon} name="send" /></button>`}
      </div>
      <div class="below"><span class="keys">${t("chat.keys")}</span><${Context} /></div>
    </form>`;
}
