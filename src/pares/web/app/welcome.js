/** First run: what this machine can do, and one click from nothing to a chat. */

import { computed, html, signal, useEffect, useState } from "../vendor/preact.js";
import { ImportDialog, OfflineNote } from "./add.js";
import { tell } from "./announce.js";
import { ApiError, asApiError, call, part } from "./api.js";
import { change, close } from "./chat_state.js";
import { FitChip } from "./fit.js";
import { bytes, parameters, percent } from "./format.js";
import { Icon } from "./icons.js";
import { pull, pullWords } from "./pulls.js";
import { go, href, route } from "./router.js";
import {
  catalogue, chatModels, conversations, fetchModels, loadedModel, models, onEvent, pulls, status, underWay,
} from "./state.js";
import { t } from "./strings.js";
import { Fault, Progress } from "./ui.js";

/** @import { CatalogueRow, Machine } from "./types.js" */
/** @import { Signal } from "../vendor/preact.js" */

/** @typedef {{name: string, title: string, step: "get" | "load", error: ApiError | null}} WayOn */

const FITS = ["runs well", "tight", "needs more machines", "will not run"];

/** The way from a catalogue entry to a chat: fetched, checked, loaded. @type {Signal<WayOn | null>} */
const way = signal(null);

/** Nothing here to chat with, and nothing said yet; or on the way to it. */
export const isFirstRun = computed(() => way.value !== null
  || (models.value !== null && !chatModels.value.length && conversations.value?.length === 0));

/** @param {string} id @returns {Promise<void>} when that download is done */
function fetched(id) {
  return new Promise((resolve, reject) => {
    const look = () => {
      const row = pulls.value.find((other) => other.id === id);
      if (row && row.state !== "done" && row.state !== "failed") return;
      forget();
      const message = row?.error ?? t("welcome.cancelled");
      if (row?.state === "done") resolve();
      else reject(new ApiError(0, { message, code: row?.code, hint: t("welcome.pull_hint") }));
    };
    const forget = onEvent(look);
    look();
  });
}

/** @param {CatalogueRow} row */
const pullUnderWay = (row) => pulls.value.find((other) => other.name === row.name && underWay(other));

/** @param {CatalogueRow} row */
async function start(row) {
  way.value = { name: row.name, title: row.title, step: "get", error: null };
  try {
    if (!row.here) await fetched((pullUnderWay(row) ?? await pull(row.name)).id);
    way.value = { ...way.value, step: "load" };
    await call("POST", `/models/${part(row.name)}/load`, {});
    await fetchModels();
    close();
    await change({ model: row.name });
    way.value = null;
    if (route.value[0] === "chat") go("chat");
  } catch (fault) {
    way.value = way.value && { ...way.value, error: asApiError(fault) };
  }
}

/** @param {{machine: Machine}} props */
const Facts = ({ machine }) => html`
  <dl class="machine">
    ${[
      ["memory", bytes(machine.memory_total), t("welcome.free", { n: bytes(machine.memory_free) })],
      ["processor", t("welcome.cores", { n: machine.cores }), machine.instruction_set],
      machine.gpus.length ? ["graphics", machine.gpus.join(", "), t("welcome.gpu")]
        : ["graphics", t("welcome.no_gpu"), t("welcome.no_gpu_needed")],
      ["disk", bytes(machine.disk_free), t("welcome.disk_free")],
    ].map(([key, value, hint]) => html`
      <div><dt>${t(`welcome.${key}`)}</dt><dd>${value}<small>${hint}</small></dd></div>`)}
  </dl>`;

/** @param {{row: CatalogueRow, first: boolean}} props */
function Card({ row, first }) {
  const offline = status.value?.offline && !row.here;
  return html`
    <li class=${`card ${first ? "first" : ""}`}>
      <div class="card-head"><h3>${row.title}</h3><${FitChip} fit=${row.fit} need=${row.need} /></div>
      <p>${row.description}</p>
      <p class="fine num">${t("welcome.card", { size: bytes(row.size), parameters: parameters(row.parameters),
        quantization: row.quantization, licence: row.licence })}</p>
      <div class="buttons start">
        <button type="button" class=${first ? "" : "quiet"} disabled=${offline || row.fit === "will not run"}
          aria-label=${first ? undefined : t("welcome.start_with", { title: row.title })} onClick=${() => start(row)}>
          ${t(first ? "welcome.start" : row.chat ? "welcome.get" : "welcome.get_base")}</button>
        ${first && html`<span class="fine">${t("welcome.minute")}</span>`}
      </div>
    </li>`;
}

