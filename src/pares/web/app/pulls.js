/** Fetching models: ask for one, and watch it come. */

import { html } from "../vendor/preact.js";
import { call } from "./api.js";
import { bytes, duration } from "./format.js";
import { addPull } from "./state.js";
import { t } from "./strings.js";
import { Progress } from "./ui.js";

/** @import { PullStatus } from "./types.js" */

/**
 * @param {string} source a catalogue name, the id of a version, an address, or hf:owner/repo/file
 * @param {{layers?: string, accept_licence?: boolean}} [how]
 */
export async function pull(source, how = {}) {
  const begun = await call("POST", "/pulls", { source, ...how });
  addPull(begun);
  return /** @type {PullStatus} */ (begun);
}

/** "41.2 of 98.1 MB", then speed, time left, and who sends. @param {PullStatus} pull */
export function pullWords(pull) {
  const words = [pull.total > 0
    ? t("pull.of", { done: bytes(pull.bytes), total: bytes(pull.total) }) : bytes(pull.bytes)];
  if (pull.state === "fetching" && pull.bytes_per_s > 0) {
    words.push(t("pull.rate", { rate: bytes(pull.bytes_per_s) }));
    if (pull.eta_s !== null && pull.eta_s >= 1) words.push(t("pull.left", { time: duration(pull.eta_s) }));
  }
  if (pull.origin) words.push(t("pull.from", { origin: pull.origin }));
  return words.join(" · ");
}

/** @param {{pull: PullStatus}} props */
export const PullProgress = ({ pull }) => html`
  <${Progress} value=${pull.bytes} max=${pull.total} label=${t("pull.progress_of", { name: pull.name })} />
  <p class="fine num">${pullWords(pull)}</p>`;
