/** The options of a client: addresses, timeout and retries. They are validated when the client is created. */

import { ConfigurationError, InvalidArgumentError } from "../errors.js";
import type { Hooks, Logger } from "../wire/hooks.js";
import { kindOf } from "./credential.js";
import { variable } from "./environment.js";
import { validateHeaders } from "./request-options.js";

const DEFAULT_BASE_URL = "https://api.machpay.xyz";
const DEFAULT_AUTH_URL = "https://auth.machpay.xyz";
const DEFAULT_TIMEOUT = 30_000;
const DEFAULT_MAX_RETRIES = 2;
const MAX_TIMEOUT = 2_147_483_647; // a longer timer overflows, and fires at once
const LOOPBACK = /^(?:localhost|127\.[0-9]+\.[0-9]+\.[0-9]+|\[::1\])$/; // as the URL parser serializes them

/** `fetch`, or a function with the same interface. */
export type Fetch = (url: string, init: RequestInit) => Promise<globalThis.Response>;

/** The options of a client. `timeout` is in milliseconds, for one attempt. */
export interface Options {
  readonly baseUrl: string;
  readonly authUrl: string;
  readonly timeout: number;
  readonly maxRetries: number;
  readonly fetch: Fetch;
  readonly headers: Readonly<Record<string, string>>;
  readonly hooks: Hooks;
  /** Whether secrets are accepted even in a browser. */
  readonly isTrusted: boolean;
}

/** The options that can be given. `undefined` means the default. */
export interface GivenOptions {
  readonly baseUrl?: string | undefined;
  readonly authUrl?: string | undefined;
  readonly timeout?: number | undefined;
  readonly maxRetries?: number | undefined;
  readonly fetch?: Fetch | undefined;
  readonly defaultHeaders?: Readonly<Record<string, string>> | undefined;
  readonly onRequest?: Hooks["onRequest"];
  readonly onResponse?: Hooks["onResponse"];
  readonly logger?: Logger | undefined;
  readonly dangerouslyAllowBrowser?: boolean | undefined;
}

/** Those that can be changed later. */
export type ChangeableOptions = Pick<GivenOptions, "timeout" | "maxRetries" | "defaultHeaders">;

/** Return the options with defaults for those that are not *given*. They override the environment. */
export function optionsFrom(given: GivenOptions): Options {
  const baseUrl = addressFrom("baseUrl", given.baseUrl, "MACHPAY_BASE_URL");
  return {
    baseUrl: baseUrl ?? DEFAULT_BASE_URL,
    // An address of the API implies one of the authorization server: a sandbox's tokens come from the sandbox.
    authUrl: addressFrom("authUrl", given.authUrl, "MACHPAY_AUTH_URL") ?? baseUrl ?? DEFAULT_AUTH_URL,
    timeout: validateTimeout(given.timeout ?? DEFAULT_TIMEOUT),
    maxRetries: validateMaxRetries(given.maxRetries ?? DEFAULT_MAX_RETRIES),
    fetch: validateFetch(given.fetch),
    headers: headersFrom(given.defaultHeaders),
    hooks: hooksFrom(given),
    isTrusted: given.dangerouslyAllowBrowser === true,
  };
}

/** Return *options* with the *given* ones changed. */
export function optionsWith(options: Options, given: ChangeableOptions): Options {
  return {
    ...options,
    timeout: validateTimeout(given.timeout ?? options.timeout),
    maxRetries: validateMaxRetries(given.maxRetries ?? options.maxRetries),
    headers: { ...options.headers, ...headersFrom(given.defaultHeaders) },
  };
}

/** Return the maximum duration of a call in milliseconds, with all attempts and the waits between them. */
export function deadlineOf(options: Options): number {
  return options.timeout * (options.maxRetries + 1);
}

/** Throw for a name in *given* that is not in *names*: a misspelled option would be ignored. */
export function checkOptionNames(given: object, names: readonly string[]): void {
  for (const name of Object.keys(given)) {
    if (names.includes(name)) continue;
    throw new ConfigurationError(`There is no option ${JSON.stringify(name)}; there are: ${names.join(", ")}.`);
  }
}

function validateTimeout(value: unknown): number {
  if (typeof value === "number" && value > 0 && value <= MAX_TIMEOUT) return value;
  throw new ConfigurationError(`timeout: ${String(value)} is not a positive number of milliseconds.`);
}

function validateMaxRetries(value: unknown): number {
  if (typeof value === "number" && Number.isInteger(value) && value >= 0) return value;
  throw new ConfigurationError(`maxRetries: ${String(value)} is not a whole number from 0 upwards.`);
}

function headersFrom(given: unknown): Readonly<Record<string, string>> {
  try {
    const headers = Object.entries(validateHeaders("defaultHeaders", given));
    return Object.fromEntries(headers.map(([name, value]) => [name.toLowerCase(), value]));
  } catch (error) {
    throw error instanceof InvalidArgumentError ? new ConfigurationError(error.message) : error;
  }
}

function hooksFrom({ onRequest, onResponse, logger }: GivenOptions): Hooks {
  for (const [name, value] of Object.entries({ onRequest, onResponse, "logger.debug": logger && logger.debug })) {
    if (value === undefined && (name !== "logger.debug" || logger === undefined)) continue;
    if (typeof value !== "function")
      throw new ConfigurationError(`${name} is ${kindOf(value)}, and has to be a function.`);
  }
  return { onRequest, onResponse, logger };
}

function validateFetch(value: unknown): Fetch {
  if (value === undefined) return (url, init) => fetch(url, init);
  if (typeof value === "function") return value as Fetch;
  throw new ConfigurationError(`fetch is ${kindOf(value)}, and has to be a function.`);
}

function addressFrom(name: string, given: unknown, variableName: string): string | undefined {
  if (given !== undefined) return parseAddress(name, given);
  const value = variable(variableName);
  return value ? parseAddress(variableName, value) : undefined;
}

/** Return *value* as an address. It is parsed as by `fetch`: another parser could see another host. */
function parseAddress(name: string, value: unknown): string {
  const url = typeof value === "string" ? parseUrl(value) : null;
  if (url === null) throw new ConfigurationError(`${name} is not a URL; one is ${DEFAULT_BASE_URL}.`);
  const redacted = `${name} "${url.protocol}//${url.host}${url.pathname}"`; // without the parts that may be secret
  if (!/^https?:$/.test(url.protocol) || url.hostname === "") {
    throw new ConfigurationError(`${redacted} is not an https:// address; one is ${DEFAULT_BASE_URL}.`);
  }
  if (url.username !== "" || url.password !== "" || url.search !== "" || url.hash !== "") {
    throw new ConfigurationError(`${redacted} may hold a host, a port and a path, and nothing else.`);
  }
  if (url.protocol === "http:" && !LOOPBACK.test(url.hostname)) {
    throw new ConfigurationError(
      `${redacted} would send the credential unencrypted; use https:// (http:// is for loopback).`,
    );
  }
  return (url.origin + url.pathname).replace(/\/+$/, "");
}

function parseUrl(value: string): URL | null {
  try {
    return new URL(value);
  } catch {
    return null;
  }
}
