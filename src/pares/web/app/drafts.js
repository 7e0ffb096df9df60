/** What was written and not sent yet: kept in this browser, through reloads, crashes, and a node that went away. */

import { signal } from "../vendor/preact.js";

const KEY = "pares.draft.";
/** Of a conversation that is kept nowhere, nothing is kept. */
export const TEMPORARY = "temporary";

/** @type {import("../vendor/preact.js").Signal<ReadonlyMap<string, string>>} */
const drafts = signal(new Map());

/** @param {string} id of a conversation */
export const draftOf = (id) => drafts.value.get(id) ?? localStorage.getItem(KEY + id) ?? "";

/** @param {string} id @param {string} text */
export function setDraft(id, text) {
  drafts.value = new Map(drafts.value).set(id, text);
  if (text && id !== TEMPORARY) localStorage.setItem(KEY + id, text);
  else localStorage.removeItem(KEY + id);
}

/** A new conversation got its id: what was written meanwhile goes with it. @param {string} from @param {string} to */
export function moveDraft(from, to) {
  const text = draftOf(from);
  if (!text) return;
  setDraft(to, text);
  setDraft(from, "");
}
