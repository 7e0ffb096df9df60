/** Join a circle by a link: see where it leads, agree once, and be in, or know what is in the way. */

import { html, useEffect, useId, useRef, useState } from "../vendor/preact.js";
import { call } from "./api.js";
import { duration, moment } from "./format.js";
import { fetchAll } from "./network_state.js";
import { href } from "./router.js";
import { t } from "./strings.js";
import { Dialog, Fault, Progress, useAction, useFocus } from "./ui.js";

/** @import { Joined, JoinPreview } from "./types.js" */

const SECOND_MS = 1000;
/** What is shorter than this has no figure that says anything. */
const SHORT_S = 0.1;

/** @param {{onPreview: (preview: JoinPreview, link: string) => void, onClose: () => void, before: string}} props */
function Paste({ onPreview, onClose, before }) {
  const id = useId();
  const { busy, error, run } = useAction();
  const field = useFocus();
  const [link, setLink] = useState(before);
  const look = (/** @type {string} */ text) => run(async () =>
    onPreview(await call("POST", "/circles/join/preview", { link: text.trim() }), text.trim()));
  /** @param {Event} event */
  const submit = (event) => {
    event.preventDefault();
    look(link);
  };
  /** @param {any} event */
  const typed = ({ target, inputType }) => {
    setLink(target.value);
    if (inputType === "insertFromPaste" && target.value.trim()) look(target.value);
  };
  return html`
    <form onSubmit=${submit}>
      <div class="field"><label for=${id}>${t("join.label")}</label>
        <textarea ref=${field} id=${id} class="mono" rows="3" maxlength="4096" autofocus spellcheck="false"
          autocomplete="off" value=${link} placeholder=${t("join.example")} aria-describedby=${`${id}-hint`}
          onInput=${typed} />
        <p id=${`${id}-hint`} class="fine">${t("join.hint")}</p></div>
      ${error && html`<${Fault} error=${error} />`}
      <div class="buttons"><button type="button" class="quiet" onClick=${onClose}>${t("ui.cancel")}</button>
        <button type="submit" disabled=${busy || !link.trim()}>${t("join.look")}</button></div>
    </form>`;
}

/** What is awaited, from whom, and for how long by now. @param {{preview: JoinPreview}} props */
function Working({ preview }) {
  const [seconds, setSeconds] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => setSeconds((now) => now + 1), SECOND_MS);
    return () => clearInterval(timer);
  }, []);
  return html`
    <div class="joining">
      <${Progress} value=${0} max=${0} label=${t("join.working", { name: preview.name })} />
      <p role="status">${t("join.asking", { inviter: preview.inviter.name })}</p>
      <p class="fine num">${t("join.patience", { time: duration(seconds) })}</p></div>`;
}

/** @param {{preview: JoinPreview, link: string, onBack: () => void, onJoined: (joined: Joined) => void}} props */
function Agree({ preview, link, onBack, onJoined }) {
  const { busy, error, run } = useAction();
  const abort = useRef(new AbortController());
  useEffect(() => () => abort.current.abort(), []);
  const join = () => run(async () => {
    const joined = await call("POST", "/circles/join", { link }, abort.current.signal);
    fetchAll().catch(() => {}); // events tell the same
    onJoined(joined);
  });
  const question = useFocus();
  const { name, inviter } = preview;
  if (preview.already) {
    return html`
      <p ref=${question} tabindex="-1">${t("join.already", { name })}</p>
      <div class="buttons"><button type="button" class="quiet" onClick=${onBack}>${t("join.back")}</button>
        <a class="button" href=${href("network", "circle", preview.circle)}>${t("join.show")}</a></div>`;
  }
  return html`
    <h3 ref=${question} class="leads break" tabindex="-1">${t("join.leads", { name })}</h3>
    <dl class="facts">
      <dt>${t("join.invited_by")}</dt>
      <dd class="break"><strong>${inviter.name}</strong> <span class="fingerprint">${inviter.words}</span>
        <small>${t("join.compare")}</small></dd>
      <dt>${t("join.as")}</dt><dd>${t(`join.as_${preview.role}`)}</dd>
      <dt>${t("join.until")}</dt><dd class="num">${moment(preview.expires_at)}</dd></dl>
    ${preview.open && html`<p>${t("join.commons")}</p>`}
    <div><h3>${t("join.shares")}</h3>
      <ul class="shares">${preview.shares.map((line) => html`<li>${line}</li>`)}</ul></div>
    ${busy && html`<${Working} preview=${preview} />`}
    ${error && html`<${Fault} error=${error} />`}
    <div class="buttons"><button type="button" class="quiet" onClick=${onBack}>
        ${t(busy ? "ui.cancel" : "join.back")}</button>
      ${!busy && html`
        <button type="button" onClick=${join}>${t(error ? "chat.retry" : "join.go", { name })}</button>`}</div>`;
}

/** @param {{joined: Joined, onClose: () => void}} props */
function Done({ joined: { circle, seconds }, onClose }) {
  const show = useFocus();
  return html`
    <div role="status"><p class="strong break">${t("join.done", { name: circle.name })}</p>
      <p>${seconds < SHORT_S ? t("join.at_once") : t("join.done_text", { time: duration(seconds) })}</p></div>
    <div class="buttons"><button type="button" class="quiet" onClick=${onClose}>${t("ui.close")}</button>
      <a ref=${show} class="button" href=${href("network", "circle", circle.id)}>${t("join.show")}</a></div>`;
}

/** @param {{onClose: () => void}} props */
export function JoinDialog({ onClose }) {
  const [link, setLink] = useState("");
  const [preview, setPreview] = useState(/** @type {JoinPreview | null} */ (null));
  const [joined, setJoined] = useState(/** @type {Joined | null} */ (null));
  const shown = (/** @type {JoinPreview} */ found, /** @type {string} */ text) => {
    setLink(text);
    setPreview(found);
  };
  return html`
    <${Dialog} title=${t("join.title")} onClose=${onClose}>
      ${joined ? html`<${Done} joined=${joined} onClose=${onClose} />`
        : preview
          ? html`<${Agree} preview=${preview} link=${link} onBack=${() => setPreview(null)} onJoined=${setJoined} />`
          : html`<${Paste} before=${link} onPreview=${shown} onClose=${onClose} />`}
    <//>`;
}
