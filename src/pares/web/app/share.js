/** Give a model away in circles, and stop. What its members will be told is said before. */

import { html, useId, useState } from "../vendor/preact.js";
import { tell } from "./announce.js";
import { call } from "./api.js";
import { fetchVersions } from "./commons_state.js";
import { circles, fetchCircles } from "./network_state.js";
import { circleNames } from "./offered.js";
import { href } from "./router.js";
import { t } from "./strings.js";
import { Dialog, Fault, useAction, useFetched } from "./ui.js";

/** @import { ModelRow, VersionRow } from "./types.js" */

const TOLD = /** @type {const} */ (["name", "facts", "key", "holding"]);
const MAX_NAME = 128;
const ID = /^[0-9a-f]{64}$/;

/** @param {{mine: readonly string[], chosen: Set<string>, onChoose: (chosen: Set<string>) => void}} props */
const Circles = ({ mine, chosen, onChoose }) => html`
  <fieldset><legend>${t("share.circles")}</legend>
    ${(circles.value ?? []).filter((circle) => mine.includes(circle.id)).map((circle) => html`
      <label class="option" key=${circle.id}><input type="checkbox" checked=${chosen.has(circle.id)}
        onChange=${(/** @type {any} */ event) => {
          const next = new Set(chosen);
          if (event.target.checked) next.add(circle.id);
          else next.delete(circle.id);
          onChoose(next);
        }} />
        <span class="break">${circle.name}<small>${t("circle.members", { n: circle.members })}${circle.open
          ? ` · ${t("share.open")}` : ""}</small></span></label>`)}
  </fieldset>`;

/** @param {{row: ModelRow, version: VersionRow | undefined, onClose: () => void}} props */
export function ShareDialog({ row, version, onClose }) {
  const id = useId();
  const { busy, error, run } = useAction();
  const { error: lost } = useFetched("circles", fetchCircles);
  const mine = (circles.value ?? []).map((circle) => circle.id);
  const [chosen, setChosen] = useState(/** @type {Set<string> | null} */ (null));
  const picked = chosen ?? new Set(version?.shared.length ? version.shared : mine.length === 1 ? mine : []);
  const [stated, setStated] = useState({
    name: version?.name ?? row.name, label: version?.label ?? "", licence: version?.licence ?? row.licence,
    licence_text: "", description: "", base: "",
  });
  /** @param {Event} event */
  const submit = (event) => {
    event.preventDefault();
    run(async () => {
      const { base, ...words } = stated;
      const from = base.trim();
      await call("POST", "/share", {
        model: row.name, circles: [...picked], ...(version ? {} : words),
        ...(version || !from ? {} : { base: ID.test(from) ? { version: from } : { name: from } }),
      });
      await fetchVersions();
      tell(t("share.done", { name: row.name, circles: circleNames([...picked]) }));
      onClose();
    });
  };
  /** @param {Exclude<keyof typeof stated, "description">} key @param {object} [more] */
  const field = (key, more = {}) => html`
    <div class="field"><label for=${`${id}-${key}`}>${t(`share.${key}`)}</label>
      <input id=${`${id}-${key}`} type="text" autocomplete="off" spellcheck="false" maxlength=${MAX_NAME}
        value=${stated[key]} aria-describedby=${`${id}-${key}-hint`} ...${more}
        onInput=${(/** @type {any} */ event) => setStated({ ...stated, [key]: event.target.value })} />
      <p id=${`${id}-${key}-hint`} class="fine">${t(`share.${key}_hint`)}</p></div>`;
  /** @param {"description" | "licence_text"} key @param {number} most */
  const area = (key, most) => html`
    <div class="field"><label for=${`${id}-${key}`}>${t(`share.${key}`)}</label>
      <textarea id=${`${id}-${key}`} class="grow" rows="2" maxlength=${most} value=${stated[key]}
        onInput=${(/** @type {any} */ event) => setStated({ ...stated, [key]: event.target.value })} /></div>`;
  return html`
    <${Dialog} title=${t("share.title", { name: row.name })} onClose=${onClose}>
      ${circles.value?.length === 0 ? html`
        <p>${t("share.no_circle")}
          ${" "}<a href=${href("network")} onClick=${onClose}>${t("offered.to_network")}</a></p>` : html`
      <form onSubmit=${submit}>
        <${Circles} mine=${mine} chosen=${picked} onChoose=${setChosen} />
        ${version ? html`<p class="fine">${t("share.published")}</p>` : html`
          <div class="dials">${field("name", { required: true })}${field("label")}</div>
          ${field("licence")}
          ${area("description", 4000)}
          <details class="advanced"><summary>${t("share.more")}</summary>
            ${field("base", { maxlength: 200 })}${area("licence_text", 40_000)}</details>`}
        <div><h3>${t("share.told")}</h3>
          <ul class="shares">${TOLD.map((what) => html`<li key=${what}>${t(`share.told_${what}`)}</li>`)}</ul></div>
        ${(error ?? lost) && html`<${Fault} error=${error ?? lost} />`}
        <div class="buttons"><button type="button" class="quiet" onClick=${onClose}>${t("ui.cancel")}</button>
          <button type="submit" disabled=${busy || !picked.size || !stated.name.trim()}>${t("share.go")}</button></div>
      </form>`}
    <//>`;
}

/**
 * Where it is the last copy that anybody knows of, the node says so, and one may insist.
 * @param {{version: VersionRow, onClose: () => void}} props
 */
export function StopSharing({ version, onClose }) {
  const { busy, error, run } = useAction();
  const [chosen, setChosen] = useState(new Set(version.shared));
  const insist = error?.status === 409;
  const stop = () => run(async () => {
    await call("POST", "/unshare", { version: version.id, circles: [...chosen], force: insist });
    await fetchVersions();
    tell(t("share.stopped", { name: version.name }));
    onClose();
  });
  return html`
    <${Dialog} title=${t("share.stop_title", { name: version.name })} onClose=${onClose}>
      <p>${t("share.stop_text")}</p>
      ${version.shared.length > 1 && html`<${Circles} mine=${version.shared} chosen=${chosen} onChoose=${setChosen} />`}
      ${error && html`<${Fault} error=${error} />`}
      <div class="buttons"><button type="button" class="quiet" onClick=${onClose}>${t("ui.cancel")}</button>
        <button type="button" class="danger" disabled=${busy || !chosen.size} onClick=${stop}>
          ${t(insist ? "share.stop_anyway" : "share.stop")}</button></div>
    <//>`;
}
