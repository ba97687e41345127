/** API keys, as the API tells of them. */

import { masked } from "../settings/credential.js";
import { flag, items, Members, moment, record, text, texts, type Json } from "../wire/reading.js";
import type { Response } from "../wire/response.js";
import { Received } from "./received.js";

/** One of a key's secrets, which can be told apart and not used. */
export interface KeySecret {
  readonly masked: string;
  readonly current: boolean;
  readonly createdAt: Date | null;
  readonly expiresAt: Date | null;
  readonly lastUsedAt: Date | null;
  readonly extra: Readonly<Record<string, unknown>>;
}

/** An API key. `etag` is what `update(…, { ifMatch })` takes; a key out of a page has none. */
export class Key extends Received {
  readonly id: string;
  readonly name: string;
  readonly accountId: string | null;
  readonly environment: string | null;
  readonly tier: string | null;
  readonly scopes: readonly string[];
  readonly allowedIps: readonly string[];
  readonly status: string | null;
  readonly masked: string | null;
  readonly createdAt: Date | null;
  readonly lastUsedAt: Date | null;
  readonly expiresAt: Date | null;
  readonly lastRotatedAt: Date | null;
  /** Whether its secret is older than 90 days. */
  readonly rotationDue: boolean;
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly secrets: readonly KeySecret[];
  readonly etag: string | null;

  /** @internal */
  constructor(of: Members, response: Response, etag: string | null) {
    super(of, response);
    of.optional("object", text, null);
    this.id = of.required("id", text);
    this.name = of.optional("name", text, "");
    this.accountId = of.optional("account_id", text, null);
    this.environment = of.optional("environment", text, null);
    this.tier = of.optional("tier", text, null);
    this.scopes = of.optional("scopes", texts, []);
    this.allowedIps = of.optional("allowed_ips", texts, []);
    this.status = of.optional("status", text, null);
    this.masked = of.optional("masked", text, null);
    this.createdAt = of.optional("created_at", moment, null);
    this.lastUsedAt = of.optional("last_used_at", moment, null);
    this.expiresAt = of.optional("expires_at", moment, null);
    this.lastRotatedAt = of.optional("last_rotated_at", moment, null);
    this.rotationDue = of.optional("rotation_due", flag, false);
    this.metadata = of.optional("metadata", record, {});
    this.secrets = of.optional("secrets", (value) => items(value).map(secretFrom), []);
    this.etag = etag;
  }
}

/** A key that has just been created or rotated: store its `secret` now, it is told this once. */
export class IssuedKey extends Key {
  readonly #secret: string;

  /** @internal */
  constructor(of: Members, response: Response, etag: string | null) {
    super(of, response, etag);
    this.#secret = of.required("secret", text);
  }

  /** The secret. `console.log` and `JSON.stringify` show it masked; read it from here. */
  get secret(): string {
    return this.#secret;
  }

  override toJSON(): object {
    return { ...super.toJSON(), secret: masked(this.#secret) };
  }
}

/** Return the key that is the whole of *response*. */
export function keyFrom(members: Json, response: Response): Key {
  return new Key(new Members(members), response, response.headers.get("etag"));
}

/** Return the key that is the whole of *response*, with its new secret. */
export function issuedKeyFrom(members: Json, response: Response): IssuedKey {
  return new IssuedKey(new Members(members), response, response.headers.get("etag"));
}

/** Return one of the keys in *response*, whose ETag would be the list's. */
export function listedKeyFrom(members: Json, response: Response): Key {
  return new Key(new Members(members), response, null);
}

function secretFrom(value: unknown): KeySecret {
  const of = new Members(record(value));
  return {
    masked: of.optional("masked", text, ""),
    current: of.optional("current", flag, false),
    createdAt: of.optional("created_at", moment, null),
    expiresAt: of.optional("expires_at", moment, null),
    lastUsedAt: of.optional("last_used_at", moment, null),
    extra: of.rest(),
  };
}
