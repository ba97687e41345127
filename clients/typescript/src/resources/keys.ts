/** `client.keys`: API keys. */

import { issuedKeyFrom, keyFrom, listedKeyFrom, type IssuedKey, type Key } from "../results/key.js";
import { fetchPage, Listing } from "../results/page.js";
import { usageFrom, type Usage } from "../results/usage.js";
import { checkNames, jsonOf, momentOf, segment, stringsOf } from "../wire/call.js";
import { parseObject } from "../wire/parsing.js";
import type { Transport } from "../wire/transport.js";

const DAY_SECONDS = 86_400;

/** The options of all calls that change something. */
export interface IdempotencyOptions {
  /** Your own key, which survives a restart of your process. By default a random one. */
  readonly idempotencyKey?: string | undefined;
}

/** The key to create. */
export interface KeyCreation extends IdempotencyOptions {
  readonly name: string;
  readonly scopes: Iterable<string>;
  /** Whom within the account the key is for. Keys with the same owner share the limits by owner. */
  readonly owner?: string | null | undefined;
  readonly environment?: "live" | "test" | undefined;
  readonly allowedIps?: Iterable<string> | null | undefined;
  readonly expiresAt?: Date | string | null | undefined;
  readonly metadata?: Readonly<Record<string, string>> | null | undefined;
}

/** Filters for a list of keys, and its pagination. */
export interface KeyFilter {
  readonly environment?: "live" | "test" | undefined;
  readonly status?: "active" | "expired" | "revoked" | undefined;
  /** The maximum size of a page. */
  readonly limit?: number | undefined;
  /** Start after the key with this id. */
  readonly after?: string | undefined;
}

/** Settings to change. `undefined` changes nothing; `expiresAt: null` means that the key never expires. */
export interface KeyChange extends IdempotencyOptions {
  readonly name?: string | undefined;
  readonly scopes?: Iterable<string> | undefined;
  /** `null`: none. */
  readonly owner?: string | null | undefined;
  readonly allowedIps?: Iterable<string> | null | undefined;
  readonly expiresAt?: Date | string | null | undefined;
  readonly metadata?: Readonly<Record<string, string>> | null | undefined;
  /** A key's `.etag`: throw PreconditionFailedError if the key has changed since. */
  readonly ifMatch?: string | null | undefined;
}

/** How to rotate a key. */
export interface KeyRotation extends IdempotencyOptions {
  /** How long the old secret still works; by default a day. */
  readonly graceSeconds?: number | undefined;
}

/** How to revoke a key. */
export interface KeyRevocation extends IdempotencyOptions {
  /** Required for the key that this client uses. */
  readonly self?: boolean | undefined;
}

/** The period of a usage report; by default the last 24 hours by hour. */
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

  /** Create a key. Its `.secret` is shown only once. */
  async create(params: KeyCreation): Promise<IssuedKey> {
    const names = ["name", "scopes", "owner", "environment", "allowedIps", "expiresAt", "metadata", "idempotencyKey"];
    checkNames("keys.create", params, names);
    const body = jsonOf({
      name: params.name,
      scopes: stringsOf("scopes", params.scopes),
      owner: params.owner ?? undefined,
      environment: params.environment,
      allowed_ips: stringsOf("allowedIps", params.allowedIps) ?? undefined,
      expires_at: momentOf("expiresAt", params.expiresAt) ?? undefined,
      metadata: params.metadata ?? undefined,
    });
    const { idempotencyKey } = params;
    const call = { method: "POST", path: "/v1/keys", body, idempotencyKey } as const;
    return parseObject(await this.#transport.send(call), issuedKeyFrom);
  }

  /** List keys, newest first: `await` returns the first page, `for await` yields all of them. */
  list(params: KeyFilter = {}): Listing<Key> {
    return new Listing(async () => {
      checkNames("keys.list", params, ["environment", "status", "limit", "after"]);
      const { limit, after, environment, status } = params;
      const call = { method: "GET", path: "/v1/keys", query: { limit, after, environment, status } } as const;
      return fetchPage(this.#transport, call, listedKeyFrom);
    });
  }

  /** Return a key with its `.etag`. */
  async retrieve(keyId: string): Promise<Key> {
    const call = { method: "GET", path: pathOf(keyId) } as const;
    return parseObject(await this.#transport.send(call), keyFrom);
  }

  /** Change the given settings. */
  async update(keyId: string, params: KeyChange): Promise<Key> {
    const names = ["name", "scopes", "owner", "allowedIps", "expiresAt", "metadata", "ifMatch", "idempotencyKey"];
    checkNames("keys.update", params, names);
    const body = jsonOf({
      name: params.name,
      scopes: stringsOf("scopes", params.scopes),
      owner: params.owner,
      allowed_ips: stringsOf("allowedIps", params.allowedIps),
      expires_at: momentOf("expiresAt", params.expiresAt),
      metadata: params.metadata,
    });
    const { idempotencyKey } = params;
    const ifMatch = params.ifMatch ?? undefined;
    const call = { method: "PATCH", path: pathOf(keyId), body, idempotencyKey, ifMatch } as const;
    return parseObject(await this.#transport.send(call), keyFrom);
  }

  /** Give the key a new `.secret`, shown only once. The old one works for another `graceSeconds`. */
  async rotate(keyId: string, params: KeyRotation = {}): Promise<IssuedKey> {
    checkNames("keys.rotate", params, ["graceSeconds", "idempotencyKey"]);
    const body = jsonOf({ grace_seconds: params.graceSeconds ?? DAY_SECONDS });
    const { idempotencyKey } = params;
    const call = { method: "POST", path: `${pathOf(keyId)}/rotate`, body, idempotencyKey } as const;
    return parseObject(await this.#transport.send(call), issuedKeyFrom);
  }

  /** End the grace period of the previous secret now. */
  async endGrace(keyId: string, params: IdempotencyOptions = {}): Promise<Key> {
    checkNames("keys.endGrace", params, ["idempotencyKey"]);
    const { idempotencyKey } = params;
    const call = { method: "POST", path: `${pathOf(keyId)}/end-grace`, idempotencyKey } as const;
    return parseObject(await this.#transport.send(call), keyFrom);
  }

  /** Revoke the key permanently. */
  async revoke(keyId: string, params: KeyRevocation = {}): Promise<Key> {
    checkNames("keys.revoke", params, ["self", "idempotencyKey"]);
    const { idempotencyKey } = params;
    const query = { self: params.self === true ? "true" : undefined };
    const call = { method: "POST", path: `${pathOf(keyId)}/revoke`, query, idempotencyKey } as const;
    return parseObject(await this.#transport.send(call), keyFrom);
  }

  /** Return the usage of the key by `minute`, `hour` or `day`. */
  async usage(keyId: string, params: UsagePeriod = {}): Promise<Usage> {
    checkNames("keys.usage", params, ["start", "end", "bucket"]);
    const period = { from: momentOf("start", params.start), to: momentOf("end", params.end) };
    const query = { ...period, bucket: params.bucket };
    const call = { method: "GET", path: `${pathOf(keyId)}/usage`, query } as const;
    return parseObject(await this.#transport.send(call), usageFrom);
  }
}

function pathOf(keyId: string): string {
  return `/v1/keys/${segment("keyId", keyId)}`;
}
