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
    <p class="line"><code class="secret break">${fresh.key}</code><${CopyButton} text=${fresh.key} label=${t("keys_page.copy")} words /></p>
    <p class="fine">${t("keys_page.fresh_hint")}</p>
    <div class="buttons start"><button type="button" class="quiet" onClick=${onDone}>${t("keys_page.have_it")}</button></div>
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
      <div class="line"><input id=${id} type="text" maxlength="100" autocomplete="off" value=${name} placeholder=${t("keys_page.example")}
        onInput=${(/** @type {any} */ event) => setName(event.target.value)} />
        <button type="submit" disabled=${busy || !name.trim()}>${t("keys_page.make")}</button></div>
      <label class="option"><input type="checkbox" checked=${admin} onChange=${(/** @type {any} */ event) => setAdmin(event.target.checked)} />
        <span>${t("keys_page.admin")}<small>${t("keys_page.admin_hint")}</small></span></label>
      ${error && html`<${Fault} error=${error} />`}
    </form>`;
}

export function Keys() {
  const { value, error, again } = useFetched("keys", async () => /** @type {Key[]} */ ((await call("GET", "/keys")).keys));
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
    <ul class="rows">${value?.map((key) => html`
      <li class="row" key=${key.id}><div class="row-head">
        <div class="row-name"><strong>${key.name}</strong>${key.scopes.map((scope) => html` <span class="chip">${t(`keys_page.scope_${scope}`)}</span>`)}
          ${key.revoked && html` <span class="chip bad">${t("keys_page.revoked")}</span>`}
          <p class="fine">${t("keys_page.made", { when: ago(key.created_at) })} · ${key.last_used_at
            ? t("keys_page.used", { when: ago(key.last_used_at) }) : t("keys_page.unused")}</p></div>
        ${!key.revoked && html`<div class="buttons"><button type="button" class="quiet" aria-label=${t("keys_page.revoke_named", { name: key.name })}
          onClick=${() => setRevoking(key)}>${t("keys_page.revoke")}</button></div>`}
      </div></li>`)}</ul>
    ${revoking && html`
      <${Confirm} title=${t("keys_page.revoke_named", { name: revoking.name })} action=${t("keys_page.revoke")} onClose=${() => setRevoking(null)} onConfirm=${revoke}>
        <p>${t("keys_page.revoke_text")}</p><//>`}`;
}
