/** What came back over the wire: a value that every result and every error carries. */

import { rateLimitFrom, type RateLimit } from "./rate-limit.js";
import { Shown } from "./shown.js";

const SECONDS = /^[0-9]{1,10}$/;
const DATE = /^[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT$/;

/** @internal */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: string;
  readonly attempts: number;
  readonly receivedAt: number;
}

/** An answer of the server. `attempts` counts the requests that it took. */
export class Response extends Shown {
  readonly status: number;
  readonly headers: Headers;
  readonly attempts: number;
  /** When it came, in milliseconds since the epoch. */
  readonly receivedAt: number;
  readonly #body: string; // may hold a new key's secret, or tokens

  /** @internal */
  constructor(answer: Answer) {
    super();
    this.status = answer.status;
    this.headers = answer.headers;
    this.attempts = answer.attempts;
    this.receivedAt = answer.receivedAt;
    this.#body = answer.body;
  }

  /** The body as text. */
  get body(): string {
    return this.#body;
  }

  /** Whether the status is one of 2xx. */
  get isSuccess(): boolean {
    return this.status >= 200 && this.status < 300;
  }

  /** Whether it leads elsewhere. A browser hides where to, and the status with it: 0. */
  get isRedirect(): boolean {
    return this.status === 0 || (this.status >= 300 && this.status < 400);
  }

  /** What the server calls the request; name it to support. */
  get requestId(): string | null {
    return this.headers.get("x-request-id");
  }

  /** The limits that the request counted against. */
  get rateLimit(): RateLimit | null {
    return rateLimitFrom(this.headers.get("ratelimit-policy"), this.headers.get("ratelimit"));
  }

  /** The seconds to wait before asking again, `null` when Retry-After is missing or malformed. */
  get retryAfter(): number | null {
    const raw = (this.headers.get("retry-after") ?? "").trim();
    if (SECONDS.test(raw)) return Number(raw);
    const until = moment(raw);
    if (until === null) return null;
    // Measured by the server's own clock where it is told: ours may be minutes off.
    const now = moment(this.headers.get("date") ?? "") ?? this.receivedAt;
    return Math.max(0, (until - now) / 1000);
  }

  override toJSON(): object {
    return { status: this.status, requestId: this.requestId, attempts: this.attempts };
  }
}

/** Return an HTTP date (RFC 9110 §5.6.7) in milliseconds since the epoch. `Date.parse` alone takes "1.5" for one. */
function moment(httpDate: string): number | null {
  const parsed = DATE.test(httpDate) ? Date.parse(httpDate) : Number.NaN;
  return Number.isNaN(parsed) ? null : parsed;
}
