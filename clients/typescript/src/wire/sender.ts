/** Sends requests, with retries until there is a response or no retry makes sense. */

import { isBrowser } from "../settings/environment.js";
import { redact } from "../settings/credential.js";
import { deadlineOf, type Options } from "../settings/options.js";
import { VERSION } from "../version.js";
import type { Effects } from "./effects.js";
import { Response } from "./response.js";
import { failedAttempt, timedOut, waitBeforeRetry, type Outcome, type Repeat } from "./retry.js";

const USER_AGENT = `machpay-typescript/${VERSION}`;
const MIN_TIMEOUT = 1; // a sleep may overrun the deadline, and a timeout must be positive

/** A request, which is the same in each attempt. */
export interface HttpRequest {
  readonly method: string;
  /** The address of the server. Error messages show it and the path, without the query. */
  readonly origin: string;
  readonly path: string;
  readonly query: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | null;
  readonly repeat: Repeat;
  /** What the body of an error response must not show. */
  readonly secrets: readonly string[];
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

/** Return the last outcome of sending *request*. */
export async function sendWithRetries(
  request: HttpRequest,
  options: Options,
  effects: Effects,
  progress: CallProgress,
): Promise<Outcome> {
  for (;;) {
    const left = Math.max(deadlineOf(options) - progress.elapsed, MIN_TIMEOUT);
    progress.attempts += 1;
    const outcome = await attempt(request, options, effects, progress.attempts, Math.min(options.timeout, left));
    if (outcome instanceof Response && outcome.isSuccess) return outcome;
    const state = { retries: progress.retries, elapsed: progress.elapsed, draw: effects.draw() };
    const wait = waitBeforeRetry(request.repeat, outcome, options, state);
    if (wait === null) return outcome;
    await effects.sleep(wait);
    progress.retries += 1;
  }
}

async function attempt(
  request: HttpRequest,
  options: Options,
  effects: Effects,
  attempts: number,
  timeout: number,
): Promise<Outcome> {
  const what = `${request.method} ${request.path} at ${request.origin}`;
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), timeout);
  try {
    // A race, because the user's `fetch` may ignore its signal.
    const response = exchange(request, options, effects, attempts, controller.signal);
    return await Promise.race([response, rejectOnAbort(controller.signal)]);
  } catch (cause) {
    return controller.signal.aborted ? timedOut(what) : failedAttempt(what, cause);
  } finally {
    clearTimeout(timer);
  }
}

async function exchange(
  request: HttpRequest,
  options: Options,
  effects: Effects,
  attempts: number,
  signal: AbortSignal,
): Promise<Response> {
  const response = await options.fetch(request.origin + request.path + request.query, {
    method: request.method,
    headers: { Accept: "application/json", ...request.headers, ...(isBrowser() ? {} : { "User-Agent": USER_AGENT }) },
    body: request.body,
    signal,
    redirect: "manual", // the credential is sent to the configured server only
    // Cookies would be a second credential. Other runtimes have none, and some of them refuse this member.
    ...(isBrowser() ? { credentials: "omit" as const } : {}),
  });
  const body = await response.text();
  const data = { status: response.status, headers: response.headers, attempts, receivedAt: effects.now() };
  const result = new Response({ ...data, body });
  return result.isSuccess ? result : new Response({ ...data, body: redact(body, request.secrets) });
}

function rejectOnAbort(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}
