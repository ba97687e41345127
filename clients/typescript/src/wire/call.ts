/**
 * A call as a value with everything that is sent, so that a retry sends the same bytes.
 *
 * Arguments are validated and serialized here, before anything is sent.
 */

import { InvalidArgumentError } from "../errors.js";
import { kindOf } from "../settings/credential.js";
import type { IdempotencyOptions } from "../settings/request-options.js";

const HEADER_VALUE = /^[\x21-\x7e]{1,255}$/;
const IDEMPOTENT: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]); // RFC 9110 §9.2.2

/** What `fetch` sends as it is: text, bytes or a form. */
export type Body = NonNullable<RequestInit["body"]>;

/** One logical call to the API, regardless of the number of attempts. */
export interface Call {
  readonly method: string;
  /** Without a query. */
  readonly path: string;
  readonly query?: Query;
  readonly body?: Body;
  /** The type of the body, by default JSON; `null` leaves it to `fetch`. */
  readonly contentType?: string | null;
  readonly accept?: string;
  readonly ifMatch?: string | undefined;
  readonly options: IdempotencyOptions;
  /** Whether the server performs calls with the same idempotency key once. If so, the call gets one; by default true. */
  readonly isDeduplicated?: boolean;
}

/** The values of a query; arrays are sent as several pairs, and `null` and `undefined` are left out. */
export type Query = Readonly<Record<string, QueryValue | readonly QueryValue[]>>;
/** One value of a query. */
export type QueryValue = string | number | boolean | null | undefined;

/** Return the headers of *call*, without its credential. Those of the call override *defaults*. */
export function headersOf(
  call: Call,
  defaults: Readonly<Record<string, string>>,
  newIdempotencyKey: () => string,
): Record<string, string> {
  const headers = new Map<string, [name: string, value: string]>();
  const set = (name: string, value: string | null | undefined): void => {
    if (value !== null && value !== undefined) headers.set(name.toLowerCase(), [name, value]);
  };
  set("Accept", call.accept ?? "application/json");
  if (call.body !== undefined)
    set("Content-Type", call.contentType === undefined ? "application/json" : call.contentType);
  for (const given of [defaults, call.options.headers ?? {}]) {
    for (const [name, value] of Object.entries(given)) set(name, value);
  }
  const given = headerValue("idempotencyKey", call.options.idempotencyKey);
  const needsKey = !IDEMPOTENT.has(call.method) && (call.isDeduplicated ?? true);
  set("Idempotency-Key", given ?? (needsKey ? newIdempotencyKey() : undefined));
  set("If-Match", headerValue("ifMatch", call.ifMatch));
  return Object.fromEntries(headers.values());
}

/** Return whether *call* can be repeated after the server may have performed it. */
export function isRepeatable(call: Call): boolean {
  return IDEMPOTENT.has(call.method) || (call.isDeduplicated ?? true) || call.options.idempotencyKey !== undefined;
}

/** Return the query of *call* with its question mark, or nothing without one. */
export function queryOf(call: Call): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(call.query ?? {})) {
    for (const item of Array.isArray(value) ? (value as readonly QueryValue[]) : [value as QueryValue]) {
      if (item !== undefined && item !== null) query.append(name, String(item));
    }
  }
  const text = String(query);
  return text === "" ? "" : `?${text}`;
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
  const names = Object.keys(members).filter((name) => members[name] !== undefined);
  return encodeJson(names.join(", "), members);
}

/** Return *value* as JSON. *names* are its arguments, for the error if it cannot be. */
export function encodeJson(names: string, value: unknown): string {
  try {
    const encoded = JSON.stringify(value, (_, member: unknown) => {
      if (typeof member === "number" && !Number.isFinite(member)) throw new TypeError(`${member} is no JSON`);
      return member;
    }) as string | undefined;
    if (encoded === undefined) throw new TypeError(`it is ${kindOf(value)}`);
    return encoded;
  } catch (cause) {
    const why = cause instanceof Error ? (cause.message.split("\n")[0] ?? "") : String(cause);
    throw new InvalidArgumentError(`${names}: there is a value that JSON cannot hold: ${why}.`);
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

function headerValue(name: string, value: unknown): string | undefined {
  if (value === undefined) return undefined;
  if (typeof value === "string" && HEADER_VALUE.test(value)) return value;
  throw new InvalidArgumentError(`${name} ${display(value)} is not 1–255 visible ASCII characters.`);
}

function display(value: unknown): string {
  return typeof value === "string" || typeof value === "number" ? JSON.stringify(value) : kindOf(value);
}
