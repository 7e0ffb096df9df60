/** Circles as cards, and what is done with one: start, rename, leave. */

import { html, useId, useState } from "../vendor/preact.js";
import { tell } from "./announce.js";
import { call, part } from "./api.js";
import { Icon } from "./icons.js";
import { InviteDialog } from "./invite.js";
import { fetchCircles } from "./network_state.js";
import { go, href } from "./router.js";
import { t } from "./strings.js";
import { Confirm, Dialog, Fault, MenuItem, Popover, useAction } from "./ui.js";

/** @import { Circle } from "./types.js" */

export const MAX_NAME = 64;

/** @param {string} id */
export const circlePath = (id) => `/circles/${part(id)}`;

/** @param {{onClose: () => void}} props */
export function NewCircle({ onClose }) {
  const id = useId();
  const { busy, error, run } = useAction();
  const [name, setName] = useState("");
  const [open, setOpen] = useState(false);
  const [internet, setInternet] = useState(true);
  /** @param {Event} event */
  const submit = (event) => {
    event.preventDefault();
    run(async () => {
      const made = await call("POST", "/circles", { name: name.trim(), open, internet });
      await fetchCircles();
      onClose();
      go("network", "circle", made.id);
    });
  };
  return html`
    <${Dialog} title=${t("circle.start")} onClose=${onClose}>
      <form onSubmit=${submit}>
        <div class="field"><label for=${id}>${t("circle.name")}</label>
          <input id=${id} type="text" maxlength=${MAX_NAME} autofocus autocomplete="off" value=${name}
            placeholder=${t("circle.example")} onInput=${(/** @type {any} */ event) => setName(event.target.value)} />
        </div>
        <div>
          <label class="option"><input type="checkbox" checked=${internet}
            onChange=${(/** @type {any} */ event) => setInternet(event.target.checked)} />
            <span>${t("circle.internet")}<small>${t("circle.internet_hint")}</small></span></label>
          <label class="option"><input type="checkbox" checked=${open}
            onChange=${(/** @type {any} */ event) => setOpen(event.target.checked)} />
            <span>${t("circle.open")}<small>${t("circle.open_hint")}</small></span></label>
        </div>
        ${error && html`<${Fault} error=${error} />`}
        <div class="buttons"><button type="button" class="quiet" onClick=${onClose}>${t("ui.cancel")}</button>
          <button type="submit" disabled=${busy || !name.trim()}>${t("circle.make")}</button></div>
      </form>
    <//>`;
}

/** @param {{circle: Circle, onClose: () => void}} props */
function Rename({ circle, onClose }) {
  const id = useId();
  const { busy, error, run } = useAction();
  const [name, setName] = useState(circle.name);
  /** @param {Event} event */
  const submit = (event) => {
    event.preventDefault();
    run(async () => {
      await call("PATCH", circlePath(circle.id), { name: name.trim() });
      await fetchCircles();
      onClose();
    });
  };
  return html`
    <${Dialog} title=${t("circle.rename_title", { name: circle.name })} onClose=${onClose}>
      <form onSubmit=${submit}>
        <div class="field"><label for=${id}>${t("circle.name")}</label>
          <input id=${id} type="text" maxlength=${MAX_NAME} autofocus autocomplete="off" value=${name}
            aria-describedby=${`${id}-hint`} onInput=${(/** @type {any} */ event) => setName(event.target.value)} />
          <p id=${`${id}-hint`} class="fine">
            ${t(circle.role === "founder" ? "circle.rename_founder" : "circle.rename_member")}</p></div>
        ${error && html`<${Fault} error=${error} />`}
        <div class="buttons"><button type="button" class="quiet" onClick=${onClose}>${t("ui.cancel")}</button>
          <button type="submit" disabled=${busy || !name.trim()}>${t("circle.save")}</button></div>
      </form>
    <//>`;
}

/** @param {{circle: Circle, onClose: () => void}} props */
function Leave({ circle, onClose }) {
  const leave = async () => {
    await call("DELETE", circlePath(circle.id));
    await fetchCircles();
    tell(t("circle.left", { name: circle.name }));
    go("network");
  };
  return html`
    <${Confirm} title=${t("circle.leave_title", { name: circle.name })} action=${t("circle.leave")}
      onClose=${onClose} onConfirm=${leave}><p>${t("circle.leave_text")}</p><//>`;
}

/** Invite, rename, leave. @param {{circle: Circle}} props */
export function CircleActions({ circle }) {
  const [asking, setAsking] = useState(/** @type {"" | "invite" | "rename" | "leave"} */ (""));
  const close = () => setAsking("");
  return html`
    ${circle.can_invite && html`
      <button type="button" class="gentle" aria-label=${t("circle.invite_named", { name: circle.name })}
        onClick=${() => setAsking("invite")}><${Icon} name="add" />${t("circle.invite")}</button>`}
    <${Popover} class="tool" role="menu" align="end" label=${t("circle.more", { name: circle.name })}
      face=${html`<${Icon} name="more" />`}>
      ${(/** @type {() => void} */ shut) => {
        const ask = (/** @type {"rename" | "leave"} */ what) => () => {
          shut();
          setAsking(what);
        };
        return html`
          <${MenuItem} icon="edit" onClick=${ask("rename")}>${t("circle.rename")}<//>
          <${MenuItem} icon="cross" danger onClick=${ask("leave")}>${t("circle.leave")}<//>`;
      }}
    <//>
    ${asking === "invite" && html`<${InviteDialog} circle=${circle} onClose=${close} />`}
    ${asking === "rename" && html`<${Rename} circle=${circle} onClose=${close} />`}
    ${asking === "leave" && html`<${Leave} circle=${circle} onClose=${close} />`}`;
}

/** What kind of circle it is, and what one is in it. @param {{circle: Circle}} props */
export const CircleWords = ({ circle }) => html`
  <p class="chips">
    <span class="chip">${t(`circle.role_${circle.role}`)}</span>
    ${circle.open && html`<span class="chip warn">${t("circle.commons")}</span>`}
    <span class="chip">${t(circle.internet ? "circle.by_internet" : "circle.not_by_internet")}</span></p>
  ${circle.title !== circle.name && html`
    <p class="fine break">${t("circle.own_title", { title: circle.title })}</p>`}`;

/** @param {Circle} circle */
export const countWords = (circle) => [
  t("circle.members", { n: circle.members }), circle.members > 1 ? t("circle.online", { n: circle.online }) : "",
  circle.role === "founder" ? "" : t("circle.by", { name: circle.founder.name }),
].filter(Boolean).join(" · ");

/** @param {{rows: Circle[]}} props */
export const CircleCards = ({ rows }) => html`
  <section aria-label=${t("network.circles")}><h2>${t("network.circles")}</h2>
    <ul class="cards">${rows.map((circle) => html`
      <li class="card" key=${circle.id}>
        <h3 class="break">${circle.name}</h3>
        <p class="fine num">${countWords(circle)}</p>
        <${CircleWords} circle=${circle} />
        <div class="buttons start">
          <a class="button quiet" href=${href("network", "circle", circle.id)}
            aria-label=${t("circle.show_named", { name: circle.name })}>${t("circle.show")}</a>
          <${CircleActions} circle=${circle} /></div>
      </li>`)}</ul></section>`;
