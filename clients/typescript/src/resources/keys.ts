/** `client.keys`: API keys. */

import { issuedKeyFrom, keyFrom, listedKeyFrom, type IssuedKey, type Key } from "../results/key.js";
import { fetchPage, Listing } from "../results/page.js";
import { usageFrom, type Usage } from "../results/usage.js";
import {
  changingOptions,
  readingOptions,
  type IdempotencyOptions,
  type RequestOptions,
} from "../settings/request-options.js";
import { jsonOf, momentOf, segment, stringsOf } from "../wire/call.js";
import { parseObject } from "../wire/parsing.js";
import type { Transport } from "../wire/transport.js";

const DAY_SECONDS = 86_400;

/** The key to create. */
export interface KeyCreation extends IdempotencyOptions {
  /** Its name. */
  readonly name: string;
  /** What it may do. */
  readonly scopes: Iterable<string>;
  /** Whom within the account the key is for. Keys with the same owner share the limits by owner. */
  readonly owner?: string | null | undefined;
  /** By default that of the calling key. */
  readonly environment?: "live" | "test" | undefined;
  /** The addresses and networks that it works from; by default all. */
  readonly allowedIps?: Iterable<string> | null | undefined;
  /** When it expires; by default never. */
  readonly expiresAt?: Date | string | null | undefined;
  /** Your own data. */
  readonly metadata?: Readonly<Record<string, string>> | null | undefined;
}

/** Filters for a list of keys, and its pagination. */
export interface KeyFilter extends RequestOptions {
  /** Only keys for this traffic. */
  readonly environment?: "live" | "test" | undefined;
  /** Only keys in this state. */
  readonly status?: "active" | "expired" | "revoked" | undefined;
  /** The maximum size of a page. */
  readonly limit?: number | undefined;
  /** Start after the key with this id. */
  readonly after?: string | undefined;
}

/** Settings to change. `undefined` changes nothing; `expiresAt: null` means that the key never expires. */
export interface KeyChange extends IdempotencyOptions {
  /** Its name. */
  readonly name?: string | undefined;
  /** What it may do. */
  readonly scopes?: Iterable<string> | undefined;
  /** `null`: none. */
  readonly owner?: string | null | undefined;
  /** The addresses and networks that it works from; `null`: all. */
  readonly allowedIps?: Iterable<string> | null | undefined;
  /** When it expires; `null`: never. */
  readonly expiresAt?: Date | string | null | undefined;
  /** Your own data. */
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
export interface UsagePeriod extends RequestOptions {
  /** By default a day before `end`. */
  readonly start?: Date | string | undefined;
  /** By default now. */
  readonly end?: Date | string | undefined;
  /** By default `hour`. */
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
  async create(params: KeyCreation, options?: IdempotencyOptions): Promise<IssuedKey> {
    const names = ["name", "scopes", "owner", "environment", "allowedIps", "expiresAt", "metadata"];
    const given = changingOptions("keys.create", names, params, options);
    const body = jsonOf({
      name: params.name,
      scopes: stringsOf("scopes", params.scopes),
      owner: params.owner ?? undefined,
      environment: params.environment,
      allowed_ips: stringsOf("allowedIps", params.allowedIps) ?? undefined,
      expires_at: momentOf("expiresAt", params.expiresAt) ?? undefined,
      metadata: params.metadata ?? undefined,
    });
    const call = { method: "POST", path: "/v1/keys", body, options: given };
    return parseObject(await this.#transport.send(call), issuedKeyFrom);
  }

  /** List keys, newest first: `await` returns the first page, `for await` yields all of them. */
  list(params: KeyFilter = {}, options?: RequestOptions): Listing<Key> {
    return new Listing(async () => {
      const given = readingOptions("keys.list", ["environment", "status", "limit", "after"], params, options);
      const { limit, after, environment, status } = params;
      const query = { limit, after, environment, status };
      return fetchPage(this.#transport, { method: "GET", path: "/v1/keys", query, options: given }, listedKeyFrom);
    });
  }

  /** Return a key with its `.etag`. */
  async retrieve(keyId: string, options: RequestOptions = {}): Promise<Key> {
    const given = readingOptions("keys.retrieve", [], options);
    const call = { method: "GET", path: pathOf(keyId), options: given };
    return parseObject(await this.#transport.send(call), keyFrom);
  }

  /** Change the given settings. */
  async update(keyId: string, params: KeyChange, options?: IdempotencyOptions): Promise<Key> {
    const names = ["name", "scopes", "owner", "allowedIps", "expiresAt", "metadata", "ifMatch"];
    const given = changingOptions("keys.update", names, params, options);
    const body = jsonOf({
      name: params.name,
      scopes: stringsOf("scopes", params.scopes),
      owner: params.owner,
      allowed_ips: stringsOf("allowedIps", params.allowedIps),
      expires_at: momentOf("expiresAt", params.expiresAt),
      metadata: params.metadata,
    });
    const ifMatch = params.ifMatch ?? undefined;
    const call = { method: "PATCH", path: pathOf(keyId), body, ifMatch, options: given };
    return parseObject(await this.#transport.send(call), keyFrom);
  }

  /** Give the key a new `.secret`, shown only once. The old one works for another `graceSeconds`. */
  async rotate(keyId: string, params: KeyRotation = {}, options?: IdempotencyOptions): Promise<IssuedKey> {
    const given = changingOptions("keys.rotate", ["graceSeconds"], params, options);
    const body = jsonOf({ grace_seconds: params.graceSeconds ?? DAY_SECONDS });
    const call = { method: "POST", path: `${pathOf(keyId)}/rotate`, body, options: given };
    return parseObject(await this.#transport.send(call), issuedKeyFrom);
  }

  /** End the grace period of the previous secret now. */
  async endGrace(keyId: string, options: IdempotencyOptions = {}): Promise<Key> {
    const given = changingOptions("keys.endGrace", [], options);
    const call = { method: "POST", path: `${pathOf(keyId)}/end-grace`, options: given };
    return parseObject(await this.#transport.send(call), keyFrom);
  }

  /** Revoke the key permanently. */
  async revoke(keyId: string, params: KeyRevocation = {}, options?: IdempotencyOptions): Promise<Key> {
    const given = changingOptions("keys.revoke", ["self"], params, options);
    const query = { self: params.self === true ? "true" : undefined };
    const call = { method: "POST", path: `${pathOf(keyId)}/revoke`, query, options: given };
    return parseObject(await this.#transport.send(call), keyFrom);
  }

  /** Return the usage of the key by `minute`, `hour` or `day`. */
  async usage(keyId: string, params: UsagePeriod = {}, options?: RequestOptions): Promise<Usage> {
    const given = readingOptions("keys.usage", ["start", "end", "bucket"], params, options);
    const period = { from: momentOf("start", params.start), to: momentOf("end", params.end) };
    const query = { ...period, bucket: params.bucket };
    const call = { method: "GET", path: `${pathOf(keyId)}/usage`, query, options: given };
    return parseObject(await this.#transport.send(call), usageFrom);
  }
}

function pathOf(keyId: string): string {
  return `/v1/keys/${segment("keyId", keyId)}`;
}
