/** Light, dark, or as the system says; kept in this browser only. */

import { signal } from "../vendor/preact.js";

export const THEMES = /** @type {const} */ (["system", "light", "dark"]);
const KEY = "pares.theme";

export const theme = signal(localStorage.getItem(KEY) ?? "system");

export function applyTheme() {
  document.documentElement.dataset.theme = theme.value;
}

/** @param {string} name */
export function setTheme(name) {
  theme.value = name;
  localStorage.setItem(KEY, name);
  applyTheme();
}
