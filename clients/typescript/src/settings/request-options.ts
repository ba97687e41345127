/** The options of a single call. */

import { InvalidArgumentError } from "../errors.js";
import { kindOf } from "./credential.js";

/** What every call takes, instead of the options of the client. */
export interface RequestOptions {
  /** Ends the call at once, with its waits and retries: it throws an APIUserAbortError. */
  readonly signal?: AbortSignal | null | undefined;
  /** Milliseconds for one attempt. */
  readonly timeout?: number | undefined;
  /** How often the call is retried. */
  readonly maxRetries?: number | undefined;
  /** Headers that are sent in addition to those of the client. They may not replace the credential. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
}

/** What every call takes that changes something. */
export interface IdempotencyOptions extends RequestOptions {
  /** Your own key, which survives a restart of your process. By default a random one. */
  readonly idempotencyKey?: string | undefined;
}

const NAMES = ["signal", "timeout", "maxRetries", "headers"] as const;
const CHANGE_NAMES = [...NAMES, "idempotencyKey"] as const;
const HEADER_NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const HEADER_TEXT = /^(?:[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?)?$/;
/** The client sets them itself: another credential, or another framing, would be sent beside its own. */
const OWN_HEADERS: ReadonlyMap<string, string> = new Map([
  ["authorization", "pass apiKey or accessToken"],
  ["content-length", "it is set automatically"],
  ["dpop", "pass dpopKey"],
  ["host", "pass baseUrl"],
  ["idempotency-key", "pass idempotencyKey"],
  ["transfer-encoding", "it is set automatically"],
]);

/**
 * Return the options of a call that reads, from its *params* or the *options* after them.
 *
 * Throw for a name that is neither one of *names*, which are those of the method's own parameters, nor an option: a
 * misspelled one, as `allowed_ips`, would be ignored.
 */
export function readingOptions(
  method: string,
  names: readonly string[],
  params: object,
  options?: RequestOptions,
): RequestOptions {
  return optionsOf(method, names, NAMES, params, options);
}

/** Return the options of a call that changes something, as `readingOptions` does. */
export function changingOptions(
  method: string,
  names: readonly string[],
  params: object,
  options?: IdempotencyOptions,
): IdempotencyOptions {
  return optionsOf(method, names, CHANGE_NAMES, params, options);
}

/** Return *headers*. Throw for those that a user may not set; errors show no value, which may be a secret. */
export function validateHeaders(name: string, headers: unknown): Readonly<Record<string, string>> {
  if (headers === undefined) return {};
  if (typeof headers !== "object" || headers === null || Array.isArray(headers)) {
    throw new InvalidArgumentError(`${name} is ${kindOf(headers)}, and has to be an object of strings.`);
  }
  for (const [header, value] of Object.entries(headers)) {
    if (!HEADER_NAME.test(header)) {
      throw new InvalidArgumentError(`${name}: ${JSON.stringify(header)} is not the name of a header.`);
    }
    const wayOut = OWN_HEADERS.get(header.toLowerCase());
    if (wayOut !== undefined) throw new InvalidArgumentError(`${name} may not hold ${header}: ${wayOut}.`);
    if (typeof value !== "string" || !HEADER_TEXT.test(value)) {
      throw new InvalidArgumentError(`${name}: the value of ${header} is not a line of ASCII characters.`);
    }
  }
  return headers as Readonly<Record<string, string>>;
}

/** Throw for a name in *params* that is not in *names*. */
export function checkNames(method: string, params: unknown, names: readonly string[]): void {
  if (typeof params !== "object" || params === null) {
    throw new InvalidArgumentError(
      `${method} takes an object of ${names.join(", ")}; what it got is ${kindOf(params)}.`,
    );
  }
  for (const name of Object.keys(params)) {
    if (names.includes(name)) continue;
    throw new InvalidArgumentError(`${method} takes no ${JSON.stringify(name)}; it takes ${names.join(", ")}.`);
  }
}

function optionsOf(
  method: string,
  names: readonly string[],
  optionNames: readonly string[],
  params: object,
  options: object = {},
): IdempotencyOptions {
  checkNames(method, params, [...names, ...optionNames]);
  checkNames(method, options, optionNames);
  const { signal, timeout, maxRetries, headers, idempotencyKey }: IdempotencyOptions = { ...params, ...options };
  if (signal !== undefined && signal !== null && !isSignal(signal)) {
    throw new InvalidArgumentError(`signal is ${kindOf(signal)}, and has to be an AbortSignal.`);
  }
  return { signal, timeout, maxRetries, headers: validateHeaders("headers", headers), idempotencyKey };
}

function isSignal(value: unknown): boolean {
  return typeof value === "object" && value !== null && "aborted" in value && "addEventListener" in value;
}
