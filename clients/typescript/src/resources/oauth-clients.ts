/** `client.oauthClients`: applications that may act for users. */

import {
  deletedOAuthClientFrom,
  issuedOAuthClientFrom,
  listedOAuthClientFrom,
  oauthClientFrom,
  type DeletedOAuthClient,
  type GrantType,
  type IssuedOAuthClient,
  type OAuthClient,
} from "../results/oauth-client.js";
import { fetchPage, Listing } from "../results/page.js";
import {
  changingOptions,
  readingOptions,
  type IdempotencyOptions,
  type RequestOptions,
} from "../settings/request-options.js";
import { jsonOf, segment, stringsOf } from "../wire/call.js";
import { parseObject } from "../wire/parsing.js";
import type { Transport } from "../wire/transport.js";

const DAY_SECONDS = 86_400;
const PATH = "/v1/oauth/clients";

/** The OAuth client to create. */
export interface OAuthClientCreation extends RequestOptions {
  /** Its name, which users see. */
  readonly name: string;
  /** The most that it may ask for. */
  readonly scopes: Iterable<string>;
  /** Where users may be sent back to. */
  readonly redirectUris?: Iterable<string> | undefined;
  /** By default `authorization_code` and `refresh_token`. */
  readonly grantTypes?: Iterable<GrantType> | undefined;
  /** By default that of the calling key. */
  readonly environment?: "live" | "test" | undefined;
  /** Whether it runs in a browser or on users' machines, and so has no secret. */
  readonly public?: boolean | undefined;
  /** Whether PKCE is required; by default true. */
  readonly requirePkce?: boolean | undefined;
  /** Whether it gets only tokens that are bound to a DPoP key. */
  readonly dpopBound?: boolean | undefined;
}

/** Filters for a list of OAuth clients, and its pagination. */
export interface OAuthClientFilter extends RequestOptions {
  /** Only those for this traffic. */
  readonly environment?: "live" | "test" | undefined;
  /** The maximum size of a page. */
  readonly limit?: number | undefined;
  /** Start after the OAuth client with this id. */
  readonly after?: string | undefined;
}

/** Settings to change. `undefined` changes nothing. */
export interface OAuthClientChange extends IdempotencyOptions {
  /** Its name, which users see. */
  readonly name?: string | undefined;
  /** The most that it may ask for. */
  readonly scopes?: Iterable<string> | undefined;
  /** Where users may be sent back to. */
  readonly redirectUris?: Iterable<string> | undefined;
  /** How it gets tokens. */
  readonly grantTypes?: Iterable<GrantType> | undefined;
  /** Whether PKCE is required. */
  readonly requirePkce?: boolean | undefined;
  /** Whether it gets only tokens that are bound to a DPoP key. */
  readonly dpopBound?: boolean | undefined;
  /** Its `.etag`: throw PreconditionFailedError if it has changed since. */
  readonly ifMatch?: string | null | undefined;
}

/** How to rotate a client secret. */
export interface ClientSecretRotation extends RequestOptions {
  /** How long the current secret still works; by default a day. */
  readonly graceSeconds?: number | undefined;
}

/** Create, change and delete OAuth clients. Needs a credential with the scope for it. */
export class OAuthClients {
  readonly #transport: Transport;

  /** @internal */
  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /**
   * Create an OAuth client. Its `.clientSecret` is shown only once; a public one has none.
   *
   * It is retried only if the server has refused it or was not reached: it could be created twice.
   */
  async create(params: OAuthClientCreation, options?: RequestOptions): Promise<IssuedOAuthClient> {
    const names = ["name", "scopes", "redirectUris", "grantTypes", "environment", "public", "requirePkce", "dpopBound"];
    const given = readingOptions("oauthClients.create", names, params, options);
    const body = jsonOf({ ...settingsOf(params), environment: params.environment, public: params.public });
    const call = { method: "POST", path: PATH, body, options: given, isDeduplicated: false };
    return parseObject(await this.#transport.send(call), issuedOAuthClientFrom);
  }

  /** List OAuth clients, newest first: `await` returns the first page, `for await` yields all of them. */
  list(params: OAuthClientFilter = {}, options?: RequestOptions): Listing<OAuthClient> {
    return new Listing(async () => {
      const given = readingOptions("oauthClients.list", ["environment", "limit", "after"], params, options);
      const { limit, after, environment } = params;
      const call = { method: "GET", path: PATH, query: { limit, after, environment }, options: given };
      return fetchPage(this.#transport, call, listedOAuthClientFrom);
    });
  }

  /** Return an OAuth client with its `.etag`. */
  async retrieve(clientId: string, options: RequestOptions = {}): Promise<OAuthClient> {
    const given = readingOptions("oauthClients.retrieve", [], options);
    const call = { method: "GET", path: pathOf(clientId), options: given };
    return parseObject(await this.#transport.send(call), oauthClientFrom);
  }

  /** Change the given settings. */
  async update(clientId: string, params: OAuthClientChange, options?: IdempotencyOptions): Promise<OAuthClient> {
    const names = ["name", "scopes", "redirectUris", "grantTypes", "requirePkce", "dpopBound", "ifMatch"];
    const given = changingOptions("oauthClients.update", names, params, options);
    const body = jsonOf(settingsOf(params));
    const ifMatch = params.ifMatch ?? undefined;
    const call = { method: "PATCH", path: pathOf(clientId), body, ifMatch, options: given };
    return parseObject(await this.#transport.send(call), oauthClientFrom);
  }

  /** Issue a new `.clientSecret`, shown only once. It is retried like `create`. */
  async rotateSecret(
    clientId: string,
    params: ClientSecretRotation = {},
    options?: RequestOptions,
  ): Promise<IssuedOAuthClient> {
    const given = readingOptions("oauthClients.rotateSecret", ["graceSeconds"], params, options);
    const body = jsonOf({ grace_seconds: params.graceSeconds ?? DAY_SECONDS });
    const path = `${pathOf(clientId)}/rotate-secret`;
    const call = { method: "POST", path, body, options: given, isDeduplicated: false };
    return parseObject(await this.#transport.send(call), issuedOAuthClientFrom);
  }

  /** Delete the OAuth client permanently. Its tokens are refused from the next request on. */
  async delete(clientId: string, options: RequestOptions = {}): Promise<DeletedOAuthClient> {
    const given = readingOptions("oauthClients.delete", [], options);
    const call = { method: "DELETE", path: pathOf(clientId), options: given };
    return parseObject(await this.#transport.send(call), deletedOAuthClientFrom);
  }
}

function settingsOf(params: OAuthClientChange): Readonly<Record<string, unknown>> {
  return {
    name: params.name,
    scopes: stringsOf("scopes", params.scopes),
    redirect_uris: stringsOf("redirectUris", params.redirectUris),
    grant_types: stringsOf("grantTypes", params.grantTypes),
    require_pkce: params.requirePkce,
    dpop_bound: params.dpopBound,
  };
}

function pathOf(clientId: string): string {
  return `${PATH}/${segment("clientId", clientId)}`;
}
