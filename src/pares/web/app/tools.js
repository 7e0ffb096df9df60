/** How to use this node from other programs: addresses to copy. */

import { html } from "../vendor/preact.js";
import { model } from "./chat_state.js";
import { href } from "./router.js";
import { status } from "./state.js";
import { t } from "./strings.js";
import { CopyButton, inlineCode } from "./ui.js";

/** @param {{title: string, text: string, children: any}} props */
const Block = ({ title, text, children }) => html`
  <section><h2>${title}</h2><p>${inlineCode(text)}</p>${children}</section>`;

/** @param {{name: string, value: string}} props */
const Address = ({ name, value }) => html`
  <div class="address"><span>${name}</span><code class="break">${value}</code>
    <${CopyButton} text=${value} label=${t("tools.copy", { name })} words /></div>`;

/** @param {{name: string, text: string}} props */
const Sample = ({ name, text }) => html`
  <figure class="code">
    <figcaption><span>${name}</span><${CopyButton} text=${text} label=${t("tools.copy", { name })} words /></figcaption>
    <pre tabindex="0" aria-label=${name}><code>${text}</code></pre></figure>`;

export function Tools() {
  const origin = location.origin;
  const name = model.value || t("tools.your_model");
  const key = status.value?.key_required ? "YOUR_KEY" : "pares";
  const python = `from openai import OpenAI

client = OpenAI(base_url="${origin}/v1", api_key="${key}")
answer = client.chat.completions.create(
    model="${name}",
    messages=[{"role": "user", "content": "Why is the sky blue?"}],
)
print(answer.choices[0].message.content)`;
  const curl = `curl ${origin}/v1/chat/completions \\
  -H "Authorization: Bearer ${key}" -H "Content-Type: application/json" \\
  -d '{"model": "${name}", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}'`;
  return html`
    <p class="lead">${t("tools.text")}</p>
    <p class="fine">${t(status.value?.key_required ? "tools.key_needed" : "tools.no_key")}
      ${" "}<a href=${href("settings", "keys")}>${t("tools.make_key")}</a></p>
    <${Block} title=${t("tools.openai")} text=${t("tools.openai_text")}>
      <${Address} name=${t("tools.base_url")} value=${`${origin}/v1`} />
      <${Address} name=${t("tools.environment")} value=${`OPENAI_BASE_URL=${origin}/v1 OPENAI_API_KEY=${key}`} />
      <${Sample} name="Python" text=${python} />
      <${Sample} name="curl" text=${curl} />
    <//>
    <${Block} title=${t("tools.ollama")} text=${t("tools.ollama_text")}>
      <${Address} name=${t("tools.host")} value=${origin} />
      <${Address} name=${t("tools.environment")} value=${`OLLAMA_HOST=${origin}`} />
    <//>
    <${Block} title=${t("tools.control")} text=${t("tools.control_text")}>
      <${Address} name=${t("tools.document")} value=${`${origin}/pares/v1/openapi.json`} />
    <//>`;
}
