/** Where on the page we are: `#/screen/rest/of/it`. */

import { signal } from "../vendor/preact.js";

/** @returns {string[]} */
const read = () => location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decodeSafely);

/** @param {string} text */
function decodeSafely(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** @type {import("../vendor/preact.js").Signal<string[]>} */
export const route = signal(read());

addEventListener("hashchange", () => (route.value = read()));

/** @param {...string} parts */
export const href = (...parts) => `#/${parts.map(encodeURIComponent).join("/")}`;

/** The same place under another name: no step back in the browser. @param {...string} parts */
export function rename(...parts) {
  history.replaceState(null, "", href(...parts));
  route.value = read();
}

/** @param {...string} parts */
export function go(...parts) {
  location.hash = href(...parts);
  route.value = read();
}
