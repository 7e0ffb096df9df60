/** The models of this PC, those that can be had, alone or from circles, and what is being fetched and given. */

import { html, useEffect, useState } from "../vendor/preact.js";
import { AddByAddress, ImportDialog, OfflineNote } from "./add.js";
import { tell } from "./announce.js";
import { call, part } from "./api.js";
import { change, close } from "./chat_state.js";
import { fetchVersions, swarm, versionOfModel, versions } from "./commons_state.js";
import { Downloads } from "./downloads.js";
import { FitChip } from "./fit.js";
import { ago, bytes, count, decimal, parameters, percent } from "./format.js";
import { Icon } from "./icons.js";
import { LoadDialog, load, unload } from "./load.js";
import { fetchCircles } from "./network_state.js";
import { Offered, circleNames } from "./offered.js";
import { PullProgress, pull } from "./pulls.js";
import { go, href } from "./router.js";
import { catalogue, fetchModels, loadedModel, models, pullOf, pulls, status, underWay } from "./state.js";
import { ShareDialog, StopSharing } from "./share.js";
import { t } from "./strings.js";
import { SwarmView } from "./swarm.js";
import { Confirm, Fault, MenuItem, Popover, Progress, Tabs, useAction } from "./ui.js";

/** @import { CatalogueRow, Loaded, ModelRow, VersionRow } from "./types.js" */

/** @typedef {"" | "delete" | "load" | "share" | "stop"} Asking */

/** @param {{loaded: Loaded}} props */
function InMemory({ loaded }) {
  if (loaded.state === "loading") {
    const words = t("models.loading", { share: percent(loaded.progress) });
    return html`<div class="in-memory"><span class="fine">${words}</span>
      <${Progress} value=${loaded.progress} max=${1} label=${words} /></div>`;
  }
  const facts = [
    t("models.memory", { n: bytes(loaded.memory_bytes) }),
    t("models.context", { n: count(loaded.context) }),
    t(`models.${loaded.profile}`),
    loaded.running + loaded.waiting > 0 ? t("models.answering", { n: loaded.running, waiting: loaded.waiting }) : "",
    loaded.tokens_per_s > 0 ? t("chat.speed", { n: decimal(loaded.tokens_per_s) }) : "",
    loaded.expires_at ? t("models.expires", { when: ago(loaded.expires_at) }) : t("models.stays"),
  ];
  return html`
    <p class="in-memory fine num"><span class="dot" aria-hidden="true" />${facts.filter(Boolean).join(" · ")}</p>`;
}

/**
 * @param {{row: ModelRow, version: VersionRow | undefined, onAsk: (what: Asking) => void,
 *   run: (work: () => Promise<unknown>) => void}} props
 */
const More = ({ row, version, onAsk, run }) => html`
  <${Popover} class="tool" role="menu" align="end" label=${t("models.more", { name: row.name })}
    face=${html`<${Icon} name="more" />`}>
    ${(/** @type {() => void} */ shut) => {
      const verify = () => run(async () => {
        const { sha256 } = await call("POST", `/models/${part(row.name)}/verify`);
        tell(t("models.verified", { name: row.name, hash: sha256.slice(0, 12) }));
      });
      const then = (/** @type {() => void} */ act) => () => {
        shut();
        act();
      };
      return html`
        <${MenuItem} icon="settings" onClick=${then(() => onAsk("load"))}>${t("models.load_with")}<//>
        ${!row.missing && !row.broken && row.kind !== "alias" && html`
          <${MenuItem} icon="network" onClick=${then(() => onAsk("share"))}>${t("share.open_dialog")}<//>`}
        ${version && version.shared.length > 0 && html`
          <${MenuItem} icon="pause" onClick=${then(() => onAsk("stop"))}>${t("share.stop")}<//>`}
        <${MenuItem} icon="inspect" href=${href("inspect", row.name)} onClick=${shut}>${t("models.inspect")}<//>
        <${MenuItem} icon="check" onClick=${then(verify)}>${t("models.verify")}<//>
        <${MenuItem} icon="trash" danger onClick=${then(() => onAsk("delete"))}>${t("models.delete")}<//>`;
    }}
  <//>`;

