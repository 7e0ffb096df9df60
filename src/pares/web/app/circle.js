/** One circle: who belongs to it, who is invited. */

import { html, useState } from "../vendor/preact.js";
import { tell } from "./announce.js";
import { call, part } from "./api.js";
import { CircleActions, CircleWords, circlePath, countWords } from "./circles.js";
import { moment } from "./format.js";
import { Icon } from "./icons.js";
import { InviteDialog } from "./invite.js";
import { changes, peerOf } from "./network_state.js";
import { href } from "./router.js";
import { t } from "./strings.js";
import { Confirm, Fault, useAction, useFetched } from "./ui.js";

/** @import { CircleDetail, Invite, Member } from "./types.js" */

const SHOWN = 100;

/** Whom this node may remove: all if it founded the circle, else whom it invited. @param {CircleDetail} detail */
function removable({ circle, members }) {
  const byId = new Map(members.map((member) => [member.id, member]));
  const me = members.find((member) => member.you);
  /** @param {Member} member */
  return (member) => {
    if (member.you || !me) return false;
    if (circle.role === "founder") return true;
    if (circle.open) return false;
    const seen = new Set();
    for (let above = byId.get(member.invited_by); above && !seen.has(above.id); above = byId.get(above.invited_by)) {
      if (above.you) return true;
      seen.add(above.id);
    }
    return false;
  };
}

/** @param {{member: Member, detail: CircleDetail, onRemove: (() => void) | null}} props */
function MemberRow({ member, detail, onRemove }) {
  const online = member.you || (peerOf(member.id)?.online ?? member.online);
  const inviter = detail.members.find((other) => other.id === member.invited_by);
  const by = member.role === "founder" ? t("circle.nobody") : inviter?.name
    ?? t(detail.circle.open ? "circle.themselves" : "circle.formerly");
  return html`
    <tr>
      <th scope="row" class="break">
        ${member.you ? html`<strong>${member.name}</strong> <span class="chip ok">${t("circle.you")}</span>`
          : html`<a href=${href("network", "peer", member.id)}>${member.name}</a>`}
        <span class="fingerprint">${member.words}</span>
        <span class="narrow-only fine">${t(`circle.is_${member.role}`)}</span></th>
      <td><span class=${`chip ${online ? "ok" : ""}`}><span aria-hidden="true">${online ? "●" : "○"}</span>
        ${" "}${t(online ? "circle.online_now" : "circle.away")}</span></td>
      <td class="wide-only">${t(`circle.is_${member.role}`)}</td>
      <td class="wide-only break">${by}</td>
      <td class="wide-only num">${moment(member.since)}</td>
      <td class="to-right">${onRemove && html`
        <button type="button" class="tool" aria-label=${t("circle.remove_named", { name: member.name })}
          title=${t("circle.remove_named", { name: member.name })} onClick=${onRemove}>
          <${Icon} name="trash" /></button>`}</td>
    </tr>`;
}

