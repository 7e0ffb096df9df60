/** Small parts that every screen is made of. */

import { html, useEffect, useId, useLayoutEffect, useRef, useState } from "../vendor/preact.js";
import { asApiError } from "./api.js";
import { Icon } from "./icons.js";
import { t } from "./strings.js";

const COPIED_MS = 2000;
const EDGE = 8;

/**
 * Copy, also on an insecure address of the local network, where the clipboard of the browser is closed.
 * @param {string} text
 */
async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = Object.assign(document.createElement("textarea"), { value: text });
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

/** @param {{text: string | (() => string), label: string, words?: boolean, class?: string}} props */
export function CopyButton({ text, label, words = false, class: extra = "" }) {
  const [copied, setCopied] = useState(false);
  const act = async () => {
    await copy(typeof text === "string" ? text : text());
    setCopied(true);
    setTimeout(() => setCopied(false), COPIED_MS);
  };
  return html`
    <button type="button" class=${`tool ${extra}`} aria-label=${copied ? t("ui.copied") : label}
      title=${words ? undefined : label} onClick=${act}>
      <${Icon} name=${copied ? "check" : "copy"} />
      ${words && html`<span>${copied ? t("ui.copied") : t("ui.copy")}</span>`}
    </button>`;
}

/**
 * A button, and what opens beside it. Esc, a click elsewhere or `close()` shuts it; arrow keys move inside.
 * @param {{label: string, face: any, class?: string, role?: "menu" | "dialog", align?: "start" | "end",
 *   children: (close: () => void) => any}} props
 */
export function Popover({ label, face, class: extra = "", role = "dialog", align = "start", children }) {
  const id = useId();
  const button = useRef(/** @type {HTMLElement | null} */ (null));
  const panel = useRef(/** @type {HTMLElement | null} */ (null));
  const [open, setOpen] = useState(false);
  const close = () => panel.current?.hidePopover();

  useLayoutEffect(() => {
    if (!open || !panel.current || !button.current) return;
    const box = button.current.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height, style } = panel.current;
    const left = align === "end" ? box.right - width : box.left;
    const below = box.bottom + EDGE / 2;
    style.left = `${Math.max(EDGE, Math.min(left, innerWidth - width - EDGE))}px`;
    style.top = `${below + height > innerHeight - EDGE ? Math.max(EDGE, box.top - height - EDGE / 2) : below}px`;
    const first = panel.current.querySelector("[aria-current=true], [autofocus], [role=menuitem], button, a, input");
    /** @type {HTMLElement | null} */ (first)?.focus();
  }, [open]);

  /** @param {ToggleEvent} event */
  const onToggle = (event) => {
    setOpen(event.newState === "open");
    // What had the focus in it may have gone meanwhile, and the browser then has nowhere to return to.
    if (event.newState === "closed" && document.activeElement === document.body) button.current?.focus();
  };
  /** @param {KeyboardEvent} event */
  const onKeyDown = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || /** @type {HTMLElement} */ (event.target).matches("input, select, textarea")) return;
    event.preventDefault();
    const items = /** @type {HTMLElement[]} */ ([...(panel.current?.querySelectorAll("button, a") ?? [])]);
    const at = items.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    items[(at + step + items.length) % items.length]?.focus();
  };
  return html`
    <button type="button" ref=${button} class=${extra} popovertarget=${id} aria-label=${label} aria-haspopup=${role}
      aria-expanded=${open}>${face}</button>
    <div id=${id} ref=${panel} popover="auto" class=${`pop ${role}`} role=${role} aria-label=${label}
      onToggle=${onToggle} onKeyDown=${onKeyDown}>
      ${open && children(close)}
    </div>`;
}

/**
 * One line of a menu.
 * @param {{icon: any, onClick?: () => void, href?: string, download?: boolean, danger?: boolean,
 *   children: any}} props
 */
export const MenuItem = ({ icon, onClick, href, download = false, danger = false, children }) => href
  ? html`<a role="menuitem" class="item" href=${href} download=${download || undefined} onClick=${onClick}>
      <${Icon} name=${icon} />${children}</a>`
  : html`<button type="button" role="menuitem" class=${`item ${danger ? "danger" : ""}`} onClick=${onClick}>
      <${Icon} name=${icon} />${children}</button>`;

/** Where one goes on: where one writes, or the screen itself. */
export function focusContent() {
  const content = document.querySelector(".composer textarea") ?? document.getElementById("main");
  /** @type {HTMLElement | null} */ (content)?.focus();
}

/** For what takes the place of the thing that had the focus: it gets it. */
export function useFocus() {
  const ref = useRef(/** @type {any} */ (null));
  useEffect(() => ref.current?.focus(), []);
  return ref;
}

