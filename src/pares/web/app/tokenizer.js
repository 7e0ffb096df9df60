/** The tokens of a model: facts, search, and leafing through. */

import { html, useEffect, useState } from "../vendor/preact.js";
import { call, part } from "./api.js";
import { FactTable } from "./facts.js";
import { count } from "./format.js";
import { Icon } from "./icons.js";
import { t } from "./strings.js";
import { Fault, useFetched } from "./ui.js";

/** @import { ModelDetail } from "./types.js" */
/** @typedef {{id: number, text: string, bytes: string, kind: string}} Token */

const PAGE = 100;
const SEARCH_MS = 200;

/** White space made visible. @param {string} text */
const visible = (text) => text.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll("\r", "␍");

/** @param {{detail: ModelDetail}} props */
export function TokenizerTab({ detail }) {
  const [typed, setTyped] = useState("");
  const [place, setPlace] = useState({ search: "", offset: 0 });
  useEffect(() => {
    if (typed === place.search) return undefined;
    const timer = setTimeout(() => setPlace({ search: typed, offset: 0 }), SEARCH_MS);
    return () => clearTimeout(timer);
  }, [typed]);
  const { name } = detail.row;
  const path = `/models/${part(name)}/tokens?search=${part(place.search)}&offset=${place.offset}&limit=${PAGE}`;
  const { value, error } = useFetched(path, async () =>
    /** @type {{total: number, tokens: Token[]}} */ (await call("GET", path)));
  const total = value?.total ?? 0;
  const turn = (/** @type {number} */ by) => setPlace({ ...place, offset: place.offset + by });
  return html`
    <${FactTable} facts=${detail.tokenizer} label=${t("inspect.tab_tokenizer")} />
    <section><h2>${t("tokens.title")}</h2>
      <div class="filter">
        <input type="search" aria-label=${t("tokens.search")} placeholder=${t("tokens.search")} value=${typed}
          onInput=${(/** @type {any} */ event) => setTyped(event.target.value)} />
        <span class="fine num" role="status">${total ? t("tokens.range", {
          from: count(place.offset + 1), to: count(Math.min(place.offset + PAGE, total)), total: count(total),
        }) : value ? t("tokens.none") : ""}</span>
        <span class="fill" />
        <button type="button" class="tool" aria-label=${t("tokens.back")} disabled=${place.offset === 0}
          onClick=${() => turn(-PAGE)}><${Icon} name="back" /></button>
        <button type="button" class="tool" aria-label=${t("tokens.forward")} disabled=${place.offset + PAGE >= total}
          onClick=${() => turn(PAGE)}><${Icon} name="forward" /></button>
      </div>
      ${error && html`<${Fault} error=${error} />`}
      <div class="scroll" tabindex="0" role="region" aria-label=${t("tokens.title")}><table class="grid tokens">
        <thead><tr><th scope="col" class="to-right">${t("tokens.id")}</th>
          ${["text", "bytes", "kind"].map((key) => html`<th scope="col">${t(`tokens.${key}`)}</th>`)}</tr></thead>
        <tbody>${(value?.tokens ?? []).map((token) => html`
          <tr key=${token.id}><th scope="row" class="num to-right">${count(token.id)}</th>
            <td><code class="token">${visible(token.text)}</code></td>
            <td class="mono fine">${token.bytes}</td><td class="fine">${token.kind}</td></tr>`)}</tbody>
      </table></div>
    </section>`;
}
