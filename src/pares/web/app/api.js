/** The control API: requests, errors, and server-sent events out of an answer's body. */

import { signal } from "../vendor/preact.js";
import { t } from "./strings.js";

/** @import { ErrorBody } from "./types.js" */

const CONTROL = "/pares/v1";

/** Whether the node wants to know first who is asking. */
export const locked = signal(false);

/** What went wrong, why, and what to do now: `message` and `hint`, with the same `code` as everywhere in Pares. */
export class ApiError extends Error {
  /** @param {number} status 0 = no answer at all @param {Partial<ErrorBody>} body */
  constructor(status, body) {
    super(body.message ?? t("error.unknown", { status }));
    this.status = status;
    this.code = body.code ?? "error";
    this.hint = body.hint ?? "";
  }
}

/** @param {unknown} fault @returns {ApiError} */
export function asApiError(fault) {
  if (fault instanceof ApiError) return fault;
  return new ApiError(0, { message: t("error.page", { fault: String(fault) }), code: "page_fault" });
}

/** @param {Response} response @returns {Promise<ApiError>} */
async function errorOf(response) {
  if (response.status === 401) locked.value = true;
  const body = await response.json().catch(() => ({}));
  return new ApiError(response.status, body.error ?? {});
}

/** @param {string} address @param {RequestInit} init @returns {Promise<Response>} */
async function request(address, init) {
  let response;
  try {
    response = await fetch(address, init);
  } catch (fault) {
    if (init.signal?.aborted) throw fault;
    throw new ApiError(0, { message: t("error.unreachable"), code: "unreachable", hint: t("error.unreachable_hint") });
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

/** @param {string} method @param {unknown} body @param {AbortSignal} [abort] @returns {RequestInit} */
const json = (method, body, abort) => ({
  method,
  signal: abort ?? null,
  ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } }),
});

/**
 * One call of the control API. Raises ApiError.
 * @param {"GET" | "POST" | "PUT" | "PATCH" | "DELETE"} method
 * @param {string} path below /pares/v1
 * @param {unknown} [body]
 * @param {AbortSignal} [abort]
 * @returns {Promise<any>} the JSON of the answer; null if it has none
 */
export async function call(method, path, body, abort) {
  const response = await request(CONTROL + path, json(method, body, abort));
  return response.status === 204 || response.headers.get("Content-Length") === "0" ? null : response.json();
}

/** Part of an address. @param {string} text */
export const part = encodeURIComponent;

/** @param {string} path below /pares/v1 */
export const address = (path) => CONTROL + path;

/**
 * Cut a body of server-sent events into `{event, data}`; comments and ids are passed over.
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<{event: string, data: string}>}
 */
export async function* sentEvents(body) {
  const reader = body.pipeThrough(/** @type {any} */ (new TextDecoderStream())).getReader();
  let rest = "";
  let event = "message";
  /** @type {string[]} */
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r?\n/);
      rest = lines.pop() ?? "";
      for (const line of lines) {
        if (line === "") {
          if (data.length) yield { event, data: data.join("\n") };
          event = "message";
          data = [];
        } else if (line.startsWith("event:")) event = line.slice(6).trim();
        else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/**
 * POST, and read the answer as it comes. Raises ApiError before the first event.
 * @param {string} path a whole path of this node
 * @param {unknown} body
 * @param {AbortSignal} abort
 */
export async function* stream(path, body, abort) {
  const response = await request(path, json("POST", body, abort));
  if (response.body) yield* sentEvents(response.body);
}