/** @param {{state: "done" | "now" | "to-come", title: string, children?: any}} props */
const Step = ({ state, title, children }) => html`
  <li class=${`step ${state}`} aria-current=${state === "now" ? "step" : undefined}>
    <span class="step-mark">${state === "done" ? html`<${Icon} name="check" />` : ""}</span>
    <div><strong>${title}</strong>${children}</div>
  </li>`;

/** Three steps with what is awaited, and from whom. */
function Way() {
  const now = /** @type {NonNullable<typeof way.value>} */ (way.value);
  const row = pulls.value.find((other) => other.name === now.name);
  const loaded = loadedModel(now.name);
  const got = now.step === "load" || row?.state === "done";
  const checking = !got && row?.state === "verifying";
  const [leaving, setLeaving] = useState(false);
  const cancel = async () => {
    setLeaving(true);
    try {
      if (row && row.state !== "done") await call("DELETE", `/pulls/${part(row.id)}`);
      pulls.value = pulls.value.filter((other) => other !== row);
    } catch (fault) {
      tell(asApiError(fault).message);
    }
    way.value = null;
  };
  const retry = () => {
    const offered = catalogue.value?.find((other) => other.name === now.name);
    if (offered) start(offered);
  };
  const share = loaded?.progress ?? 0;
  const getting = t("welcome.getting", { title: now.title });
  return html`
    <section class="way" aria-label=${t("welcome.way", { title: now.title })}>
      <ol class="steps">
        <${Step} state=${got || checking ? "done" : "now"} title=${getting}>
          ${row && !got && !checking && html`<${Progress} value=${row.bytes} max=${row.total} label=${getting} />`}
          ${row && html`<p class="fine num">${pullWords(row)}</p>`}
        <//>
        <${Step} state=${got ? "done" : checking ? "now" : "to-come"} title=${t("welcome.checking")}>
          <p class="fine">${t("welcome.checking_hint")}</p><//>
        <${Step} state=${now.step === "load" ? "now" : "to-come"} title=${t("welcome.loading")}>
          ${now.step === "load" && html`
            <${Progress} value=${share} max=${loaded ? 1 : 0} label=${t("welcome.loading")} />
            <p class="fine num">${loaded ? percent(share) : t("welcome.loading_starts")}</p>`}<//>
      </ol>
      ${now.error
        ? html`<${Fault} error=${now.error}>
            <button type="button" onClick=${retry}>${t("chat.retry")}</button>
            <button type="button" class="quiet" onClick=${() => (way.value = null)}>${t("welcome.back")}</button><//>`
        : now.step === "get" && html`<div class="buttons start">
            <button type="button" class="quiet" disabled=${leaving} onClick=${cancel}>${t("ui.cancel")}</button></div>`}
    </section>`;
}

export function Welcome() {
  const [importing, setImporting] = useState(false);
  useEffect(() => {
    // A page that was left and opened again takes up the way where it is.
    const begun = catalogue.value?.find(pullUnderWay);
    if (begun && !way.value) start(begun);
  }, [catalogue.value]);
  const rows = (catalogue.value ?? []).toSorted((a, b) =>
    Number(b.starter) - Number(a.starter) || FITS.indexOf(a.fit) - FITS.indexOf(b.fit)
    || Number(b.chat) - Number(a.chat) || a.size - b.size);
  const nothingFits = rows.length > 0 && rows.every((row) => row.fit === "will not run");
  return html`
    <div class="page welcome">
      <header><h1>${t("welcome.title")}</h1><p class="lead">${t("welcome.text")}</p></header>
      ${status.value && html`
        <section aria-label=${t("welcome.machine")}>
          <h2>${t("welcome.machine")}</h2><${Facts} machine=${status.value.machine} /></section>`}
      ${way.value ? html`<${Way} />` : html`
        <${OfflineNote} />
        ${nothingFits && html`
          <${Fault} error=${{ message: t("welcome.nothing_fits"), hint: t("welcome.nothing_fits_hint") }} />`}
        <section aria-label=${t("welcome.models")}><h2>${t("welcome.models")}</h2>
          <ul class="cards">${rows.map((row, i) => html`
            <${Card} key=${row.name} row=${row} first=${i === 0 && row.starter} />`)}</ul></section>
        <p class="others">
          <button type="button" class="link" onClick=${() => setImporting(true)}>${t("welcome.have_gguf")}</button>
          <a href=${href("models")}>${t("welcome.by_address")}</a>
          <a href=${href("network", "join")}>${t("welcome.join")}</a></p>`}
      <p class="fine promise">${t("welcome.promise")}</p>
      ${importing && html`<${ImportDialog} onClose=${() => setImporting(false)} />`}
    </div>`;
}
