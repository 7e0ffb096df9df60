/** Keys for programs: made once, shown once, revoked for good. */

import { html, useId, useState } from "../vendor/preact.js";
import { tell } from "./announce.js";
import { call, part } from "./api.js";
import { ago } from "./format.js";
import { t } from "./strings.js";
import { Confirm, CopyButton, Fault, useAction, useFetched } from "./ui.js";

/** @import { Key, NewKey } from "./types.js" */

/** @param {{fresh: NewKey, onDone: () => void}} props */
const Fresh = ({ fresh, onDone }) => html`
  <div class="fresh" role="status">
    <p><strong>${t("keys_page.fresh", { name: fresh.info.name })}</strong></p>
    <p class="line"><code class="break">${fresh.key}</code>
      <${CopyButton} text=${fresh.key} label=${t("keys_page.copy")} words /></p>
    <p class="fine">${t("keys_page.fresh_hint")}</p>
    <div class="buttons start">
      <button type="button" class="quiet" onClick=${onDone}>${t("keys_page.have_it")}</button></div>
  </div>`;

/** @param {{onMade: (fresh: NewKey) => void}} props */
function Make({ onMade }) {
  const id = useId();
  const { busy, error, run } = useAction();
  const [name, setName] = useState("");
  const [admin, setAdmin] = useState(false);
  /** @param {Event} event */
  const submit = (event) => {
    event.preventDefault();
    run(async () => {
      onMade(await call("POST", "/keys", { name: name.trim(), scopes: admin ? ["infer", "admin"] : ["infer"] }));
      setName("");
      setAdmin(false);
    });
  };
  return html`
    <form class="add" onSubmit=${submit}>
      <label for=${id}>${t("keys_page.name")}</label>
      <div class="line">
        <input id=${id} type="text" maxlength="100" autocomplete="off" value=${name}
          placeholder=${t("keys_page.example")} onInput=${(/** @type {any} */ event) => setName(event.target.value)} />
        <button type="submit" disabled=${busy || !name.trim()}>${t("keys_page.make")}</button></div>
      <label class="option">
        <input type="checkbox" checked=${admin}
          onChange=${(/** @type {any} */ event) => setAdmin(event.target.checked)} />
        <span>${t("keys_page.admin")}<small>${t("keys_page.admin_hint")}</small></span></label>
      ${error && html`<${Fault} error=${error} />`}
    </form>`;
}

/** @param {{row: Key, onRevoke: (key: Key) => void}} props */
const KeyRow = ({ row, onRevoke }) => html`
  <li class="row"><div class="row-head">
    <div class="row-name"><strong>${row.name}</strong>
      ${row.scopes.map((scope) => html`${" "}<span class="chip">${t(`keys_page.scope_${scope}`)}</span>`)}
      ${row.revoked && html`${" "}<span class="chip bad">${t("keys_page.revoked")}</span>`}
      <p class="fine">${t("keys_page.made", { when: ago(row.created_at) })} · ${row.last_used_at
        ? t("keys_page.used", { when: ago(row.last_used_at) }) : t("keys_page.unused")}</p></div>
    ${!row.revoked && html`
      <button type="button" class="quiet" aria-label=${t("keys_page.revoke_named", { name: row.name })}
        onClick=${() => onRevoke(row)}>${t("keys_page.revoke")}</button>`}
  </div></li>`;

/** @returns {Promise<Key[]>} */
const keys = async () => (await call("GET", "/keys")).keys;

export function Keys() {
  const { value, error, again } = useFetched("keys", keys);
  const [fresh, setFresh] = useState(/** @type {NewKey | null} */ (null));
  const [revoking, setRevoking] = useState(/** @type {Key | null} */ (null));
  const revoke = async () => {
    if (!revoking) return;
    await call("DELETE", `/keys/${part(revoking.id)}`);
    tell(t("keys_page.revoked_note", { name: revoking.name }));
    again();
  };
  const made = (/** @type {NewKey} */ key) => {
    setFresh(key);
    again();
  };
  return html`
    <p class="lead">${t("keys_page.text")}</p>
    ${fresh ? html`<${Fresh} fresh=${fresh} onDone=${() => setFresh(null)} />` : html`<${Make} onMade=${made} />`}
    ${error && html`<${Fault} error=${error} />`}
    ${value?.length === 0 && html`<p class="empty">${t("keys_page.none")}</p>`}
    <ul class="rows">${value?.map((key) => html`<${KeyRow} key=${key.id} row=${key} onRevoke=${setRevoking} />`)}</ul>
    ${revoking && html`
      <${Confirm} title=${t("keys_page.revoke_named", { name: revoking.name })} action=${t("keys_page.revoke")}
        onClose=${() => setRevoking(null)} onConfirm=${revoke}>
        <p>${t("keys_page.revoke_text")}</p><//>`}`;
}
