/** Whether and when a request is retried: pure functions without clock, sleep or randomness. */

import { APIConnectionError, APITimeoutError } from "../errors.js";
import { deadlineOf, type Options } from "../settings/options.js";
import { Response } from "./response.js";

const RETRYABLE: ReadonlySet<number> = new Set([408, 429, 500, 502, 503, 504]);
const CONFLICT = 409; // retryable only if the server says so: usually the conflict remains
const MIN_BACKOFF = 500;
const MAX_BACKOFF = 8_000;
// Longer waits are for the application. The gateway asks for 61 s after a burst, which is a window of a minute and the
// second that it rounds up to.
const MAX_RETRY_AFTER_SECONDS = 120;
const MAX_JITTER = 0.25; // of Retry-After
const TOO_MANY = 429; // refused, so the request had no effect
/** The codes of errors that occur before anything is sent. */
const NOT_SENT_CODES: ReadonlySet<unknown> = new Set([
  "EAI_AGAIN",
  "ECONNREFUSED",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOTFOUND",
  "UND_ERR_CONNECT_TIMEOUT",
]);

/**
 * When a request may be retried. `unreceived` is for what the server accepts once, such as an authorization code, and
 * `unperformed` for what could take effect twice.
 */
export type Repeat = "always" | "unreceived" | "unperformed";

/** An attempt without a response. */
export interface FailedAttempt {
  readonly error: APIConnectionError;
  readonly wasSent: boolean;
}

export type Outcome = Response | FailedAttempt;

/** The state of a call before a retry. Times are in milliseconds. */
export interface RetryState {
  readonly retries: number;
  readonly elapsed: number;
  readonly draw: number;
}

/** Return the failed attempt of a timeout. *what* is the start of the message. */
export function timedOut(what: string): FailedAttempt {
  return { error: new APITimeoutError(`${what} got no response in time.`), wasSent: true };
}

/** Return the failed attempt for *cause*, an error of `fetch` or of reading the body. */
export function failedAttempt(what: string, cause: unknown): FailedAttempt {
  const reasons = reasonsOf(cause);
  const last = reasons.at(-1);
  const reason = (last?.message || String(codeOf(last) ?? last?.name ?? "no reason given")).split(/\s+/).join(" ");
  return {
    error: new APIConnectionError(`${what} got no response: ${reason}`, { cause }),
    wasSent: !reasons.some((each) => NOT_SENT_CODES.has(codeOf(each))),
  };
}

/** Return the milliseconds to wait before the next attempt, or `null` to return this *outcome*. */
export function waitBeforeRetry(repeat: Repeat, outcome: Outcome, options: Options, state: RetryState): number | null {
  if (state.retries >= options.maxRetries) return null;
  const wait =
    outcome instanceof Response ? waitAfter(repeat, outcome, state) : waitAfterFailure(repeat, outcome, state);
  const left = deadlineOf(options) - state.elapsed;
  if (wait === null || wait >= left) return null;
  const isServers = outcome instanceof Response && outcome.retryAfter !== null;
  return isServers ? wait + jitter(wait, left - wait, state.draw) : wait;
}

/** Return an exponential backoff with full jitter, so that clients that failed together do not retry together. */
export function backOff(retries: number, draw: number): number {
  return draw * Math.min(MAX_BACKOFF, MIN_BACKOFF * 2 ** Math.min(retries, 10));
}

/** Return what a server's *wait* is prolonged by, so that all that it refused at once do not return at once. */
function jitter(wait: number, left: number, draw: number): number {
  const longest = Math.min(MAX_BACKOFF, Math.max(MIN_BACKOFF, wait * MAX_JITTER));
  return (1 - draw) * Math.min(longest, left / 2);
}

function waitAfterFailure(repeat: Repeat, { wasSent }: FailedAttempt, { retries, draw }: RetryState): number | null {
  return repeat === "always" || !wasSent ? backOff(retries, draw) : null;
}

function waitAfter(repeat: Repeat, response: Response, { retries, draw }: RetryState): number | null {
  const { retryAfter } = response;
  const isSafe = repeat === "always" || (repeat === "unperformed" && response.status === TOO_MANY);
  if (!isSafe || !isRetryable(response)) return null;
  if (retryAfter === null) return backOff(retries, draw);
  return retryAfter > MAX_RETRY_AFTER_SECONDS ? null : retryAfter * 1000;
}

function isRetryable(response: Response): boolean {
  const advice = response.headers.get("x-should-retry");
  if (advice === "false") return false;
  if (response.status === CONFLICT) return advice === "true" || response.retryAfter !== null;
  return RETRYABLE.has(response.status);
}

/** Return *cause* and its own causes: the error of `fetch` itself has no details. */
function reasonsOf(cause: unknown): Error[] {
  const reasons: Error[] = [];
  for (let reason = cause; reason instanceof Error && !reasons.includes(reason); reason = reason.cause) {
    reasons.push(reason);
  }
  return reasons;
}

function codeOf(error: Error | undefined): unknown {
  return error !== undefined && "code" in error ? error.code : undefined;
}
