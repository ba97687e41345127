/** `client.keys`: API keys. */

import { issuedKeyFrom, keyFrom, listedKeyFrom, type IssuedKey, type Key } from "../results/key.js";
import { fetchPage, Listing } from "../results/page.js";
import { usageFrom, type Usage } from "../results/usage.js";
import { checkNames, jsonOf, momentOf, segment, stringsOf } from "../wire/call.js";
import { readObject } from "../wire/reading.js";
import type { Transport } from "../wire/transport.js";

const DAY_SECONDS = 86_400;

/** What a call that changes something takes besides. */
export interface Repeatable {
  /** One of your own, to carry it through a restart of your process. */
  readonly idempotencyKey?: string | undefined;
}

/** The key to create. */
export interface KeyCreation extends Repeatable {
  readonly name: string;
  readonly scopes: Iterable<string>;
  readonly environment?: "live" | "test" | undefined;
  readonly allowedIps?: Iterable<string> | null | undefined;
  readonly expiresAt?: Date | string | null | undefined;
  readonly metadata?: Readonly<Record<string, string>> | null | undefined;
}

/** Which keys to list; all of them unless told. */
export interface KeyFilter {
  readonly environment?: "live" | "test" | undefined;
  readonly status?: "active" | "expired" | "revoked" | undefined;
  /** As many as one page has at most. */
  readonly limit?: number | undefined;
  /** Begin after the key with this id. */
  readonly after?: string | undefined;
}

/** What is `undefined` stays as it is; `expiresAt: null` lets the key never expire. */
export interface KeyChange extends Repeatable {
  readonly name?: string | undefined;
  readonly scopes?: Iterable<string> | undefined;
  readonly allowedIps?: Iterable<string> | null | undefined;
  readonly expiresAt?: Date | string | null | undefined;
  readonly metadata?: Readonly<Record<string, string>> | null | undefined;
  /** A key's `.etag`: throw PreconditionFailedError when the key has changed since. */
  readonly ifMatch?: string | null | undefined;
}

/** How to rotate a key. */
export interface KeyRotation extends Repeatable {
  /** How long the old secret goes on working; a day unless told. */
  readonly graceSeconds?: number | undefined;
}

/** How to revoke a key. */
export interface KeyRevocation extends Repeatable {
  /** That it is meant even for the key that this client uses. */
  readonly self?: boolean | undefined;
}

/** The last 24 hours by the hour, unless told. */
export interface UsagePeriod {
  readonly start?: Date | string | undefined;
  readonly end?: Date | string | undefined;
  readonly bucket?: "minute" | "hour" | "day" | undefined;
}

/** Create, change, rotate and revoke API keys. Needs a credential with the scope for it. */
export class Keys {
  readonly #transport: Transport;

  /** @internal */
  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Create a key. Its `.secret` is told this once. */
  async create(params: KeyCreation): Promise<IssuedKey> {
    const known = ["name", "scopes", "environment", "allowedIps", "expiresAt", "metadata", "idempotencyKey"];
    checkNames("keys.create", params, known);
    const body = jsonOf({
      name: params.name,
      scopes: stringsOf("scopes", params.scopes),
      environment: params.environment,
      allowed_ips: stringsOf("allowedIps", params.allowedIps) ?? undefined,
      expires_at: momentOf("expiresAt", params.expiresAt) ?? undefined,
      metadata: params.metadata ?? undefined,
    });
    const { idempotencyKey } = params;
    const call = { method: "POST", path: "/v1/keys", body, idempotencyKey } as const;
    return readObject(await this.#transport.send(call), issuedKeyFrom);
  }

  /** List keys, newest first: `await` gives the first page, `for await` goes through all of them. */
  list(params: KeyFilter = {}): Listing<Key> {
    return new Listing(async () => {
      checkNames("keys.list", params, ["environment", "status", "limit", "after"]);
      const { limit, after, environment, status } = params;
      const call = { method: "GET", path: "/v1/keys", query: { limit, after, environment, status } } as const;
      return fetchPage(this.#transport, call, listedKeyFrom);
    });
  }

  /** Return a key as it is now, with its `.etag`. */
  async retrieve(keyId: string): Promise<Key> {
    const call = { method: "GET", path: pathOf(keyId) } as const;
    return readObject(await this.#transport.send(call), keyFrom);
  }

  /** Change what is given, and nothing else. */
  async update(keyId: string, params: KeyChange): Promise<Key> {
    const known = ["name", "scopes", "allowedIps", "expiresAt", "metadata", "ifMatch", "idempotencyKey"];
    checkNames("keys.update", params, known);
    const body = jsonOf({
      name: params.name,
      scopes: stringsOf("scopes", params.scopes),
      allowed_ips: stringsOf("allowedIps", params.allowedIps),
      expires_at: momentOf("expiresAt", params.expiresAt),
      metadata: params.metadata,
    });
    const { idempotencyKey } = params;
    const ifMatch = params.ifMatch ?? undefined;
    const call = { method: "PATCH", path: pathOf(keyId), body, idempotencyKey, ifMatch } as const;
    return readObject(await this.#transport.send(call), keyFrom);
  }

  /** Give the key a new `.secret`, told this once; the old one goes on working for `graceSeconds`. */
  async rotate(keyId: string, params: KeyRotation = {}): Promise<IssuedKey> {
    checkNames("keys.rotate", params, ["graceSeconds", "idempotencyKey"]);
    const body = jsonOf({ grace_seconds: params.graceSeconds ?? DAY_SECONDS });
    const { idempotencyKey } = params;
    const call = { method: "POST", path: `${pathOf(keyId)}/rotate`, body, idempotencyKey } as const;
    return readObject(await this.#transport.send(call), issuedKeyFrom);
  }

  /** Let the secret from before the last rotation stop working now. */
  async endGrace(keyId: string, params: Repeatable = {}): Promise<Key> {
    checkNames("keys.endGrace", params, ["idempotencyKey"]);
    const { idempotencyKey } = params;
    const call = { method: "POST", path: `${pathOf(keyId)}/end-grace`, idempotencyKey } as const;
    return readObject(await this.#transport.send(call), keyFrom);
  }

  /** Revoke the key for good. */
  async revoke(keyId: string, params: KeyRevocation = {}): Promise<Key> {
    checkNames("keys.revoke", params, ["self", "idempotencyKey"]);
    const { idempotencyKey } = params;
    const query = { self: params.self === true ? "true" : undefined };
    const call = { method: "POST", path: `${pathOf(keyId)}/revoke`, query, idempotencyKey } as const;
    return readObject(await this.#transport.send(call), keyFrom);
  }

  /** Return what the key was used for, by `minute`, `hour` or `day`. */
  async usage(keyId: string, params: UsagePeriod = {}): Promise<Usage> {
    checkNames("keys.usage", params, ["start", "end", "bucket"]);
    const period = { from: momentOf("start", params.start), to: momentOf("end", params.end) };
    const query = { ...period, bucket: params.bucket };
    const call = { method: "GET", path: `${pathOf(keyId)}/usage`, query } as const;
    return readObject(await this.#transport.send(call), usageFrom);
  }
}

function pathOf(keyId: string): string {
  return `/v1/keys/${segment("keyId", keyId)}`;
}
