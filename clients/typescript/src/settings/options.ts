/** How calls are made: to where, how long they may take, how often they are tried. All checked before the first. */

import { ConfigurationError } from "../errors.js";
import { kindOf } from "./credential.js";
import { variable } from "./environment.js";

const DEFAULT_BASE_URL = "https://api.machpay.xyz";
const DEFAULT_AUTH_URL = "https://auth.machpay.xyz";
const DEFAULT_TIMEOUT = 30_000;
const DEFAULT_MAX_RETRIES = 2;
const LONGEST_TIMEOUT = 2_147_483_647; // a timer of more wraps around, and ends at once
const LOOPBACK = /^(?:localhost|127\.[0-9]+\.[0-9]+\.[0-9]+|\[::1\])$/; // as the parser writes them

/** What sends a request: `fetch`, or what behaves like it. */
export type Fetch = (url: string, init: RequestInit) => Promise<globalThis.Response>;

/** What a client was told. `timeout` is in milliseconds, for one attempt. */
export interface Options {
  readonly baseUrl: string;
  readonly authUrl: string;
  readonly timeout: number;
  readonly maxRetries: number;
  readonly fetch: Fetch;
}

/** What of the options may be given; `undefined` is as if it were not. */
export interface GivenOptions {
  readonly baseUrl?: string | undefined;
  readonly authUrl?: string | undefined;
  readonly timeout?: number | undefined;
  readonly maxRetries?: number | undefined;
  readonly fetch?: Fetch | undefined;
}

/** Return the options that *given* means. Explicit beats the environment. */
export function optionsFrom(given: GivenOptions): Options {
  const baseUrl = addressFrom("baseUrl", given.baseUrl, "MACHPAY_BASE_URL");
  return {
    baseUrl: baseUrl ?? DEFAULT_BASE_URL,
    // Whoever says where the API is means all of it: a sandbox's tokens come from the sandbox.
    authUrl: addressFrom("authUrl", given.authUrl, "MACHPAY_AUTH_URL") ?? baseUrl ?? DEFAULT_AUTH_URL,
    timeout: checkedTimeout(given.timeout ?? DEFAULT_TIMEOUT),
    maxRetries: checkedMaxRetries(given.maxRetries ?? DEFAULT_MAX_RETRIES),
    fetch: checkedFetch(given.fetch),
  };
}

/** Return *options* with what is *given* in their place. */
export function changedOptions(options: Options, given: Pick<GivenOptions, "timeout" | "maxRetries">): Options {
  return {
    ...options,
    timeout: checkedTimeout(given.timeout ?? options.timeout),
    maxRetries: checkedMaxRetries(given.maxRetries ?? options.maxRetries),
  };
}

/** Return the milliseconds that a call may take with all its attempts and the waits between them. */
export function deadlineOf(options: Options): number {
  return options.timeout * (options.maxRetries + 1);
}

/** Refuse a name in *given* that is not *known*: a misspelt option would be no option. */
export function checkOptionNames(given: object, known: readonly string[]): void {
  for (const name of Object.keys(given)) {
    if (known.includes(name)) continue;
    throw new ConfigurationError(`There is no option ${JSON.stringify(name)}; there are: ${known.join(", ")}.`);
  }
}

function checkedTimeout(value: unknown): number {
  if (typeof value === "number" && value > 0 && value <= LONGEST_TIMEOUT) return value;
  throw new ConfigurationError(`timeout: ${String(value)} is not a positive number of milliseconds.`);
}

function checkedMaxRetries(value: unknown): number {
  if (typeof value === "number" && Number.isInteger(value) && value >= 0) return value;
  throw new ConfigurationError(`maxRetries: ${String(value)} is not a whole number from 0 upwards.`);
}

function checkedFetch(value: unknown): Fetch {
  if (value === undefined) return (url, init) => fetch(url, init);
  if (typeof value === "function") return value as Fetch;
  throw new ConfigurationError(`fetch is ${kindOf(value)}, and has to be a function.`);
}

function addressFrom(name: string, given: unknown, variableName: string): string | undefined {
  if (given !== undefined) return checkedAddress(name, given);
  const found = variable(variableName);
  return found ? checkedAddress(variableName, found) : undefined;
}

/** Read *value* with the parser that `fetch` reads it with: a second one could disagree about the host. */
function checkedAddress(name: string, value: unknown): string {
  const url = typeof value === "string" ? parsed(value) : null;
  if (url === null) throw new ConfigurationError(`${name} is not a URL; one is ${DEFAULT_BASE_URL}.`);
  const shown = `${name} "${url.protocol}//${url.host}${url.pathname}"`; // without what may be secret in it
  if (!/^https?:$/.test(url.protocol) || url.hostname === "") {
    throw new ConfigurationError(`${shown} is not an https:// address; one is ${DEFAULT_BASE_URL}.`);
  }
  if (url.username !== "" || url.password !== "" || url.search !== "" || url.hash !== "") {
    throw new ConfigurationError(`${shown} may hold a host, a port and a path, and nothing else.`);
  }
  if (url.protocol === "http:" && !LOOPBACK.test(url.hostname)) {
    throw new ConfigurationError(
      `${shown} would send the credential unencrypted; use https:// (http:// is for loopback).`,
    );
  }
  return (url.origin + url.pathname).replace(/\/+$/, "");
}

function parsed(value: string): URL | null {
  try {
    return new URL(value);
  } catch {
    return null;
  }
}
