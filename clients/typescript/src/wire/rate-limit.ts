/**
 * Parsing of RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-11).
 *
 * Both are lists of structured fields (RFC 9651). Only what the draft uses is supported: strings or tokens with
 * parameters. A malformed header counts as missing, and is never an error: the response is still useful.
 */

const STRING = String.raw`"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"`;
const TOKEN = String.raw`[A-Za-z*][!#$%&'*+\-.^_${"`"}|~0-9A-Za-z:/]*`;
const INTEGER = String.raw`-?[0-9]{1,15}(?![0-9.])`;
const OTHER = String.raw`-?[0-9]{1,12}\.[0-9]{1,3}|:[A-Za-z0-9+/=]*:|\?[01]|@-?[0-9]{1,15}|%"[^"]*"`;
const NAME = `(${STRING})|(${TOKEN})`;
const PARAMETER = String.raw`; *([a-z*][a-z0-9_\-.*]*)(?:=(?:(${STRING})|(${TOKEN})|(${INTEGER})|(?:${OTHER})))?`;
const COMMA = String.raw`[ \t]*,[ \t]*`;

type Parameters = ReadonlyMap<string, string | number | null>;

/** One limit, and how much of it is left. `null` means that the server did not send the value. */
export interface RateLimitPolicy {
  /** Its name, as in `minute`. */
  readonly name: string;
  /** The units of a window. */
  readonly quota: number | null;
  /** The length of the window; `null` for months and concurrency. */
  readonly windowSeconds: number | null;
  /** What is counted, by default `requests`. */
  readonly unit: string;
  /** The units that are left. */
  readonly remaining: number | null;
  /** Seconds until a unit frees. */
  readonly resetSeconds: number | null;
}

/** The limits that a request counted against: `rateLimit.get("minute")?.remaining`. */
export class RateLimit implements Iterable<RateLimitPolicy> {
  /** The limits, in the server's order. */
  readonly policies: readonly RateLimitPolicy[];

  /** @internal */
  constructor(policies: readonly RateLimitPolicy[]) {
    this.policies = policies;
  }

  /** Return the policy of that name, or `undefined`. */
  get(name: string): RateLimitPolicy | undefined {
    return this.policies.find((policy) => policy.name === name);
  }

  [Symbol.iterator](): Iterator<RateLimitPolicy> {
    return this.policies[Symbol.iterator]();
  }
}

/** Return the limits in RateLimit-Policy and RateLimit, or `null` without any. */
export function rateLimitFrom(policyField: string | null, stateField: string | null): RateLimit | null {
  const limits = itemsOf(policyField);
  const states = itemsOf(stateField);
  const names = [...new Set([...limits.keys(), ...states.keys()])]; // in the server's order, each once
  if (names.length === 0) return null;
  const none: Parameters = new Map();
  return new RateLimit(names.map((name) => policyFrom(name, limits.get(name) ?? none, states.get(name) ?? none)));
}

function policyFrom(name: string, limit: Parameters, state: Parameters): RateLimitPolicy {
  const unit = limit.get("qu");
  return {
    name,
    quota: integer(limit, "q"),
    windowSeconds: integer(limit, "w"),
    unit: typeof unit === "string" ? unit : "requests",
    remaining: integer(state, "r"),
    resetSeconds: integer(state, "t"),
  };
}

function integer(parameters: Parameters, name: string): number | null {
  const value = parameters.get(name);
  return typeof value === "number" ? value : null;
}

/** Return the items of a list with their parameters; or none if any part is malformed (RFC 9651 §4.2). */
function itemsOf(raw: string | null): ReadonlyMap<string, Parameters> {
  const text = new Cursor((raw ?? "").replace(/^ +| +$/g, ""));
  const items = new Map<string, Parameters>();
  const none = new Map<string, Parameters>();
  while (!text.isAtEnd) {
    const name = text.take(NAME);
    if (name === null) return none;
    items.set(name[1] === undefined ? (name[2] ?? "") : unquoted(name[1]), parametersAt(text));
    if (text.isAtEnd) return items;
    if (text.take(COMMA) === null || text.isAtEnd) return none;
  }
  return items;
}

function parametersAt(text: Cursor): Parameters {
  const parameters = new Map<string, string | number | null>();
  for (let match = text.take(PARAMETER); match !== null; match = text.take(PARAMETER)) {
    const [, key, string, token, whole] = match;
    const value = string === undefined ? (token ?? (whole === undefined ? null : Number(whole))) : unquoted(string);
    parameters.set(key ?? "", value);
  }
  return parameters;
}

function unquoted(string: string): string {
  return string.slice(1, -1).replace(/\\(.)/g, "$1");
}

/** A text with a position. */
class Cursor {
  readonly #text: string;
  #position = 0;

  constructor(text: string) {
    this.#text = text;
  }

  get isAtEnd(): boolean {
    return this.#position >= this.#text.length;
  }

  /** Return the match at the position, and advance past it. */
  take(pattern: string): RegExpExecArray | null {
    const sticky = new RegExp(pattern, "y");
    sticky.lastIndex = this.#position;
    const match = sticky.exec(this.#text);
    if (match !== null) this.#position = sticky.lastIndex;
    return match;
  }
}
