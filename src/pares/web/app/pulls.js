/** Fetching models: ask for one, watch it come, pause it, give it up. */

import { html } from "../vendor/preact.js";
import { tell } from "./announce.js";
import { call, part } from "./api.js";
import { bytes, duration } from "./format.js";
import { Icon } from "./icons.js";
import { addPull, fetchPulls, pulls, underWay } from "./state.js";
import { t } from "./strings.js";
import { Fault, Progress, useAction } from "./ui.js";

/** @import { PullStatus } from "./types.js" */

/** @type {Partial<Record<PullStatus["state"], string>>} */
const LOOKS = { done: "ok", failed: "bad", paused: "warn" };

/** @param {string} source a catalogue name, an address, or hf:owner/repo/file @param {string} [name] */
export async function pull(source, name = "") {
  const begun = await call("POST", "/pulls", { source, name });
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

/** @param {{pull: PullStatus}} props */
function PullItem({ pull: row }) {
  const { busy, error, run } = useAction();
  const path = `/pulls/${part(row.id)}`;
  /** @param {"pause" | "resume"} verb */
  const act = (verb) => run(() => call("POST", `${path}/${verb}`));
  const cancel = () => run(async () => {
    await call("DELETE", path);
    await fetchPulls();
    tell(t("pull.cancelled", { name: row.name }));
  });
  return html`
    <li class="row">
      <div class="row-head">
        <div><strong>${row.name}</strong>${" "}
          <span class=${`chip ${LOOKS[row.state] ?? ""}`}>${t(`pull.${row.state}`)}</span>
          <p class="fine break">${row.source}</p></div>
        <div class="buttons">
          ${underWay(row) && html`<button type="button" class="quiet" disabled=${busy} onClick=${() => act("pause")}>
            <${Icon} name="pause" />${t("pull.pause")}</button>`}
          ${(row.state === "paused" || row.state === "failed") && html`
            <button type="button" disabled=${busy} onClick=${() => act("resume")}>
              <${Icon} name="play" />${t(row.state === "failed" ? "pull.try_again" : "pull.resume")}</button>`}
          <button type="button" class="quiet" disabled=${busy} onClick=${cancel}>
            ${t(row.state === "done" ? "pull.clear" : "pull.cancel")}</button>
        </div>
      </div>
      ${row.state === "done"
        ? html`<p class="fine num">${bytes(row.total)}</p>` : html`<${PullProgress} pull=${row} />`}
      ${row.error && html`<${Fault} error=${{ message: row.error, code: row.code }} />`}
      ${error && html`<${Fault} error=${error} />`}
    </li>`;
}

export function Downloads() {
  if (!pulls.value.length) return html`<p class="empty">${t("pull.none")}</p>`;
  return html`<ul class="rows">${pulls.value.map((row) => html`<${PullItem} key=${row.id} pull=${row} />`)}</ul>`;
}
