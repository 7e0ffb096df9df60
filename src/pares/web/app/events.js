/**
 * The node's one stream of events, shared by all tabs: browsers allow six connections to a node, so one tab listens
 * (whoever holds the lock) and tells the others. Losing it is what "the node stopped" means on this page.
 */

import { signal } from "../vendor/preact.js";
import { address, call, locked } from "./api.js";

/** @typedef {{state: "connecting" | "up" | "down", retryIn: number}} Link */

const KINDS = [
  "status", "pull", "models", "loaded", "unloaded", "conversations", "circles", "peers", "network", "joined",
  "versions", "swarm", "reset",
];
const RETRY_S = [3, 3, 5, 10];

/** @type {import("../vendor/preact.js").Signal<Link>} */
export const link = signal({ state: "connecting", retryIn: 0 });

/** @type {(kind: string, data: any) => void} */
let deliver = () => {};
/** @type {() => Promise<void>} */
let refetch = async () => {};

/** Without locks, on an insecure address of the local network, every tab listens for itself. */
const channel = navigator.locks ? new BroadcastChannel("pares-events") : null;
let leading = false;
let looking = false;
let attempts = 0;
/** @type {EventSource | null} */
let source = null;
/** @type {ReturnType<typeof setInterval> | undefined} */
let countdown;

/** @param {Link} next */
function move(next) {
  const back = next.state === "up" && link.value.state !== "up";
  link.value = next;
  if (leading) channel?.postMessage({ kind: "link", data: next });
  if (next.state === "up") locked.value = false;
  if (back) refetch().catch(() => {}); // what fails here fails again where it is shown
}

channel?.addEventListener("message", ({ data: { kind, data } }) => {
  if (kind === "hello") {
    if (leading) channel.postMessage({ kind: "link", data: link.value });
  } else if (kind === "retry") {
    if (leading) retry();
  } else if (kind === "link") move(data);
  else deliver(kind, data);
});

function listen() {
  source?.close();
  source = new EventSource(address("/events"));
  source.onopen = () => {
    attempts = 0;
    move({ state: "up", retryIn: 0 });
  };
  source.onerror = lost;
  for (const kind of KINDS) {
    source.addEventListener(kind, (event) => {
      const data = JSON.parse(event.data);
      deliver(kind, data);
      channel?.postMessage({ kind, data });
    });
  }
}

/** A stream may end without the node being gone: look once before saying so. */
async function lost() {
  if (looking) return;
  looking = true;
  source?.close();
  source = null;
  clearInterval(countdown);
  try {
    await call("GET", "/status");
    listen();
  } catch {
    if (!locked.value) wait(RETRY_S[Math.min(attempts++, RETRY_S.length - 1)]);
  } finally {
    looking = false;
  }
}

/** @param {number} seconds */
function wait(seconds) {
  move({ state: "down", retryIn: seconds });
  countdown = setInterval(() => {
    if (link.value.retryIn <= 1) retry();
    else move({ state: "down", retryIn: link.value.retryIn - 1 });
  }, 1000);
}

/** Try again now. */
export function retry() {
  if (leading) lost();
  else channel?.postMessage({ kind: "retry" });
}

/**
 * @param {(kind: string, data: any) => void} onEvent
 * @param {() => Promise<void>} onUp fetch again whatever may have changed while nobody listened
 */
export function start(onEvent, onUp) {
  deliver = onEvent;
  refetch = onUp;
  const lead = () => {
    leading = true;
    lost();
    return new Promise(() => {}); // held until this tab closes
  };
  if (channel) {
    channel.postMessage({ kind: "hello" });
    navigator.locks.request("pares-events", lead);
  } else lead();
  addEventListener("online", () => link.value.state === "down" && retry());
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && link.value.state === "down") retry();
  });
}
