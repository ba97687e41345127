/** JSON into values, once, at the edge. Missing optional members are tolerated, unknown ones kept, wrong ones told. */

import { InvalidResponseError } from "../errors.js";
import type { Response } from "./response.js";

/** A JSON object, its members as they came. */
export type Json = Readonly<Record<string, unknown>>;

const MOMENT = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)?$/;

/** A member is not what it has to be. */
class Unreadable extends Error {}

/** The members of a JSON object, of which those not yet read are the rest. */
export class Members {
  readonly #unread: Map<string, unknown>;

  constructor(members: Json) {
    this.#unread = new Map(Object.entries(members));
  }

  /** Return the member *name*. */
  required<T>(name: string, read: (value: unknown) => T): T {
    if ((this.#unread.get(name) ?? null) === null) throw new Unreadable(`${name} is missing`);
    return this.#read(name, read);
  }

  /** Return the member *name*, or *otherwise* when it is missing or null. */
  optional<T, U>(name: string, read: (value: unknown) => T, otherwise: U): T | U {
    if ((this.#unread.get(name) ?? null) !== null) return this.#read(name, read);
    this.#unread.delete(name);
    return otherwise;
  }

  /** Return what nobody read. */
  rest(): Json {
    return Object.fromEntries(this.#unread);
  }

  #read<T>(name: string, read: (value: unknown) => T): T {
    const value = this.#unread.get(name);
    this.#unread.delete(name);
    try {
      return read(value);
    } catch (error) {
      throw error instanceof Unreadable ? new Unreadable(`${name}: ${error.message}`) : error;
    }
  }
}

export function text(value: unknown): string {
  if (typeof value !== "string") throw new Unreadable("not a string");
  return value;
}

export function flag(value: unknown): boolean {
  if (typeof value !== "boolean") throw new Unreadable("neither true nor false");
  return value;
}

export function number(value: unknown): number {
  if (typeof value !== "number") throw new Unreadable("not a number");
  return value;
}

export function whole(value: unknown): number {
  if (!Number.isInteger(value)) throw new Unreadable("not a whole number");
  return number(value);
}

/** Return *value*, a time in RFC 3339. The API's times are UTC, also when one should not say so. */
export function moment(value: unknown): Date {
  const [, seconds = "", fraction = "", zone = "Z"] = MOMENT.exec(text(value)) ?? [];
  const read = new Date(`${seconds}${fraction.slice(0, 4)}${zone}`); // more digits than a Date has are cut off
  if (Number.isNaN(read.getTime())) throw new Unreadable("not a time");
  return read;
}

export function items(value: unknown): readonly unknown[] {
  if (!Array.isArray(value)) throw new Unreadable("not an array");
  return value;
}

export function texts(value: unknown): readonly string[] {
  return items(value).map(text);
}

export function record(value: unknown): Json {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Unreadable("not an object");
  return value as Json;
}

export function counts(value: unknown): Readonly<Record<string, number>> {
  return Object.fromEntries(Object.entries(record(value)).map(([name, count]) => [name, whole(count)]));
}

export function anything(value: unknown): unknown {
  return value;
}

/** Return what *read* makes of the JSON object in *response*. */
export function readObject<T>(response: Response, read: (members: Json, response: Response) => T): T {
  try {
    return read(record(jsonIn(response)), response);
  } catch (error) {
    if (!(error instanceof Unreadable)) throw error;
    const message = `The answer cannot be read: ${error.message}. Is this package too old?`;
    throw new InvalidResponseError(message, response);
  }
}

function jsonIn(response: Response): unknown {
  try {
    return JSON.parse(response.body);
  } catch {
    const kind = response.headers.get("content-type") ?? "nothing that says what it is";
    const message = `The answer is no JSON but ${kind} (status ${response.status}); is baseUrl right?`;
    throw new InvalidResponseError(message, response);
  }
}
