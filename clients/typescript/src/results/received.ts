/** What all results have in common: how they came, and the members that this release does not know. */

import type { Members } from "../wire/reading.js";
import type { RateLimit } from "../wire/rate-limit.js";
import type { Response } from "../wire/response.js";
import { Shown } from "../wire/shown.js";

/** A result. */
export abstract class Received extends Shown {
  readonly #response: Response;
  readonly #of: Members;

  /** @internal */
  constructor(of: Members, response: Response) {
    super();
    this.#of = of;
    this.#response = response;
  }

  /** What a newer server sends besides, as it came. */
  get extra(): Readonly<Record<string, unknown>> {
    return this.#of.rest();
  }

  /** How it came: status, headers, body. */
  get response(): Response {
    return this.#response;
  }

  /** What the server calls the request that brought this. */
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
