/** Sends requests, with retries until there is a response or no retry makes sense. */

import { APIUserAbortError } from "../errors.js";
import { redact } from "../settings/credential.js";
import { isBrowser } from "../settings/environment.js";
import { deadlineOf, type Options } from "../settings/options.js";
import { VERSION } from "../version.js";
import { throwIfAborted } from "./abort.js";
import type { Body } from "./call.js";
import type { Effects } from "./effects.js";
import { reportRequest, reportResponse } from "./hooks.js";
import { Response } from "./response.js";
import { failedAttempt, timedOut, waitBeforeRetry, type Outcome, type Repeat } from "./retry.js";
import { Stream } from "./stream.js";

const USER_AGENT = `machpay-typescript/${VERSION}`;
const MIN_TIMEOUT = 1; // a sleep may overrun the deadline, and a timeout must be positive

/** A request, which is the same in each attempt but for its proof. */
export interface HttpRequest {
  readonly method: string;
  /** The address of the server. Error messages show it and the path, without the query. */
  readonly origin: string;
  readonly path: string;
  readonly query: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Body | null;
  readonly repeat: Repeat;
  /** What the body of an error response must not show. */
  readonly secrets: readonly string[];
  readonly signal?: AbortSignal | null | undefined;
  /** Returns the DPoP proof of an attempt at this address. */
  readonly proof?: ((method: string, url: string) => Promise<string>) | undefined;
  /** Whether the body of a successful response is left to its reader. */
  readonly isStream?: boolean;
}

/** The attempts, retries and time of a call, over all its requests. */
export class CallProgress {
  attempts = 0;
  retries = 0;
  readonly #monotonic: () => number;
  #startedAt: number;

  constructor(monotonic: () => number) {
    this.#monotonic = monotonic;
    this.#startedAt = monotonic();
  }

  /** The milliseconds since the start. */
  get elapsed(): number {
    return this.#monotonic() - this.#startedAt;
  }

  /** Return the result of *work*, whose duration does not count. */
  async withoutCounting<T>(work: () => Promise<T>): Promise<T> {
    const startedAt = this.#monotonic();
    const result = await work();
    this.#startedAt += this.#monotonic() - startedAt;
    return result;
  }
}

/** Return the last outcome of sending *request*. Throw an APIUserAbortError when its signal is aborted. */
export async function sendWithRetries(
  request: HttpRequest,
  options: Options,
  effects: Effects,
  progress: CallProgress,
): Promise<Outcome | Stream> {
  for (;;) {
    throwIfAborted(request.signal);
    const left = Math.max(deadlineOf(options) - progress.elapsed, MIN_TIMEOUT);
    progress.attempts += 1;
    const timeout = Math.min(options.timeout, left);
    const outcome = await attempt(request, options, effects, progress.attempts, timeout);
    if (outcome instanceof Stream || (outcome instanceof Response && outcome.isSuccess)) return outcome;
    const state = { retries: progress.retries, elapsed: progress.elapsed, draw: effects.draw() };
    const wait = waitBeforeRetry(request.repeat, outcome, options, state);
    if (wait === null) return outcome;
    options.hooks.logger?.debug(`machpay: ${request.method} ${request.path} is retried in ${Math.round(wait)} ms`);
    await effects.sleep(wait, request.signal);
    progress.retries += 1;
  }
}

async function attempt(
  request: HttpRequest,
  options: Options,
  effects: Effects,
  number: number,
  timeout: number,
): Promise<Outcome | Stream> {
  const event = { method: request.method, url: request.origin + request.path, attempt: number };
  const startedAt = effects.monotonic();
  reportRequest(options.hooks, event);
  const outcome = await timed(request, options, effects, number, timeout);
  const hasResponse = outcome instanceof Response || outcome instanceof Stream;
  reportResponse(options.hooks, {
    ...event,
    milliseconds: effects.monotonic() - startedAt,
    status: hasResponse ? outcome.status : null,
    requestId: hasResponse ? outcome.requestId : null,
    error: hasResponse ? null : outcome.error,
  });
  return outcome;
}

async function timed(
  request: HttpRequest,
  options: Options,
  effects: Effects,
  number: number,
  timeout: number,
): Promise<Outcome | Stream> {
  const what = `${request.method} ${request.path} at ${request.origin}`;
  const controller = new AbortController();
  const abort = (): void => controller.abort();
  const timer = setTimeout(abort, timeout);
  request.signal?.addEventListener("abort", abort, { once: true, signal: controller.signal });
  let isOpen = false;
  try {
    // A race, because the user's `fetch` may ignore its signal.
    const exchanged = exchange(request, options, effects, number, controller);
    const outcome = await Promise.race([exchanged, rejectOnAbort(controller.signal)]);
    isOpen = outcome instanceof Stream;
    return outcome;
  } catch (cause) {
    throwIfAborted(request.signal);
    if (controller.signal.aborted) return timedOut(what);
    // An abort that is not ours is one of the user's `fetch`.
    if (cause instanceof Error && cause.name === "AbortError") throw new APIUserAbortError(cause);
    return failedAttempt(what, cause);
  } finally {
    clearTimeout(timer);
    if (!isOpen) request.signal?.removeEventListener("abort", abort);
  }
}

async function exchange(
  request: HttpRequest,
  options: Options,
  effects: Effects,
  attempts: number,
  controller: AbortController,
): Promise<Response | Stream> {
  const url = request.origin + request.path;
  const proof = request.proof === undefined ? {} : { DPoP: await request.proof(request.method, url) };
  const response = await options.fetch(url + request.query, {
    method: request.method,
    headers: { ...(isBrowser() ? {} : { "User-Agent": USER_AGENT }), ...request.headers, ...proof },
    body: request.body,
    signal: controller.signal,
    redirect: "manual", // the credential is sent to the configured server only
    // Cookies would be a second credential. Other runtimes have none, and some of them refuse this member.
    ...(isBrowser() ? { credentials: "omit" as const } : {}),
  });
  const data = { status: response.status, headers: response.headers, attempts, receivedAt: effects.now() };
  if (request.isStream === true && response.ok) {
    return new Stream(new Response({ ...data, body: "" }), response.body, controller, options.timeout, request);
  }
  const body = await response.text();
  const result = new Response({ ...data, body });
  return result.isSuccess ? result : new Response({ ...data, body: redact(body, request.secrets) });
}

function rejectOnAbort(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}
