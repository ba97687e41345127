/** The HTTP response that every result and every error has. */

import { InvalidResponseError } from "../errors.js";
import { rateLimitFrom, type RateLimit } from "./rate-limit.js";
import { SafeOutput } from "./safe-output.js";

const SECONDS = /^[0-9]{1,10}$/;
const DATE = /^[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT$/;

/** @internal */
export interface ResponseData {
  readonly status: number;
  readonly headers: Headers;
  readonly body: string;
  readonly attempts: number;
  readonly receivedAt: number;
}

/** A response. `attempts` counts the requests that it took. */
export class Response extends SafeOutput {
  /** The HTTP status. */
  readonly status: number;
  /** The headers. */
  readonly headers: Headers;
  /** How many requests it took. */
  readonly attempts: number;
  /** The time of the response, in milliseconds since the epoch. */
  readonly receivedAt: number;
  readonly #body: string; // may hold a new key's secret, or tokens

  /** @internal */
  constructor(data: ResponseData) {
    super();
    this.status = data.status;
    this.headers = data.headers;
    this.attempts = data.attempts;
    this.receivedAt = data.receivedAt;
    this.#body = data.body;
  }

  /** The body as text. */
  get body(): string {
    return this.#body;
  }

  /** Return the body as a JSON value, whose type is not checked. Throw an InvalidResponseError if it is not JSON. */
  json<T = unknown>(): T {
    try {
      return JSON.parse(this.#body) as T;
    } catch {
      const kind = this.headers.get("content-type") ?? "of unknown type";
      throw new InvalidResponseError(`The response is not JSON but ${kind} (status ${this.status}).`, this);
    }
  }

  /** The body as text. */
  get text(): string {
    return this.#body;
  }

  /** Whether the status is 2xx. */
  get isSuccess(): boolean {
    return this.status >= 200 && this.status < 300;
  }

  /** Whether it is a redirect. Browsers hide its status, and report 0. */
  get isRedirect(): boolean {
    return this.status === 0 || (this.status >= 300 && this.status < 400);
  }

  /** The server's id of the request, for questions to support. */
  get requestId(): string | null {
    return this.headers.get("x-request-id");
  }

  /** The limits that the request counted against. */
  get rateLimit(): RateLimit | null {
    return rateLimitFrom(this.headers.get("ratelimit-policy"), this.headers.get("ratelimit"));
  }

  /** The seconds to wait before a retry, or `null` if Retry-After is missing or malformed. */
  get retryAfter(): number | null {
    const raw = (this.headers.get("retry-after") ?? "").trim();
    if (SECONDS.test(raw)) return Number(raw);
    const until = moment(raw);
    if (until === null) return null;
    // Relative to the server's own clock if it sends Date: the local clock may be minutes off.
    const now = moment(this.headers.get("date") ?? "") ?? this.receivedAt;
    return Math.max(0, (until - now) / 1000);
  }

  override toJSON(): object {
    return { status: this.status, requestId: this.requestId, attempts: this.attempts };
  }
}

/** Return an HTTP date (RFC 9110 §5.6.7) in milliseconds since the epoch. `Date.parse` alone accepts "1.5". */
function moment(httpDate: string): number | null {
  const parsed = DATE.test(httpDate) ? Date.parse(httpDate) : Number.NaN;
  return Number.isNaN(parsed) ? null : parsed;
}
