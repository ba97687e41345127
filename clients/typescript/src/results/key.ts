/** API keys, as returned by the API. */

import { masked } from "../settings/credential.js";
import { flag, items, ObjectParser, moment, record, text, texts, type Json } from "../wire/parsing.js";
import type { Response } from "../wire/response.js";
import type { Environment } from "./account.js";
import { Result } from "./result.js";

/** One of a key's secrets, without anything that authenticates. */
export interface KeySecret {
  /** As in `sk_live_…a1b2`. */
  readonly masked: string;
  /** Whether it is the current one, and not one whose grace period runs. */
  readonly current: boolean;
  /** When it was issued. */
  readonly createdAt: Date | null;
  /** The end of its grace period. */
  readonly expiresAt: Date | null;
  /** When a request last presented it. */
  readonly lastUsedAt: Date | null;
  /** Members that only newer servers send, unparsed. */
  readonly extra: Readonly<Record<string, unknown>>;
}

/** An API key. `etag` is for `update(…, { ifMatch })`. Keys in a page have none. */
export class Key extends Result {
  /** Its id, which outlives its secrets. */
  readonly id: string;
  /** Its name. */
  readonly name: string;
  /** Whom within the account the key is for. */
  readonly owner: string | null;
  /** The id of its account. */
  readonly accountId: string | null;
  /** `live` or `test`. */
  readonly environment: Environment | null;
  /** The tier that its limits come from. */
  readonly tier: string | null;
  /** The tier that an operator gave this very key; `null`: `tier` is that of its account. */
  readonly ownTier: string | null;
  /** Whether the gateway's settings have the tier. */
  readonly tierConfigured: boolean;
  /** What it may do. */
  readonly scopes: readonly string[];
  /** The addresses that it works from; none: all. */
  readonly allowedIps: readonly string[];
  /** Whether it works. */
  readonly status: "active" | "expired" | "revoked" | (string & {}) | null;
  /** Its current secret as displayed, as in `sk_live_…a1b2`. */
  readonly masked: string | null;
  /** When it was created. */
  readonly createdAt: Date | null;
  /** The last use of any secret that it has ever had. */
  readonly lastUsedAt: Date | null;
  /** When it expires; `null` if never. */
  readonly expiresAt: Date | null;
  /** When its secret was last rotated. */
  readonly lastRotatedAt: Date | null;
  /** Whether its secret is older than 90 days. */
  readonly rotationDue: boolean;
  /** Your own data. */
  readonly metadata: Readonly<Record<string, unknown>>;
  /** The current secret and, during a grace period, the previous one. */
  readonly secrets: readonly KeySecret[];
  /** Its version, for `ifMatch`. */
  readonly etag: string | null;

  /** @internal */
  constructor(parser: ObjectParser, response: Response, etag: string | null) {
    super(parser, response);
    parser.optional("object", text, null);
    this.id = parser.required("id", text);
    this.name = parser.optional("name", text, "");
    this.owner = parser.optional("owner", text, null);
    this.accountId = parser.optional("account_id", text, null);
    this.environment = parser.optional("environment", text, null);
    this.tier = parser.optional("tier", text, null);
    this.ownTier = parser.optional("own_tier", text, null);
    this.tierConfigured = parser.optional("tier_configured", flag, true);
    this.scopes = parser.optional("scopes", texts, []);
    this.allowedIps = parser.optional("allowed_ips", texts, []);
    this.status = parser.optional("status", text, null);
    this.masked = parser.optional("masked", text, null);
    this.createdAt = parser.optional("created_at", moment, null);
    this.lastUsedAt = parser.optional("last_used_at", moment, null);
    this.expiresAt = parser.optional("expires_at", moment, null);
    this.lastRotatedAt = parser.optional("last_rotated_at", moment, null);
    this.rotationDue = parser.optional("rotation_due", flag, false);
    this.metadata = parser.optional("metadata", record, {});
    this.secrets = parser.optional("secrets", (value) => items(value).map(secretFrom), []);
    this.etag = etag;
  }
}

/** A key that was just created or rotated. Store its `secret` now: it is shown only once. */
export class IssuedKey extends Key {
  readonly #secret: string;

  /** @internal */
  constructor(parser: ObjectParser, response: Response, etag: string | null) {
    super(parser, response, etag);
    this.#secret = parser.required("secret", text);
  }

  /** The secret. `console.log` and `JSON.stringify` show it masked; read it from here. */
  get secret(): string {
    return this.#secret;
  }

  override toJSON(): object {
    return { ...super.toJSON(), secret: masked(this.#secret) };
  }
}

/** Return the key in *response*. */
export function keyFrom(members: Json, response: Response): Key {
  return new Key(new ObjectParser(members), response, response.headers.get("etag"));
}

/** Return the key in *response*, with its new secret. */
export function issuedKeyFrom(members: Json, response: Response): IssuedKey {
  return new IssuedKey(new ObjectParser(members), response, response.headers.get("etag"));
}

/** Return one of the keys in *response*, without an ETag, which would be that of the list. */
export function listedKeyFrom(members: Json, response: Response): Key {
  return new Key(new ObjectParser(members), response, null);
}

function secretFrom(value: unknown): KeySecret {
  const parser = new ObjectParser(record(value));
  return {
    masked: parser.optional("masked", text, ""),
    current: parser.optional("current", flag, false),
    createdAt: parser.optional("created_at", moment, null),
    expiresAt: parser.optional("expires_at", moment, null),
    lastUsedAt: parser.optional("last_used_at", moment, null),
    extra: parser.rest(),
  };
}