/** @param {{row: ModelRow}} props */
function Item({ row }) {
  const { busy, error, run } = useAction();
  const [asking, setAsking] = useState(/** @type {Asking} */ (""));
  const [insist, setInsist] = useState(false);
  const version = versionOfModel(row.name);
  const loaded = loadedModel(row.name);
  const usable = !row.missing && !row.broken && row.kind !== "adapter";
  const chat = () => {
    close();
    change({ model: row.name });
    go("chat");
  };
  const remove = async () => {
    const { bytes_freed: freed } = await call("DELETE", `/models/${part(row.name)}${insist ? "?force=1" : ""}`)
      .catch((fault) => {
        setInsist(fault.status === 409); // others rely on it: the node says who, and one may insist
        throw fault;
      });
    await fetchModels();
    tell(t(row.linked ? "models.unlinked" : "models.deleted", { name: row.name, size: bytes(freed) }));
  };
  const unask = () => {
    setAsking("");
    setInsist(false);
  };
  const facts = [
    row.architecture, row.parameters ? t("models.parameters", { n: parameters(row.parameters) }) : "",
    row.quantization, bytes(row.size), row.licence, row.linked ? t("models.linked") : "",
  ];
  return html`
    <li class="row">
      <div class="row-head">
        <div class="row-name">
          <a class="strong" href=${href("inspect", row.name)}>${row.name}</a>
          ${row.kind !== "model" && html`${" "}<span class="chip">${t(`models.kind_${row.kind}`)}</span>`}
          ${version && version.shared.length > 0 && html`${" "}
            <span class="chip ok shared">${t("share.shared", { circles: circleNames(version.shared) })}</span>`}
          <p class="fine num">${facts.filter(Boolean).join(" · ")}</p>
        </div>
        <${FitChip} fit=${row.fit} need=${row.need} />
        <div class="buttons">
          ${usable && (loaded
            ? html`<button type="button" class="quiet" disabled=${busy || loaded.state === "stopping"}
                onClick=${() => run(() => unload(row.name))}>${t("models.unload")}</button>`
            : html`<button type="button" class="quiet" disabled=${busy}
                onClick=${() => run(() => load(row.name))}>${t("models.load")}</button>`)}
          ${usable && html`<button type="button" class="gentle" onClick=${chat}>${t("models.chat")}</button>`}
          <${More} row=${row} version=${version} run=${run} onAsk=${setAsking} />
        </div>
      </div>
      ${loaded && html`<${InMemory} loaded=${loaded} />`}
      ${row.missing && html`<${Fault} error=${{ message: t("models.missing"), hint: t("models.missing_hint") }} />`}
      ${row.broken && html`<${Fault} error=${{ message: row.broken, hint: t("models.broken_hint") }} />`}
      ${error && html`<${Fault} error=${error} />`}
      ${asking === "load" && html`<${LoadDialog} name=${row.name} onClose=${() => setAsking("")} />`}
      ${asking === "share" && html`
        <${ShareDialog} row=${row} version=${version} onClose=${() => setAsking("")} />`}
      ${asking === "stop" && version && html`
        <${StopSharing} version=${version} onClose=${() => setAsking("")} />`}
      ${asking === "delete" && html`
        <${Confirm} title=${t("models.delete_title", { name: row.name })} onClose=${unask}
          action=${t(insist ? "share.remove_anyway" : row.linked ? "models.unlink" : "models.delete")}
          onConfirm=${remove}>
          <p>${t(row.linked ? "models.unlink_text" : "models.delete_text", { size: bytes(row.size) })}</p><//>`}
    </li>`;
}

function Here() {
  const rows = models.value;
  if (rows === null) return null;
  if (rows.length) {
    return html`<ul class="rows">${rows.map((row) => html`<${Item} key=${row.name} row=${row} />`)}</ul>`;
  }
  const smallest = catalogue.value?.toSorted((a, b) => a.size - b.size)[0];
  return html`<p class="empty">${smallest ? t("models.none", { size: bytes(smallest.size) }) : t("models.none_at_all")}
    ${" "}<a href=${href("models", "catalogue")}>${t("models.see_catalogue")}</a></p>`;
}

/** @param {{row: CatalogueRow}} props */
function Offer({ row }) {
  const { busy, error, run } = useAction();
  const coming = pullOf(row.name);
  const facts = [
    t("models.parameters", { n: parameters(row.parameters) }), row.quantization, bytes(row.size), row.licence,
  ];
  return html`
    <li class="row">
      <div class="row-head">
        <div class="row-name"><strong>${row.title}</strong>
          ${row.starter && html`${" "}<span class="chip">${t("models.starter")}</span>`}
          <p>${row.description}</p><p class="fine num">${facts.join(" · ")}</p></div>
        <${FitChip} fit=${row.fit} need=${row.need} />
        <div class="buttons">
          ${row.here ? html`<span class="chip ok"><${Icon} name="check" />${t("models.here")}</span>`
            : html`<button type="button" class="gentle" disabled=${busy || coming || status.value?.offline}
                aria-label=${t("picker.get", { name: row.title, size: bytes(row.size) })}
                onClick=${() => run(() => pull(row.name))}><${Icon} name="get" />${t("models.get")}</button>`}
        </div>
      </div>
      ${coming && html`<${PullProgress} pull=${coming} />`}
      ${error && html`<${Fault} error=${error} />`}
    </li>`;
}

const Catalogue = () => html`
  <${OfflineNote} />
  <ul class="rows">${(catalogue.value ?? []).map((row) => html`<${Offer} key=${row.name} row=${row} />`)}</ul>`;

/** @param {{tab: string}} props */
export default function Models({ tab }) {
  const [importing, setImporting] = useState(false);
  const active = pulls.value.filter(underWay).length;
  useEffect(() => {
    // What is shared is said beside a model; where it cannot be told, the tab of the circles says why.
    Promise.all([fetchVersions(), fetchCircles()]).catch(() => {});
  }, []);
  const offered = versions.value?.filter((row) => row.circles.length > 0).length;
  const tabs = [
    { href: href("models"), name: t("models.tab_here"), count: models.value?.length },
    { href: href("models", "circles"), name: t("offered.tab"), count: offered },
    { href: href("models", "catalogue"), name: t("models.tab_catalogue"), count: catalogue.value?.length },
    { href: href("models", "downloads"), name: t("models.tab_downloads"), count: active },
    { href: href("models", "swarm"), name: t("swarm.tab"), count: swarm.value?.torrents.length },
  ];
  const Tab = { circles: Offered, catalogue: Catalogue, downloads: Downloads, swarm: SwarmView }[tab] ?? Here;
  const machine = status.value?.machine;
  return html`
    <div class="page">
      <header class="page-head"><h1>${t("models.title")}</h1>
        ${machine && html`<p class="fine num">${t("models.room", {
          memory: bytes(machine.memory_free), disk: bytes(machine.disk_free),
        })}</p>`}</header>
      <${Tabs} label=${t("models.title")} tabs=${tabs} current=${href("models", ...(tab ? [tab] : []))} />
      <${Tab} />
      ${["", "catalogue"].includes(tab) && html`
        <section class="adding" aria-label=${t("add.title")}><h2>${t("add.title")}</h2><${AddByAddress} />
          <button type="button" class="link" onClick=${() => setImporting(true)}>${t("add.import_open")}</button>
        </section>`}
      ${importing && html`<${ImportDialog} onClose=${() => setImporting(false)} />`}
    </div>`;
}
