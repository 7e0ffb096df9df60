/** An invite: for how long, how many and as what; then the link, and who comes in by it while one waits. */

import { html, useEffect, useId, useState } from "../vendor/preact.js";
import { tell } from "./announce.js";
import { call, part } from "./api.js";
import { moment } from "./format.js";
import { Icon } from "./icons.js";
import { onEvent } from "./state.js";
import { t } from "./strings.js";
import { CopyButton, Dialog, Fault, useAction, useFocus } from "./ui.js";

/** @import { Circle, Invite, Who } from "./types.js" */

const HOUR_S = 3600;
const SPANS = /** @type {const} */ ({ hour: HOUR_S, day: 24 * HOUR_S, week: 168 * HOUR_S, month: 720 * HOUR_S });
const ROLES = /** @type {const} */ (["member", "guest"]);
const MAX_USES = 1000;

/** @param {{circle: Circle, onMade: (invite: Invite) => void, onClose: () => void}} props */
function Make({ circle, onMade, onClose }) {
  const id = useId();
  const { busy, error, run } = useAction();
  const [span, setSpan] = useState(/** @type {keyof typeof SPANS} */ ("day"));
  const [uses, setUses] = useState(1);
  const [role, setRole] = useState(/** @type {"member" | "guest"} */ ("member"));
  /** @param {Event} event */
  const submit = (event) => {
    event.preventDefault();
    run(async () => onMade(await call("POST", `/circles/${part(circle.id)}/invites`,
      { expires_s: SPANS[span], uses, role })));
  };
  return html`
    <form onSubmit=${submit}>
      <div class="dials">
        <div class="field"><label for=${`${id}-span`}>${t("invite.expires")}</label>
          <select id=${`${id}-span`} autofocus value=${span}
            onChange=${(/** @type {any} */ event) => setSpan(event.target.value)}>
            ${Object.keys(SPANS).map((key) => html`<option value=${key}>${t(`invite.${key}`)}</option>`)}</select></div>
        <div class="field"><label for=${`${id}-uses`}>${t("invite.uses")}</label>
          <input id=${`${id}-uses`} type="number" min="1" max=${MAX_USES} required value=${uses}
            aria-describedby=${`${id}-hint`}
            onInput=${(/** @type {any} */ event) => setUses(event.target.valueAsNumber || 0)} />
          <p id=${`${id}-hint`} class="fine">${t("invite.uses_hint")}</p></div>
      </div>
      <fieldset><legend>${t("invite.role")}</legend>
        ${ROLES.map((name) => html`
          <label class="option"><input type="radio" name="role" checked=${role === name}
            onChange=${() => setRole(name)} />
            <span>${t(`invite.${name}`)}<small>${t(`invite.${name}_hint`)}</small></span></label>`)}</fieldset>
      ${error && html`<${Fault} error=${error} />`}
      <div class="buttons"><button type="button" class="quiet" onClick=${onClose}>${t("ui.cancel")}</button>
        <button type="submit" disabled=${busy || uses < 1}>${t("invite.make")}</button></div>
    </form>`;
}

/** Who came in by it so far, as it happens. @param {Invite} invite @returns {Who[]} */
function useJoined(invite) {
  const [joined, setJoined] = useState(invite.joined);
  useEffect(() => onEvent(async (kind, data) => {
    if (kind === "joined" && data.invite === invite.id) {
      setJoined((now) => [...now.filter((other) => other.id !== data.peer.id), data.peer]);
    } else if (kind === "up") { // what happened while nobody listened
      const { invites } = await call("GET", `/circles/${part(invite.circle)}`).catch(() => ({ invites: [] }));
      const now = invites.find((/** @type {Invite} */ other) => other.id === invite.id);
      if (now) setJoined(now.joined);
    }
  }), [invite.id]);
  return joined;
}

/** @param {{invite: Invite, onClose: () => void}} props */
function Waiting({ invite, onClose }) {
  const { busy, error, run } = useAction();
  const joined = useJoined(invite);
  const link = useFocus();
  const left = invite.uses_left + invite.joined.length - joined.length;
  const withdraw = () => run(async () => {
    await call("DELETE", `/circles/${part(invite.circle)}/invites/${part(invite.id)}`);
    tell(t("invite.withdrawn"));
    onClose();
  });
  return html`
    <p>${t("invite.text")}</p>
    <div class="ticket">
      <div class="ticket-link"><p class="fine" aria-hidden="true">${t("invite.link")}</p>
        <code ref=${link} tabindex="-1" class="break" role="group" aria-label=${t("invite.link")}>${invite.link}</code>
        <${CopyButton} text=${invite.link} label=${t("invite.copy")} words class="gentle" />
        <p class="fine num">${t(`invite.as_${invite.role}`)}: ${left > 0
          ? t("invite.left", { n: left, when: moment(invite.expires_at) }) : t("invite.spent")}</p></div>
      <img class="qr" alt=${t("invite.qr")} src=${`data:image/svg+xml,${encodeURIComponent(standalone(invite.qr))}`} />
    </div>
    <div role="status">
      ${joined.map((each) => html`<p key=${each.id} class="came"><${Icon} name="check" />
        ${t("invite.joined", { name: each.name, words: each.words })}</p>`)}
      ${left > 0 && html`<p class="came"><span class="caret" aria-hidden="true" />${t("invite.waiting")}</p>`}
    </div>
    ${error && html`<${Fault} error=${error} />`}
    <div class="buttons">
      <button type="button" class="quiet" disabled=${busy} onClick=${withdraw}>${t("invite.withdraw")}</button>
      <button type="button" onClick=${onClose}>${t("invite.done")}</button></div>`;
}

const NAMESPACE = 'xmlns="http://www.w3.org/2000/svg"';

/**
 * An SVG written to stand in a page, as a document of its own: shown as an image it can neither run nor fetch anything.
 * @param {string} svg
 */
const standalone = (svg) => (svg.includes(NAMESPACE) ? svg : svg.replace("<svg", `<svg ${NAMESPACE}`));

/** @param {{circle: Circle, made?: Invite | null, onClose: () => void}} props */
export function InviteDialog({ circle, made = null, onClose }) {
  const [invite, setInvite] = useState(made);
  return html`
    <${Dialog} title=${t("invite.title", { circle: circle.name })} onClose=${onClose}>
      ${invite ? html`<${Waiting} invite=${invite} onClose=${onClose} />`
        : html`<${Make} circle=${circle} onMade=${setInvite} onClose=${onClose} />`}
    <//>`;
}
