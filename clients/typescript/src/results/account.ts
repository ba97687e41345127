/** The account and the identity of the caller. */

import { flag, items, moment, number, ObjectParser, record, text, texts, type Json } from "../wire/parsing.js";
import type { Response } from "../wire/response.js";
import { Result, withoutSecrets } from "./result.js";

/** The account that the credential belongs to. Its members are up to the API: all but the id are in `.extra`, too. */
export class Account extends Result {
  /** The id of the account, if the API sends one. */
  readonly id: string | null;
  /** Its name. */
  readonly name: string | null;
  /** The currency of the balance. */
  readonly currency: string | null;
  /** Its balance, in units that the API defines. */
  readonly balance: number | null;

  /** @internal */
  constructor(parser: ObjectParser, response: Response) {
    super(parser, response);
    this.id = parser.optional("id", text, null);
    const { name, currency, balance } = parser.rest();
    this.name = typeof name === "string" ? name : null;
    this.currency = typeof currency === "string" ? currency : null;
    this.balance = typeof balance === "number" ? balance : null;
  }

  override toJSON(): object {
    return { ...this, ...withoutSecrets(this.extra) };
  }
}

/** The limits of the caller's tier. */
export interface TierLimits {
  /** Requests per window, as in `1000/minute`. */
  readonly rate: string | null;
  /** Requests in a window. */
  readonly requests: number | null;
  /** The length of the window. */
  readonly windowSeconds: number | null;
  /** Requests at the same time. */
  readonly concurrency: number | null;
}

/** What is left of the limits after this request. */
export interface RemainingLimits {
  /** Requests in this window. */
  readonly requests: number | null;
  /** Seconds until the window has room again. */
  readonly resetSeconds: number | null;
  /** Requests at the same time. */
  readonly concurrency: number | null;
}

/** A limit that the caller counts against, and what is left of it. */
export interface PolicyLevel {
  /** Its name in RateLimit-Policy. */
  readonly policy: string | null;
  /** The units of a window. */
  readonly limit: number | null;
  /** The length of the window; `null` for months and concurrency. */
  readonly windowSeconds: number | null;
  /** The units that are left. */
  readonly remaining: number | null;
  /** Seconds until a unit frees; `null` for concurrency. */
  readonly resetSeconds: number | null;
  /** Whether requests over the limit are refused. */
  readonly enforced: boolean | null;
}

/** The caller as the server identifies it. What follows `scopes` is in `.extra`, too, as the server sends it. */
export class Identity extends Result {
  /** The id of the credential. */
  readonly id: string | null;
  /** Its name. */
  readonly name: string | null;
  /** `live` or `test`. */
  readonly environment: Environment | null;
  /** The tier that its limits come from. */
  readonly tier: string | null;
  /** What it may do. */
  readonly scopes: readonly string[];
  /** What kind of credential it is. */
  readonly kind: "api_key" | "session" | "oauth" | "jwt" | "custom" | (string & {}) | null;
  /** The id of its account. */
  readonly accountId: string | null;
  /** When it expires; `null` if never. */
  readonly expiresAt: Date | null;
  /** The limits of its tier. */
  readonly limits: TierLimits | null;
  /** What is left of them. */
  readonly remaining: RemainingLimits | null;
  /** Every limit that it counts against. */
  readonly policies: readonly PolicyLevel[];
  readonly #others: Readonly<Record<string, unknown>>;
  readonly #unknown: Readonly<Record<string, unknown>>;

  /** @internal */
  constructor(parser: ObjectParser, response: Response) {
    super(parser, response);
    parser.optional("object", text, null);
    this.id = parser.optional("id", text, null);
    this.name = parser.optional("name", text, null);
    this.environment = parser.optional("environment", text, null);
    this.tier = parser.optional("tier", text, null);
    this.scopes = parser.optional("scopes", texts, []);
    this.#others = parser.rest();
    this.kind = parser.optional("kind", text, null);
    this.accountId = parser.optional("account_id", text, null);
    this.expiresAt = parser.optional("expires_at", moment, null);
    this.limits = parser.optional("limits", limitsFrom, null);
    this.remaining = parser.optional("remaining", remainingFrom, null);
    this.policies = parser.optional("policies", (value) => items(value).map(policyFrom), []);
    this.#unknown = parser.rest();
  }

  override get extra(): Readonly<Record<string, unknown>> {
    return this.#others;
  }

  override toJSON(): object {
    return { ...withoutSecrets(this.#unknown), ...this };
  }
}

/** `live` or `test`; a newer server may have others. */
export type Environment = "live" | "test" | (string & {});

/** Return the account in *response*. */
export function accountFrom(members: Json, response: Response): Account {
  return new Account(new ObjectParser(members), response);
}

/** Return the identity in *response*. */
export function identityFrom(members: Json, response: Response): Identity {
  return new Identity(new ObjectParser(members), response);
}

function limitsFrom(value: unknown): TierLimits {
  const parser = new ObjectParser(record(value));
  return {
    rate: parser.optional("rate", text, null),
    requests: parser.optional("requests", number, null),
    windowSeconds: parser.optional("window_seconds", number, null),
    concurrency: parser.optional("concurrency", number, null),
  };
}

function remainingFrom(value: unknown): RemainingLimits {
  const parser = new ObjectParser(record(value));
  return {
    requests: parser.optional("requests", number, null),
    resetSeconds: parser.optional("reset_seconds", number, null),
    concurrency: parser.optional("concurrency", number, null),
  };
}

function policyFrom(value: unknown): PolicyLevel {
  const parser = new ObjectParser(record(value));
  return {
    policy: parser.optional("policy", text, null),
    limit: parser.optional("limit", number, null),
    windowSeconds: parser.optional("window_seconds", number, null),
    remaining: parser.optional("remaining", number, null),
    resetSeconds: parser.optional("reset_seconds", number, null),
    enforced: parser.optional("enforced", flag, null),
  };
}
