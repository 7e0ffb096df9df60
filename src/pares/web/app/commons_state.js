/** What circles offer, and the swarm: fetched when they are looked at, and kept true by events. */

import { signal } from "../vendor/preact.js";
import { call } from "./api.js";
import "./commons_style.js";
import { again, fetcher, onEvent } from "./state.js";
import "./strings_commons.js";

/** @import { Swarm, VersionRow } from "./types.js" */
/** @import { Signal } from "../vendor/preact.js" */

/** null until the first answer. @type {Signal<VersionRow[] | null>} */
export const versions = signal(null);
/** null until the first answer. @type {Signal<Swarm | null>} */
export const swarm = signal(null);
/** Grows with every change of a version, also of what only its own page shows. */
export const turns = signal(0);
/** How many look at the swarm: while nobody does, nothing is asked when it moves. */
let looking = 0;
/** When the swarm was last told to move, in milliseconds. */
let heard = 0;

export const fetchVersions = fetcher(["versions"], () => call("GET", "/versions"),
  (answer) => (versions.value = answer.versions));
export const fetchSwarm = fetcher(["swarm"], () => call("GET", "/swarm"), (answer) => (swarm.value = answer));

/** Follow the swarm as it moves, until what is returned is called. */
export function followSwarm() {
  looking += 1;
  return () => {
    looking -= 1;
  };
}

/** Whether events have told of it in so many milliseconds. @param {number} span */
export const isFresh = (span) => Date.now() - heard < span;

/** @param {string} id */
export const versionOf = (id) => versions.value?.find((row) => row.id === id);
/** The version that a model of this PC is. @param {string} name */
export const versionOfModel = (name) => versions.value?.find((row) => row.model !== "" && row.model === name);

const changed = () => {
  turns.value += 1;
  if (versions.value) again(fetchVersions);
};

/** @type {Record<string, (data: any) => void>} */
const handlers = {
  versions: changed,
  models: changed,
  circles: changed,
  up: () => {
    changed();
    if (looking) again(fetchSwarm);
  },
  swarm: () => {
    heard = Date.now();
    if (looking) again(fetchSwarm);
  },
};

onEvent((kind, data) => handlers[kind]?.(data));
