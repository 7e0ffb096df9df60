/** Facts of a file as it states them. */

import { html } from "../vendor/preact.js";
import { count } from "./format.js";
import { t } from "./strings.js";

/** @param {unknown} value */
const written = (value) => (typeof value === "number" && Number.isInteger(value) ? count(value)
  : typeof value === "string" ? value : JSON.stringify(value));

/** @param {{facts: Record<string, unknown>, label: string}} props */
export const FactTable = ({ facts, label }) => html`
  <div class="scroll" tabindex="0" role="region" aria-label=${label}><table class="facts-table">
    <thead class="unseen"><tr>
      <th scope="col">${t("inspect.key")}</th><th scope="col">${t("inspect.value")}</th></tr></thead>
    <tbody>${Object.entries(facts).map(([key, value]) => html`
      <tr key=${key}><th scope="row" class="mono">${key}</th><td class="break">${written(value)}</td></tr>`)}</tbody>
  </table></div>`;
