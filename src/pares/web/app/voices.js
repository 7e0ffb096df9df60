/** Who stands for a version and who warns of it; and one's own word on it. */

import { html, useId, useState } from "../vendor/preact.js";
import { call, part } from "./api.js";
import { moment } from "./format.js";
import { Icon } from "./icons.js";
import { t } from "./strings.js";
import { status } from "./state.js";
import { Dialog, Fault, useAction } from "./ui.js";

/** @import { VersionDetail, Voice } from "./types.js" */

const LOOKS = /** @type {const} */ ({
  endorsement: ["ok", "check"], warning: ["warn", "warning"], revocation: ["bad", "cross"],
});
const MAX_TEXT = 1000;

/** @param {{voice: Voice}} props */
const VoiceRow = ({ voice }) => html`
  <li class=${voice.withdrawn ? "" : LOOKS[voice.kind][0]}>
    <span class="check-mark"><${Icon} name=${voice.withdrawn ? "pause" : LOOKS[voice.kind][1]} /></span>
    <div><strong class="break">${voice.yours ? t("circle.you") : voice.by.name}</strong>${" "}
      <span class="fine num">${t(`voices.${voice.kind}`)} · ${moment(voice.at)}${voice.withdrawn
        ? ` · ${t("voices.withdrawn")}` : ""}</span>
      ${voice.text && html`<p class="plain">${voice.text}</p>`}
      ${!voice.yours && html`<span class="fingerprint">${voice.by.words}</span>`}</div></li>`;

/**
 * @param {{what: "endorse" | "warn" | "withdraw", detail: VersionDetail, onDone: () => void,
 *   onClose: () => void}} props
 */
function Speak({ what, detail: { row }, onDone, onClose }) {
  const id = useId();
  const { busy, error, run } = useAction();
  const [text, setText] = useState("");
  /** @param {Event} event */
  const submit = (event) => {
    event.preventDefault();
    run(async () => {
      const verb = what === "endorse" ? "endorse" : "revoke";
      await call("POST", `/versions/${part(row.id)}/${verb}`, { text: text.trim() });
      onDone();
      onClose();
    });
  };
  return html`
    <${Dialog} title=${t(`voices.${what}_title`, { name: row.name })} onClose=${onClose}>
      <form onSubmit=${submit}>
        <p>${t(`voices.${what}_text`)}</p>
        <div class="field"><label for=${id}>${t(what === "endorse" ? "voices.words" : "voices.reason")}</label>
          <textarea id=${id} class="grow" rows="3" maxlength=${MAX_TEXT} autofocus value=${text}
            required=${what !== "endorse"}
            onInput=${(/** @type {any} */ event) => setText(event.target.value)} /></div>
        ${error && html`<${Fault} error=${error} />`}
        <div class="buttons"><button type="button" class="quiet" onClick=${onClose}>${t("ui.cancel")}</button>
          <button type="submit" class=${what === "endorse" ? "" : "danger"}
            disabled=${busy || (what !== "endorse" && !text.trim())}>${t(`voices.${what}`)}</button></div>
      </form>
    <//>`;
}

/** @param {{detail: VersionDetail, onChange: () => void}} props */
export function Voices({ detail, onChange }) {
  const [speaking, setSpeaking] = useState(/** @type {"" | "endorse" | "warn" | "withdraw"} */ (""));
  const mine = detail.row.publisher.id === status.value?.id
    || detail.voices.some((voice) => voice.yours && voice.kind === "endorsement" && !voice.withdrawn);
  return html`
    <section aria-label=${t("voices.title")}><h2>${t("voices.title")}</h2>
      ${detail.voices.length ? html`<ul class="checks">${detail.voices.map((voice) => html`
        <${VoiceRow} key=${voice.id} voice=${voice} />`)}</ul>` : html`<p class="fine">${t("voices.none")}</p>`}
      <div class="buttons start">
        ${!mine && html`<button type="button" class="gentle" onClick=${() => setSpeaking("endorse")}>
          <${Icon} name="check" />${t("voices.endorse")}</button>`}
        <button type="button" class="quiet" onClick=${() => setSpeaking(mine ? "withdraw" : "warn")}>
          <${Icon} name="warning" />${t(mine ? "voices.withdraw" : "voices.warn")}</button></div>
      ${speaking && html`<${Speak} what=${speaking} detail=${detail} onDone=${onChange}
        onClose=${() => setSpeaking("")} />`}
    </section>`;
}
