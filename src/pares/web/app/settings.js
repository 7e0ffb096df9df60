/** Settings with their source, keys, other tools, the doctor, and the log. */

import { html, useId, useState } from "../vendor/preact.js";
import { tell } from "./announce.js";
import { call, part } from "./api.js";
import { Doctor, Logs } from "./doctor.js";
import { bytes, duration } from "./format.js";
import { Keys } from "./keys.js";
import { href } from "./router.js";
import { status } from "./state.js";
import { t } from "./strings.js";
import { THEMES, setTheme, theme } from "./theme.js";
import { Tools } from "./tools.js";
import { CopyButton, Fault, Tabs, inlineCode, useAction, useFetched } from "./ui.js";

/** @import { Setting } from "./types.js" */

const TABS = /** @type {const} */ (["", "tools", "keys", "doctor", "log"]);

/** @param {unknown} value */
const written = (value) => (Array.isArray(value) ? value.join(", ") : value === null ? "" : String(value));

/**
 * What was typed, in the type that the setting has.
 * @param {Setting} setting
 * @param {string} text
 * @returns {unknown}
 */
function read(setting, text) {
  const kind = setting.default ?? setting.value;
  if (Array.isArray(kind)) return text.split(",").map((item) => item.trim()).filter(Boolean);
  if (typeof kind === "number") return text.trim() === "" || Number.isNaN(Number(text)) ? text : Number(text);
  return text;
}

/** @param {{setting: Setting, onChange: (setting: Setting) => void}} props */
function SettingRow({ setting, onChange }) {
  const id = useId();
  const { busy, error, run } = useAction();
  const fixed = setting.source === "environment" || setting.source === "flag";
  const path = `/settings/${part(setting.name)}`;
  const [chosen, setChosen] = useState(/** @type {boolean | null} */ (null));
  const [, ...rest] = setting.name.split(".");
  /** @param {unknown} value */
  const save = (value) => run(async () => {
    onChange(await call("PUT", path, { value }));
    tell(t(setting.restart_needed ? "settings.saved_restart" : "settings.saved", { name: setting.name }));
  });
  /** @param {any} event */
  const choose = async ({ target }) => {
    setChosen(target.checked); // shown at once, and put back if it is refused
    await save(target.checked);
    setChosen(null);
  };
  /** @param {any} event */
  const write = ({ target }) => save(read(setting, target.value));
  const reset = () => run(async () => {
    onChange(await call("DELETE", path));
    tell(t("settings.back", { name: setting.name }));
  });
  const control = typeof setting.value === "boolean"
    ? html`<input id=${id} type="checkbox" class="switch" role="switch" checked=${chosen ?? setting.value}
        disabled=${fixed || busy} aria-describedby=${`${id}-hint`} onChange=${choose} />`
    : html`<input id=${id} type="text" class="mono" value=${written(setting.value)} disabled=${fixed || busy}
        placeholder=${t("settings.empty")} inputmode=${typeof setting.default === "number" ? "decimal" : "text"}
        aria-describedby=${`${id}-hint`} onChange=${write} />`;
  return html`
    <li class="setting">
      <div><label for=${id}>${rest.join(".").replaceAll("_", " ")}</label>
        <p id=${`${id}-hint`} class="fine">
          ${inlineCode(setting.description)}.${!setting.restart_needed && ` ${t("settings.live")}`}</p></div>
      <div class="setting-value">${control}
        <p class="fine"><span class=${`chip ${setting.source === "default" ? "" : "ok"}`}
          title=${t("settings.variable", { name: setting.environment })}>
          ${t(`settings.from_${setting.source}`)}</span>
          ${setting.source === "file" && html` <button type="button" class="link" disabled=${busy} onClick=${reset}>
            ${t("settings.reset", { value: written(setting.default) || t("settings.empty") })}</button>`}
          ${fixed && html` ${t(`settings.fixed_${setting.source}`, { name: setting.environment })}`}</p></div>
      ${error && html`<${Fault} error=${error} />`}
    </li>`;
}

const Theme = () => html`
  <fieldset class="segments"><legend>${t("settings.theme")}</legend>
    ${THEMES.map((name) => html`<label>
      <input type="radio" name="theme" checked=${theme.value === name} onChange=${() => setTheme(name)} />
      <span>${t(`settings.theme_${name}`)}</span></label>`)}</fieldset>`;

/** @param {{name: string, text: string}} props */
const PathFact = ({ name, text }) => html`
  <dt>${name}</dt>
  <dd class="mono break">${text} <${CopyButton} text=${text} label=${t("settings.copy", { name })} /></dd>`;

function About() {
  const now = status.value;
  if (!now) return null;
  return html`
    <section><h2>${t("settings.about")}</h2>
      <dl class="facts">
        <dt>${t("settings.version")}</dt><dd>Pares ${now.version}</dd>
        <${PathFact} name=${t("settings.home")} text=${now.home} />
        <${PathFact} name=${t("settings.address")} text=${now.url} />
        <dt>${t("settings.running")}</dt><dd class="num">${t("settings.running_for", {
          time: duration(now.uptime_s), pid: String(now.pid), memory: bytes(now.memory_bytes),
        })}</dd>
      </dl>
      <p class="fine">${t("settings.promise")}</p></section>`;
}

/** @returns {Promise<Setting[]>} */
const settings = async () => (await call("GET", "/settings")).settings;

function SettingsTab() {
  const { value, error, set } = useFetched("settings", settings);
  const rooms = Map.groupBy(value ?? [], (setting) => setting.name.split(".")[0] ?? "");
  /** @param {Setting} changed */
  const put = (changed) => set((value ?? []).map((setting) => (setting.name === changed.name ? changed : setting)));
  return html`
    <section><h2>${t("settings.look")}</h2><${Theme} /></section>
    ${error && html`<${Fault} error=${error} />`}
    <p class="fine restart">${t("settings.restart")}</p>
    ${[...rooms].map(([room, members]) => html`
      <section key=${room}><h2>${room}</h2>
        <ul class="settings">${members.map((setting) => html`
          <${SettingRow} key=${setting.name} setting=${setting} onChange=${put} />`)}</ul></section>`)}
    <${About} />`;
}

/** @param {{tab: string}} props */
export default function Settings({ tab: wanted }) {
  const tab = TABS.find((known) => known === wanted) ?? "";
  const now = status.value;
  const to = (/** @type {string} */ key) => href("settings", ...(key ? [key] : []));
  const tabs = TABS.map((key) => ({ href: to(key), name: t(`settings.tab_${key || "settings"}`) }));
  const Tab = { "": SettingsTab, tools: Tools, keys: Keys, doctor: Doctor, log: Logs }[tab];
  return html`
    <div class="page">
      <header class="page-head"><h1>${t("settings.title")}</h1></header>
      ${now?.listening_beyond_this_machine && !now.key_required && html`
        <${Fault} error=${{ message: t("settings.open_door"), hint: t("settings.open_door_hint") }} />`}
      <${Tabs} label=${t("settings.title")} tabs=${tabs} current=${to(tab)} />
      <${Tab} />
    </div>`;
}
