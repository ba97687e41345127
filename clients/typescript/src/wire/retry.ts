/** Whether something is sent again, and after how long: arithmetic without a clock, a sleep or a die. */

import { APIConnectionError, APITimeoutError } from "../errors.js";
import { deadlineOf, type Options } from "../settings/options.js";
import { Response } from "./response.js";

const WORTH_RETRYING: ReadonlySet<number> = new Set([408, 429, 502, 503, 504]);
const CONFLICT = 409; // worth it only when the server says so: usually the conflict is still there
const FIRST_WAIT = 500;
const LONGEST_WAIT = 8_000;
const LONGEST_ASKED_SECONDS = 60; // told to wait any longer, a person or a queue waits better than a program
/** What fails before a byte of the request has left. */
const NOTHING_SENT: ReadonlySet<unknown> = new Set([
  "EAI_AGAIN",
  "ECONNREFUSED",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOTFOUND",
  "UND_ERR_CONNECT_TIMEOUT",
]);

/** When something may be sent twice: `unreceived` is for what the server takes once, as an authorization code. */
export type Repeat = "always" | "unreceived";

/** An attempt that brought no answer. */
export interface Lost {
  readonly error: APIConnectionError;
  readonly wasSent: boolean;
}

export type Outcome = Response | Lost;

/** How far it has come. Milliseconds. */
export interface Stand {
  readonly retries: number;
  readonly elapsed: number;
  readonly draw: number;
}

/** Return what it means that *what* got no answer within its time. */
export function timedOut(what: string): Lost {
  return { error: new APITimeoutError(`${what} was not answered in time.`), wasSent: true };
}

/** Return what *cause* means, thrown by `fetch` or while reading what it gave. */
export function lost(what: string, cause: unknown): Lost {
  const reasons = reasonsOf(cause);
  const last = reasons.at(-1);
  const said = (last?.message || String(codeOf(last) ?? last?.name ?? "no reason is told")).split(/\s+/).join(" ");
  return {
    error: new APIConnectionError(`${what} got no answer: ${said}`, { cause }),
    wasSent: !reasons.some((reason) => NOTHING_SENT.has(codeOf(reason))),
  };
}

/** Return the milliseconds to wait before sending it again, `null` when this *outcome* is the last. */
export function waitBeforeRetry(repeat: Repeat, outcome: Outcome, options: Options, stand: Stand): number | null {
  if (stand.retries >= options.maxRetries) return null;
  const wait = outcome instanceof Response ? waitAfter(repeat, outcome, stand) : waitAfterLoss(repeat, outcome, stand);
  return wait === null || stand.elapsed + wait >= deadlineOf(options) ? null : wait;
}

/** Return a wait with full jitter: whoever failed together does not come back together. */
export function backOff(retries: number, draw: number): number {
  return draw * Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** Math.min(retries, 10));
}

function waitAfterLoss(repeat: Repeat, { wasSent }: Lost, { retries, draw }: Stand): number | null {
  return repeat === "always" || !wasSent ? backOff(retries, draw) : null;
}

function waitAfter(repeat: Repeat, response: Response, { retries, draw }: Stand): number | null {
  const asked = response.retryAfter;
  if (repeat !== "always" || !isWorthRetrying(response, asked)) return null;
  if (asked === null) return backOff(retries, draw);
  return asked > LONGEST_ASKED_SECONDS ? null : asked * 1000;
}

function isWorthRetrying(response: Response, asked: number | null): boolean {
  const advice = response.headers.get("x-should-retry");
  if (advice === "false") return false;
  if (response.status === CONFLICT) return advice === "true" || asked !== null;
  return WORTH_RETRYING.has(response.status);
}

/** Return *cause* and what caused it: what `fetch` throws only says that it failed. */
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
