/** What the page knows of the node: one signal each, filled by requests and kept true by events. */

import { batch, computed, signal } from "../vendor/preact.js";
import { call, locked } from "./api.js";
import { link, start } from "./events.js";

/** @import { CatalogueRow, ConversationRow, Loaded, ModelRow, NodeStatus, PullStatus } from "./types.js" */
/** @import { Signal } from "../vendor/preact.js" */

/** @type {Signal<NodeStatus | null>} */
export const status = signal(null);
/** null until the first answer. @type {Signal<ModelRow[] | null>} */
export const models = signal(null);
/** @type {Signal<CatalogueRow[] | null>} */
export const catalogue = signal(null);
/** @type {Signal<PullStatus[]>} */
export const pulls = signal([]);
/** @type {Signal<ConversationRow[] | null>} */
export const conversations = signal(null);
/** What the conversation list is narrowed to. */
export const search = signal("");

/** Models that a chat can be with: adapters alone cannot. */
export const chatModels = computed(() =>
  (models.value ?? []).filter((row) => row.kind !== "adapter" && !row.missing && !row.broken));

/** @param {string} name */
export const loadedModel = (name) => status.value?.loaded.find((row) => row.name === name);

const MAX_TRIES = 5;
/** How many events of each kind there were. @type {Map<string, number>} */
const heard = new Map();

const UNDER_WAY = ["queued", "checking", "fetching", "verifying"];
/** @param {PullStatus} pull */
export const underWay = (pull) => UNDER_WAY.includes(pull.state);
/** @param {string} name the running or broken-off download of a model */
export const pullOf = (name) => pulls.value.find((pull) => pull.name === name && pull.state !== "done");

/**
 * Ask and take the answer in, unless a newer question was asked meanwhile: answers may overtake each other. What an
 * event of these kinds told meanwhile is newer than the answer too: then ask again.
 * @template T @param {string[]} kinds @param {() => Promise<T>} ask @param {(answer: T) => void} take
 */
export function fetcher(kinds, ask, take) {
  const eventsSoFar = () => kinds.reduce((sum, kind) => sum + (heard.get(kind) ?? 0), 0);
  let newest = 0;
  /** @type {Promise<void>} */
  let last;
  /** @param {number} mine @returns {Promise<void>} */
  const run = async (mine) => {
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      const before = eventsSoFar();
      const answer = await ask();
      if (mine !== newest) return last;
      if (before === eventsSoFar()) return take(answer);
    }
  };
  return () => (last = run(++newest));
}

export const fetchModels = fetcher(["models"],
  () => Promise.all([call("GET", "/models"), call("GET", "/catalogue")]),
  ([here, offered]) => batch(() => {
    models.value = here.models;
    catalogue.value = offered.models;
  }));

export const fetchPulls = fetcher(["pull"], () => call("GET", "/pulls"), (answer) => (pulls.value = answer.pulls));

export const fetchConversations = fetcher(["conversations"], () => {
  const query = search.value.trim();
  return call("GET", `/conversations${query ? `?search=${encodeURIComponent(query)}` : ""}`);
}, (answer) => (conversations.value = answer.conversations));

const fetchStatus = fetcher(["status", "loaded", "unloaded"], () => call("GET", "/status"),
  (answer) => (status.value = answer));

async function fetchAll() {
  await Promise.all([fetchStatus(), fetchModels(), fetchPulls(), fetchConversations()]);
  for (const listener of listeners) listener("up", {});
}

const isKnown = (/** @type {PullStatus} */ pull) => pulls.value.some((other) => other.id === pull.id);

/** A download that was asked for: what events have told of it already is newer. @param {PullStatus} pull */
export function addPull(pull) {
  if (!isKnown(pull)) pulls.value = [pull, ...pulls.value];
}

/** @param {PullStatus} pull */
function putPull(pull) {
  addPull(pull);
  pulls.value = pulls.value.map((other) => (other.id === pull.id ? pull : other));
}

/** @param {Loaded[]} loaded */
function putLoaded(loaded) {
  if (status.value) status.value = { ...status.value, loaded };
}

/** @type {Set<(kind: string, data: any) => void>} */
const listeners = new Set();

/** Hear of every event, and of `up`: the node is there (again). @param {(kind: string, data: any) => void} listener */
export function onEvent(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** @type {Record<string, (data: any) => void>} */
const handlers = {
  status: (/** @type {NodeStatus} */ data) => (status.value = data),
  pull: (/** @type {PullStatus | {id: string, state: "removed"}} */ data) => {
    if (data.state === "removed") {
      pulls.value = pulls.value.filter((other) => other.id !== data.id);
      return;
    }
    putPull(data);
    if (data.state === "done") again(fetchModels);
  },
  models: () => again(fetchModels),
  loaded: (/** @type {Loaded} */ data) => {
    const others = (status.value?.loaded ?? []).filter((row) => row.name !== data.name);
    putLoaded([...others, data]);
    setLoadedFlag(data.name, true);
  },
  unloaded: ({ name }) => {
    putLoaded((status.value?.loaded ?? []).filter((row) => row.name !== name));
    setLoadedFlag(name, false);
  },
  conversations: () => again(fetchConversations),
  reset: () => again(fetchAll), // more happened than the node remembers
};

/** @param {string} name @param {boolean} loaded */
function setLoadedFlag(name, loaded) {
  const row = models.value?.find((model) => model.name === name);
  if (row && row.loaded !== loaded) {
    models.value = (models.value ?? []).map((model) => (model === row ? { ...row, loaded } : model));
  }
}

/** @type {Map<() => Promise<void>, "running" | "again">} */
const running = new Map();

/** Fetch once more; many events in a row make two requests, not many. @param {() => Promise<void>} fetcher */
export async function again(fetcher) {
  if (running.has(fetcher)) {
    running.set(fetcher, "again");
    return;
  }
  running.set(fetcher, "running");
  try {
    await fetcher();
  } catch {
    // The stream of events notices a node that is gone, and everything is fetched anew when it is back.
  }
  const wanted = running.get(fetcher) === "again";
  running.delete(fetcher);
  if (wanted) await again(fetcher);
}

export function startState() {
  start((kind, data) => {
    heard.set(kind, (heard.get(kind) ?? 0) + 1);
    handlers[kind]?.(data);
    for (const listener of listeners) listener(kind, data);
  }, fetchAll);
}

/** The node is there, and knows us. */
export const connected = computed(() => link.value.state === "up" && !locked.value);