/** @param {{detail: CircleDetail, onChange: () => void}} props */
function Members({ detail, onChange }) {
  const { circle } = detail;
  const [all, setAll] = useState(false);
  const [removing, setRemoving] = useState(/** @type {Member | null} */ (null));
  const mayRemove = removable(detail);
  const rows = all ? detail.members : detail.members.slice(0, SHOWN);
  const remove = async () => {
    if (!removing) return;
    await call("DELETE", `${circlePath(circle.id)}/members/${part(removing.id)}`);
    tell(t("circle.removed", { name: removing.name, circle: circle.name }));
    onChange();
  };
  return html`
    <section><h2>${t("circle.members_title")}</h2>
      ${detail.members.length === 1 && html`<p class="lead">${t("circle.alone")}</p>`}
      <div class="scroll" tabindex="0" role="region" aria-label=${t("circle.members_title")}>
        <table class="grid people">
          <thead><tr><th scope="col">${t("circle.who")}</th><th scope="col">${t("circle.now")}</th>
            ${["role", "invited_by", "since"].map((key) => html`
              <th scope="col" class="wide-only">${t(`circle.${key}`)}</th>`)}
            <th scope="col"><span class="unseen">${t("circle.remove")}</span></th></tr></thead>
          <tbody>${rows.map((member) => html`
            <${MemberRow} key=${member.id} member=${member} detail=${detail}
              onRemove=${mayRemove(member) ? () => setRemoving(member) : null} />`)}</tbody>
        </table></div>
      ${rows.length < detail.members.length && html`
        <button type="button" class="quiet" onClick=${() => setAll(true)}>
          ${t("circle.all", { n: detail.members.length })}</button>`}
      ${removing && html`
        <${Confirm} title=${t("circle.remove_title", { name: removing.name, circle: circle.name })}
          action=${t("circle.remove")} onClose=${() => setRemoving(null)} onConfirm=${remove}>
          <p class="fingerprint">${removing.words}</p><p>${t("circle.remove_text")}</p><//>`}
    </section>`;
}

/** @param {{invite: Invite, detail: CircleDetail, onChange: () => void}} props */
function InviteRow({ invite, detail, onChange }) {
  const { busy, error, run } = useAction();
  const [shown, setShown] = useState(false);
  const withdraw = () => run(async () => {
    await call("DELETE", `${circlePath(invite.circle)}/invites/${part(invite.id)}`);
    tell(t("invite.withdrawn"));
    onChange();
  });
  const came = invite.joined.map((each) => each.name).join(", ");
  return html`
    <li class="row"><div class="row-head">
      <div><strong>${t(`invite.as_${invite.role}`)}</strong>
        <p class="fine num">${invite.uses_left > 0
          ? t("invite.left", { n: invite.uses_left, when: moment(invite.expires_at) }) : t("invite.spent")}</p>
        ${came && html`<p class="fine break">${t("invite.came", { n: invite.joined.length, names: came })}</p>`}</div>
      <div class="buttons">
        ${invite.link && invite.uses_left > 0 && html`
          <button type="button" class="quiet" onClick=${() => setShown(true)}>${t("invite.show")}</button>`}
        <button type="button" class="quiet" disabled=${busy} onClick=${withdraw}>${t("invite.withdraw")}</button></div>
    </div>
    ${error && html`<${Fault} error=${error} />`}
    ${shown && html`
      <${InviteDialog} circle=${detail.circle} made=${invite} onClose=${() => setShown(false)} />`}</li>`;
}

/** @param {{id: string}} props */
export function CirclePage({ id }) {
  const { value: detail, error, again } = useFetched(`${id} ${changes.value}`, async () =>
    /** @type {CircleDetail} */ (await call("GET", circlePath(id))));
  return html`
    <div class="page">
      <a class="tool up" href=${href("network")}><${Icon} name="back" />${t("network.back")}</a>
      <header class="page-head"><h1 class="break">${detail?.circle.name ?? t("network.title")}</h1>
        ${detail && html`<div class="buttons"><${CircleActions} circle=${detail.circle} /></div>`}</header>
      ${error && html`<${Fault} error=${error}>
        <button type="button" class="quiet" onClick=${again}>${t("chat.retry")}</button><//>`}
      ${detail && !error && html`
        <p class="fine num" role="status">${countWords(detail.circle)}</p>
        <${CircleWords} circle=${detail.circle} />
        <${Members} detail=${detail} onChange=${again} />
        ${detail.circle.can_invite && html`
          <section aria-label=${t("circle.invites")}><h2>${t("circle.invites")}</h2>
            ${detail.invites.length === 0 && html`<p class="empty">${t("circle.no_invites")}</p>`}
            <ul class="rows">${detail.invites.map((invite) => html`
              <${InviteRow} key=${invite.id} invite=${invite} detail=${detail} onChange=${again} />`)}</ul>
          </section>`}`}
    </div>`;
}