/**
 * A question or a form over the page; the page waits.
 * @param {{title: string, onClose: () => void, class?: string, children: any}} props
 */
export function Dialog({ title, onClose, class: extra = "", children }) {
  const box = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const id = useId();
  useEffect(() => {
    const before = /** @type {HTMLElement | null} */ (document.activeElement);
    box.current?.showModal();
    const back = () => {
      // The browser has given it back on Esc, long before this runs: whoever went on meanwhile is not called back.
      if (document.activeElement !== document.body) return;
      if (before?.isConnected && before !== document.body) before.focus();
      else focusContent();
    };
    return () => queueMicrotask(back); // once it is known whether what had the focus is still there
  }, []);
  /** @param {MouseEvent} event */
  const onBackdrop = (event) => event.target === box.current && onClose();
  return html`
    <dialog ref=${box} class=${extra} aria-labelledby=${id} onClose=${onClose} onMouseDown=${onBackdrop}>
      <div class="inside">
        <div class="headline"><h2 id=${id}>${title}</h2>
          <button type="button" class="tool" aria-label=${t("ui.close")} onClick=${onClose}>
            <${Icon} name="close" /></button>
        </div>
        ${children}
      </div>
    </dialog>`;
}

/**
 * Ask before something is lost.
 * @param {{title: string, action: string, onClose: () => void, onConfirm: () => Promise<void> | void,
 *   children: any}} props
 */
export function Confirm({ title, action, onClose, onConfirm, children }) {
  const { busy, error, run } = useAction();
  const confirm = () => run(async () => {
    await onConfirm();
    onClose();
  });
  return html`
    <${Dialog} title=${title} onClose=${onClose}>
      ${children}
      ${error && html`<${Fault} error=${error} />`}
      <div class="buttons">
        <button type="button" class="quiet" onClick=${onClose}>${t("ui.cancel")}</button>
        <button type="button" class="danger" disabled=${busy} onClick=${confirm}>${action}</button>
      </div>
    <//>`;
}

/**
 * What happened, why, and what to do now.
 * @param {{error: {message: string, hint?: string, code?: string}, children?: any}} props
 */
export const Fault = ({ error, children }) => html`
  <div class="fault" role="alert">
    <${Icon} name="warning" />
    <div><p>${error.message}</p>${error.hint && html`<p class="hint">${inlineCode(error.hint)}</p>`}
      ${children && html`<div class="buttons start">${children}</div>`}</div>
    <${CopyButton} label=${t("ui.copy_error")}
      text=${[error.message, error.hint, error.code].filter(Boolean).join("\n")} />
  </div>`;

/** Our own messages quote commands in backticks. @param {string} text */
export const inlineCode = (text) => text.split("`").map((piece, i) => (i % 2 ? html`<code>${piece}</code>` : piece));

/** @param {{value: number, max: number, label: string}} props max 0: how much there is is not known yet */
export const Progress = ({ value, max, label }) => html`
  <progress class="progress" aria-label=${label} value=${max > 0 ? value : undefined}
    max=${max > 0 ? max : undefined} />`;

/**
 * Ways through one screen, as links.
 * @param {{label: string, tabs: {href: string, name: string, count?: number}[], current: string}} props
 */
export const Tabs = ({ label, tabs, current }) => html`
  <nav class="tabs" aria-label=${label}>
    ${tabs.map((tab) => html`
      <a href=${tab.href} aria-current=${tab.href === current ? "page" : undefined}>
        ${tab.name}${tab.count ? html` <span class="num">${tab.count}</span>` : null}</a>`)}
  </nav>`;

/** Something that takes a while and may fail. */
export function useAction() {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(/** @type {import("./api.js").ApiError | null} */ (null));
  /** @param {() => Promise<unknown>} work */
  const run = async (work) => {
    setBusy(true);
    setError(null);
    try {
      await work();
    } catch (fault) {
      setError(asApiError(fault));
    } finally {
      setBusy(false);
    }
  };
  return { busy, error, run };
}

/**
 * What a request answers, fetched again when `key` changes.
 * @template T @param {string} key @param {() => Promise<T>} fetcher
 */
export function useFetched(key, fetcher) {
  const [state, setState] = useState(/** @type {{value: T | null, error: import("./api.js").ApiError | null}} */
    ({ value: null, error: null }));
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    let wanted = true;
    fetcher().then((value) => wanted && setState({ value, error: null }),
      (fault) => wanted && setState((now) => ({ ...now, error: asApiError(fault) })));
    return () => {
      wanted = false;
    };
  }, [key, turn]);
  const set = (/** @type {T} */ value) => setState({ value, error: null });
  return { ...state, again: () => setTurn((now) => now + 1), set };
}
