/** Sends one thing: one attempt after the other, until there is an answer or no sense in going on. */

import { isBrowser } from "../settings/environment.js";
import { without } from "../settings/credential.js";
import { deadlineOf, type Options } from "../settings/options.js";
import { VERSION } from "../version.js";
import type { Effects } from "./effects.js";
import { Response } from "./response.js";
import { lost, timedOut, waitBeforeRetry, type Outcome, type Repeat } from "./retry.js";

const USER_AGENT = `machpay-typescript/${VERSION}`;
const LEAST = 1; // a sleep may overrun what was left, and a timeout is never negative

/** What is sent, the same in each attempt. */
export interface Parcel {
  readonly method: string;
  /** Where to, without the query: it goes into messages. */
  readonly origin: string;
  readonly path: string;
  readonly query: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | null;
  readonly repeat: Repeat;
  /** What an error's answer must not show. */
  readonly secrets: readonly string[];
}

/** What a call has used up, over all parcels that it takes. */
export class Spent {
  attempts = 0;
  retries = 0;
  readonly #monotonic: () => number;
  #began: number;

  constructor(monotonic: () => number) {
    this.#monotonic = monotonic;
    this.#began = monotonic();
  }

  /** The milliseconds since it began. */
  get elapsed(): number {
    return this.#monotonic() - this.#began;
  }

  /** Return what *work* brings, whose time is not the call's own. */
  async aside<T>(work: () => Promise<T>): Promise<T> {
    const began = this.#monotonic();
    const result = await work();
    this.#began += this.#monotonic() - began;
    return result;
  }
}

/** Return the last outcome of sending *parcel*. */
export async function deliver(parcel: Parcel, options: Options, effects: Effects, spent: Spent): Promise<Outcome> {
  for (;;) {
    const left = Math.max(deadlineOf(options) - spent.elapsed, LEAST);
    spent.attempts += 1;
    const outcome = await attempt(parcel, options, effects, spent.attempts, Math.min(options.timeout, left));
    if (outcome instanceof Response && outcome.isSuccess) return outcome;
    const stand = { retries: spent.retries, elapsed: spent.elapsed, draw: effects.draw() };
    const wait = waitBeforeRetry(parcel.repeat, outcome, options, stand);
    if (wait === null) return outcome;
    await effects.sleep(wait);
    spent.retries += 1;
  }
}

async function attempt(
  parcel: Parcel,
  options: Options,
  effects: Effects,
  attempts: number,
  timeout: number,
): Promise<Outcome> {
  const what = `${parcel.method} ${parcel.path} at ${parcel.origin}`;
  const ending = new AbortController();
  const timer = setTimeout(() => ending.abort(), timeout);
  try {
    // Raced, since a `fetch` that was given need not look at its signal.
    return await Promise.race([exchange(parcel, options, effects, attempts, ending.signal), ended(ending.signal)]);
  } catch (cause) {
    return ending.signal.aborted ? timedOut(what) : lost(what, cause);
  } finally {
    clearTimeout(timer);
  }
}

async function exchange(
  parcel: Parcel,
  options: Options,
  effects: Effects,
  attempts: number,
  signal: AbortSignal,
): Promise<Response> {
  const answer = await options.fetch(parcel.origin + parcel.path + parcel.query, {
    method: parcel.method,
    headers: { Accept: "application/json", ...parcel.headers, ...(isBrowser() ? {} : { "User-Agent": USER_AGENT }) },
    body: parcel.body,
    signal,
    redirect: "manual", // the credential goes where it was meant to, and nowhere else
    // Cookies would be a second credential. Elsewhere than in browsers there are none, and some refuse the very member.
    ...(isBrowser() ? { credentials: "omit" as const } : {}),
  });
  const body = await answer.text();
  const received = { status: answer.status, headers: answer.headers, attempts, receivedAt: effects.now() };
  const response = new Response({ ...received, body });
  return response.isSuccess ? response : new Response({ ...received, body: without(body, parcel.secrets) });
}

function ended(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}
