/** The node does not know who is asking: how to get in. */

import { html, useId, useState } from "../vendor/preact.js";
import { ApiError, call, locked } from "./api.js";
import { retry } from "./events.js";
import { t } from "./strings.js";
import { Fault, inlineCode, useAction } from "./ui.js";

export function Login() {
  const id = useId();
  const { busy, error, run } = useAction();
  const [token, setToken] = useState("");
  /** @param {Event} event */
  const submit = (event) => {
    event.preventDefault();
    run(async () => {
      try {
        await call("POST", "/login", { token: token.trim() });
      } catch (fault) {
        const wrong = fault instanceof ApiError && fault.status === 401;
        throw wrong ? new ApiError(401, { message: t("login.wrong"), hint: t("login.wrong_hint") }) : fault;
      }
      locked.value = false;
      retry();
    });
  };
  return html`
    <main class="page login" id="main">
      <p class="mark">pares<i>.</i></p>
      <h1>${t("login.title")}</h1>
      <p>${inlineCode(t("login.text"))}</p>
      <form onSubmit=${submit}>
        <div class="field wide"><label for=${id}>${t("login.token")}</label>
          <input id=${id} type="password" class="mono" autocomplete="off" autofocus value=${token}
            onInput=${(/** @type {any} */ event) => setToken(event.target.value)} /></div>
        ${error && html`<${Fault} error=${error} />`}
        <div class="buttons start">
          <button type="submit" disabled=${busy || !token.trim()}>${t("login.go")}</button></div>
      </form>
    </main>`;
}
