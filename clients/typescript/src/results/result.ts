/** What all results have in common: their response, and members that this release does not know. */

import { masked } from "../settings/credential.js";
import type { ObjectParser } from "../wire/parsing.js";
import type { RateLimit } from "../wire/rate-limit.js";
import type { Response } from "../wire/response.js";
import { SafeOutput } from "../wire/safe-output.js";

const SECRET_NAME = /token|secret|password|assertion/i;
const SECRET_VALUE = /^(?:sk|cs)_/;

/** Return *members* with what may be a secret masked: nobody knows what a newer server sends. */
export function withoutSecrets(members: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(members).map(([name, value]) => [name, shown(name, value)]));
}

function shown(name: string, value: unknown): unknown {
  if (typeof value === "string") return SECRET_NAME.test(name) || SECRET_VALUE.test(value) ? masked(value) : value;
  if (Array.isArray(value)) return value.map((item: unknown) => shown(name, item));
  return typeof value === "object" && value !== null ? withoutSecrets(value as Record<string, unknown>) : value;
}

/** A result. */
export abstract class Result extends SafeOutput {
  readonly #response: Response;
  readonly #parser: ObjectParser;

  /** @internal */
  constructor(parser: ObjectParser, response: Response) {
    super();
    this.#parser = parser;
    this.#response = response;
  }

  /** Members that only newer servers send, unparsed. */
  get extra(): Readonly<Record<string, unknown>> {
    return this.#parser.rest();
  }

  /** The HTTP response: status, headers, body. */
  get response(): Response {
    return this.#response;
  }

  /** The server's id of the request. */
  get requestId(): string | null {
    return this.#response.requestId;
  }

  /** The limits that the request counted against. */
  get rateLimit(): RateLimit | null {
    return this.#response.rateLimit;
  }

  /** Return all members, unknown ones by the server's names. Secrets and tokens are masked. */
  override toJSON(): object {
    return { ...withoutSecrets(this.extra), ...this };
  }
}
