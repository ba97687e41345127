/** What all results have in common: their response, and members that this release does not know. */

import type { ObjectParser } from "../wire/parsing.js";
import type { RateLimit } from "../wire/rate-limit.js";
import type { Response } from "../wire/response.js";
import { SafeOutput } from "../wire/safe-output.js";

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

  override toJSON(): object {
    return { ...this };
  }
}
