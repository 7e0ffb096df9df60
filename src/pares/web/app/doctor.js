/** Whether this node is well, and what it has been doing. */

import { html, useEffect, useRef, useState } from "../vendor/preact.js";
import { asApiError, call } from "./api.js";
import { Icon } from "./icons.js";
import { connected } from "./state.js";
import { t } from "./strings.js";
import { CopyButton, Fault, inlineCode, useFetched } from "./ui.js";

/** @import { Check } from "./types.js" */
/** @typedef {{id: number, time: string, level: string, event: string, fields: Record<string, unknown>}} Line */

const POLL_MS = 2000;
const KEPT = 500;
const LOOKS = /** @type {const} */ ({ ok: ["ok", "check"], warning: ["warn", "warning"], problem: ["bad", "cross"] });

/** @returns {Promise<Check[]>} */
const checks = async () => (await call("GET", "/doctor")).checks;

export function Doctor() {
  const { value, error, again } = useFetched("doctor", checks);
  const wrong = value?.filter((check) => check.state !== "ok").length ?? 0;
  const report = () => (value ?? []).map(({ state, name, message, hint }) =>
    `[${state}] ${name}: ${message} ${hint}`.trim()).join("\n");
  return html`
    <div class="line spread">
      <p class="lead" role="status">${value ? t("doctor.result", { n: wrong }) : error ? "" : t("doctor.looking")}</p>
      <span class="buttons">
        <${CopyButton} text=${report} label=${t("doctor.copy")} words />
        <button type="button" class="quiet" onClick=${again}><${Icon} name="retry" />${t("doctor.again")}</button>
      </span>
    </div>
    ${error && html`<${Fault} error=${error} />`}
    <ul class="checks">${value?.map((check) => html`
      <li key=${check.name} class=${LOOKS[check.state][0]}>
        <span class="check-mark"><${Icon} name=${LOOKS[check.state][1]} /></span>
        <div><strong>${check.name}</strong> <span class="fine">${t(`doctor.${check.state}`)}</span>
          <p>${inlineCode(check.message)}</p>
          ${check.hint && html`<p class="hint">${inlineCode(check.hint)}</p>`}</div></li>`)}</ul>`;
}

/** @param {Line} line */
const fieldsOf = (line) => Object.entries(line.fields)
  .map(([key, value]) => `${key}=${typeof value === "string" ? value : JSON.stringify(value)}`).join(" ");

/** @param {Line} line */
const written = (line) => `${line.time} ${line.level} ${line.event} ${fieldsOf(line)}`.trimEnd();

export function Logs() {
  const [lines, setLines] = useState(/** @type {Line[]} */ ([]));
  const [error, setError] = useState(/** @type {import("./api.js").ApiError | null} */ (null));
  const last = useRef(0);
  const end = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => {
    const abort = new AbortController();
    const poll = async () => {
      if (document.hidden || !connected.value) return;
      try {
        const { lines: more } = await call("GET", `/logs?after=${last.current}&limit=${KEPT}`, undefined, abort.signal);
        last.current = more.at(-1)?.id ?? last.current;
        if (more.length) setLines((now) => [...now, ...more].slice(-KEPT));
        setError(null);
      } catch (fault) {
        if (!abort.signal.aborted) setError(asApiError(fault));
      }
    };
    poll();
    const timer = setInterval(poll, POLL_MS);
    return () => {
      abort.abort();
      clearInterval(timer);
    };
  }, []);
  useEffect(() => end.current?.scrollTo({ top: end.current.scrollHeight }), [lines]);
  return html`
    <div class="line spread">
      <p class="fine">${t("log.text")}</p>
      <${CopyButton} text=${() => lines.map(written).join("\n")} label=${t("log.copy")} words />
    </div>
    ${error && html`<${Fault} error=${error} />`}
    <div class="log-lines" ref=${end} tabindex="0" role="region" aria-label=${t("log.title")}>
      ${lines.length === 0 && html`<p class="empty">${t("log.none")}</p>`}
      ${lines.map((line) => html`
        <p key=${line.id} class=${`log-line ${line.level}`}>
          <time datetime=${line.time}>${new Date(line.time).toLocaleTimeString([], { hour12: false })}</time>
          <b>${line.level}</b> <span>${line.event}</span> <i>${fieldsOf(line)}</i></p>`)}
    </div>`;
}
