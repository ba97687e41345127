/** Parsing of JSON responses. Optional members may be missing, unknown ones are preserved, wrong types are errors. */

import { InvalidResponseError } from "../errors.js";
import type { Response } from "./response.js";

/** A JSON object with unparsed members. */
export type Json = Readonly<Record<string, unknown>>;

const MOMENT = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)?$/;

/** A member is missing or has the wrong type. */
export class ParseError extends Error {}

/** Parses the members of a JSON object one by one. Those not yet parsed are the rest. */
export class ObjectParser {
  readonly #remaining: Map<string, unknown>;

  constructor(members: Json) {
    this.#remaining = new Map(Object.entries(members));
  }

  /** Return the member *name*. */
  required<T>(name: string, read: (value: unknown) => T): T {
    if ((this.#remaining.get(name) ?? null) === null) throw new ParseError(`${name} is missing`);
    return this.#read(name, read);
  }

  /** Return the member *name*, or *defaultValue* if it is missing or null. */
  optional<T, U>(name: string, read: (value: unknown) => T, defaultValue: U): T | U {
    if ((this.#remaining.get(name) ?? null) !== null) return this.#read(name, read);
    this.#remaining.delete(name);
    return defaultValue;
  }

  /** Return the members that were not parsed. */
  rest(): Json {
    return Object.fromEntries(this.#remaining);
  }

  #read<T>(name: string, read: (value: unknown) => T): T {
    const value = this.#remaining.get(name);
    this.#remaining.delete(name);
    try {
      return read(value);
    } catch (error) {
      throw error instanceof ParseError ? new ParseError(`${name}: ${error.message}`) : error;
    }
  }
}

export function text(value: unknown): string {
  if (typeof value !== "string") throw new ParseError("not a string");
  return value;
}

export function flag(value: unknown): boolean {
  if (typeof value !== "boolean") throw new ParseError("neither true nor false");
  return value;
}

export function number(value: unknown): number {
  if (typeof value !== "number") throw new ParseError("not a number");
  return value;
}

export function whole(value: unknown): number {
  if (!Number.isInteger(value)) throw new ParseError("not a whole number");
  return number(value);
}

/** Return *value*, a time in RFC 3339. One without an offset is taken as UTC. */
export function moment(value: unknown): Date {
  const [, seconds = "", fraction = "", zone = "Z"] = MOMENT.exec(text(value)) ?? [];
  const date = new Date(`${seconds}${fraction.slice(0, 4)}${zone}`); // truncated to the precision of a Date
  if (Number.isNaN(date.getTime())) throw new ParseError("not a time");
  return date;
}

export function items(value: unknown): readonly unknown[] {
  if (!Array.isArray(value)) throw new ParseError("not an array");
  return value;
}

export function texts(value: unknown): readonly string[] {
  return items(value).map(text);
}

export function record(value: unknown): Json {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new ParseError("not an object");
  return value as Json;
}

export function counts(value: unknown): Readonly<Record<string, number>> {
  return Object.fromEntries(Object.entries(record(value)).map(([name, count]) => [name, whole(count)]));
}

export function anything(value: unknown): unknown {
  return value;
}

/** Return the JSON object in *response*, parsed by *read*. */
export function parseObject<T>(response: Response, read: (members: Json, response: Response) => T): T {
  try {
    return read(record(jsonIn(response)), response);
  } catch (error) {
    if (!(error instanceof ParseError)) throw error;
    const message = `The response is invalid: ${error.message}. Is this package too old?`;
    throw new InvalidResponseError(message, response);
  }
}

function jsonIn(response: Response): unknown {
  try {
    return JSON.parse(response.body);
  } catch {
    const kind = response.headers.get("content-type") ?? "of unknown type";
    const message = `The response is not JSON but ${kind} (status ${response.status}); is baseUrl right?`;
    throw new InvalidResponseError(message, response);
  }
}
