/** Circles, peers, and how this node stands: fetched when the network is looked at, and kept true by events. */

import { signal } from "../vendor/preact.js";
import { call } from "./api.js";
import { fetcher, onEvent } from "./state.js";

/** @import { Circle, Network, Peer } from "./types.js" */
/** @import { Signal } from "../vendor/preact.js" */

/** null until the first answer. @type {Signal<Circle[] | null>} */
export const circles = signal(null);
/** null until the first answer. @type {Signal<Peer[] | null>} */
export const peers = signal(null);
/** @type {Signal<Network | null>} */
export const network = signal(null);
/** Grows with every change of a circle, also of what only its own page shows. */
export const changes = signal(0);

export const fetchCircles = fetcher(["circles"], () => call("GET", "/circles"),
  (answer) => (circles.value = answer.circles));
export const fetchPeers = fetcher(["peers"], () => call("GET", "/peers"), (answer) => (peers.value = answer.peers));
const fetchNetwork = fetcher(["network"], () => call("GET", "/network"), (answer) => (network.value = answer));

export const fetchAll = () => Promise.all([fetchCircles(), fetchNetwork(), fetchPeers()]);

/** @param {string} id */
export const peerOf = (id) => peers.value?.find((peer) => peer.id === id);

/** @type {Record<string, (data: any) => void>} */
const handlers = {
  circles: (data) => {
    circles.value = data.circles;
    changes.value += 1;
  },
  joined: () => (changes.value += 1),
  peers: (data) => (peers.value = data.peers),
  network: (/** @type {Network} */ data) => (network.value = data),
  up: () => {
    changes.value += 1;
    fetchAll().catch(() => {}); // a node that is gone again is noticed by the stream of events
  },
};

onEvent((kind, data) => handlers[kind]?.(data));
