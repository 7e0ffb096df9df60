/** What is said to everyone in passing: a note at the foot of the page, and words for screen readers only. */

import { signal } from "../vendor/preact.js";

const NOTE_MS = 6000;
const SPOKEN_MS = 5000;

/** Read out by screen readers, politely. */
export const spoken = signal("");
/** Shown for a while, and read out. */
export const note = signal("");

/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let silence;

/** @param {string} text */
export function announce(text) {
  spoken.value = spoken.value === text ? `${text}\u00a0` : text; // the same words twice are read twice
  clearTimeout(silence);
  silence = setTimeout(() => (spoken.value = ""), SPOKEN_MS); // nobody should come upon it a second time
}

/** @param {string} text */
export function tell(text) {
  note.value = text;
  clearTimeout(timer);
  timer = setTimeout(() => (note.value = ""), NOTE_MS);
}
