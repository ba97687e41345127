/**
 * A call as a value with everything that is sent, so that a retry sends the same bytes.
 *
 * Arguments are validated and serialized here, before anything is sent.
 */

import { InvalidArgumentError } from "../errors.js";
import { kindOf } from "../settings/credential.js";

const HEADER_VALUE = /^[\x21-\x7e]{1,255}$/;

/** One logical call to the API, regardless of the number of attempts. */
export interface Call {
  readonly method: "GET" | "POST" | "PATCH";
  readonly path: string;
  readonly query?: Query;
  readonly body?: string;
  readonly idempotencyKey?: string | undefined;
  readonly ifMatch?: string | undefined;
}

export type Query = Readonly<Record<string, string | number | null | undefined>>;

/** Return the headers of *call*, without its credential. */
export function headersOf(call: Call, newIdempotencyKey: () => string): Record<string, string> {
  const headers: Record<string, string> = {};
  if (call.body !== undefined) headers["Content-Type"] = "application/json";
  if (call.method !== "GET") {
    headers["Idempotency-Key"] = headerValue("idempotencyKey", call.idempotencyKey) ?? newIdempotencyKey();
  }
  const ifMatch = headerValue("ifMatch", call.ifMatch);
  if (ifMatch !== undefined) headers["If-Match"] = ifMatch;
  return headers;
}

/** Return path and query of *call*. */
export function targetOf(call: Call): string {
  const given = Object.entries(call.query ?? {}).filter(([, value]) => value !== undefined && value !== null);
  const query = new URLSearchParams(given.map(([name, value]) => [name, String(value)]));
  return given.length > 0 ? `${call.path}?${query}` : call.path;
}

/** Return *value* percent-encoded as one segment of a path. Throw if it would change the path. */
export function segment(name: string, value: unknown): string {
  if (typeof value !== "string" || value === "") {
    throw new InvalidArgumentError(`${name} ${display(value)} is not an identifier.`);
  }
  if (value === "." || value === ".." || /[/\\]/.test(value)) {
    throw new InvalidArgumentError(`${name} ${display(value)} is not an identifier: it would change the path.`);
  }
  try {
    return encodeURIComponent(value);
  } catch {
    throw new InvalidArgumentError(`${name} is not an identifier: it is not valid Unicode.`);
  }
}

/** Return *members* as JSON, without those that are `undefined`. */
export function jsonOf(members: Readonly<Record<string, unknown>>): string {
  try {
    return JSON.stringify(members, (_, value: unknown) => {
      if (typeof value === "number" && !Number.isFinite(value)) throw new TypeError(`${value} is no JSON`);
      return value;
    });
  } catch (cause) {
    const names = Object.keys(members).filter((name) => members[name] !== undefined);
    const why = cause instanceof Error ? (cause.message.split("\n")[0] ?? "") : String(cause);
    throw new InvalidArgumentError(`${names.join(", ")}: there is a value that JSON cannot hold: ${why}.`);
  }
}

/** Return *value* as a list of strings. A single string is refused: it would be sent letter by letter. */
export function stringsOf(name: string, value: unknown): string[] | null | undefined {
  if (value === undefined || value === null) return value;
  if (typeof value !== "object" || !(Symbol.iterator in value)) {
    throw new InvalidArgumentError(`${name} is ${kindOf(value)}, and no list of strings; write ${name}: […].`);
  }
  return [...(value as Iterable<unknown>)].map((item) => {
    if (typeof item === "string") return item;
    throw new InvalidArgumentError(`${name} holds ${display(item)}, which is not a string.`);
  });
}

/** Return *value* in RFC 3339. */
export function momentOf(name: string, value: Date | string | null | undefined): string | null | undefined {
  if (!(value instanceof Date)) return value;
  if (Number.isNaN(value.getTime())) throw new InvalidArgumentError(`${name} is a Date without a time.`);
  return value.toISOString();
}

/** Return *value*, a non-empty string. Errors do not show it, because it may be a secret. */
export function textOf(name: string, value: unknown): string {
  if (typeof value === "string" && value !== "") return value;
  throw new InvalidArgumentError(`${name} is ${value === "" ? "empty" : kindOf(value)}, and has to be a string.`);
}

/** Throw for a name in *params* that is not in *names*: a misspelled one, as `allowed_ips`, would be ignored. */
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

function headerValue(name: string, value: unknown): string | undefined {
  if (value === undefined) return undefined;
  if (typeof value === "string" && HEADER_VALUE.test(value)) return value;
  throw new InvalidArgumentError(`${name} ${display(value)} is not 1–255 visible ASCII characters.`);
}

function display(value: unknown): string {
  return typeof value === "string" || typeof value === "number" ? JSON.stringify(value) : kindOf(value);
}
