/** OAuth clients, as returned by the API. */

import { masked } from "../settings/credential.js";
import { flag, items, moment, ObjectParser, record, text, texts, type Json } from "../wire/parsing.js";
import type { Response } from "../wire/response.js";
import type { Environment } from "./account.js";
import { Result } from "./result.js";

/** How an OAuth client gets tokens; a newer server may have others. */
export type GrantType = "authorization_code" | "refresh_token" | "client_credentials" | (string & {});

/** One of an OAuth client's secrets, without anything that authenticates. */
export interface ClientSecret {
  /** As in `cs_…a1b2`. */
  readonly masked: string;
  /** Whether it is the current one, and not one whose grace period runs. */
  readonly current: boolean;
  /** When it was issued. */
  readonly createdAt: Date | null;
  /** The end of its grace period. */
  readonly expiresAt: Date | null;
}

/** An application that may act for users who allow it. `etag` is for `update(…, { ifMatch })`; in a page it is `null`. */
export class OAuthClient extends Result {
  /** Its `client_id`. */
  readonly id: string;
  /** Its name, which users see. */
  readonly name: string;
  /** The id of the account that owns it. */
  readonly accountId: string | null;
  /** Whether its traffic is live or test. */
  readonly environment: Environment | null;
  /** Whether it runs in a browser or on users' machines, and so has no secret. */
  readonly public: boolean;
  /** Where users may be sent back to. */
  readonly redirectUris: readonly string[];
  /** The most that it may ask for. */
  readonly scopes: readonly string[];
  /** How it gets tokens. */
  readonly grantTypes: readonly GrantType[];
  /** Whether PKCE is required. */
  readonly requirePkce: boolean;
  /** Whether it gets only tokens that are bound to a DPoP key. */
  readonly dpopBound: boolean;
  /** Whether it registered itself: its name is unverified. */
  readonly selfRegistered: boolean;
  /** When it was created. */
  readonly createdAt: Date | null;
  /** The current secret and, during a grace period, the previous one. */
  readonly secrets: readonly ClientSecret[];
  /** Its version. */
  readonly etag: string | null;

  /** @internal */
  constructor(parser: ObjectParser, response: Response, etag: string | null) {
    super(parser, response);
    parser.optional("object", text, null);
    this.id = parser.required("id", text);
    this.name = parser.optional("name", text, "");
    this.accountId = parser.optional("account_id", text, null);
    this.environment = parser.optional("environment", text, null);
    this.public = parser.optional("public", flag, false);
    this.redirectUris = parser.optional("redirect_uris", texts, []);
    this.scopes = parser.optional("scopes", texts, []);
    this.grantTypes = parser.optional("grant_types", texts, []);
    this.requirePkce = parser.optional("require_pkce", flag, true);
    this.dpopBound = parser.optional("dpop_bound", flag, false);
    this.selfRegistered = parser.optional("self_registered", flag, false);
    this.createdAt = parser.optional("created_at", moment, null);
    this.secrets = parser.optional("secrets", (value) => items(value).map(secretFrom), []);
    this.etag = etag;
  }
}

/** An OAuth client that was just created, or whose secret was rotated. Store its `clientSecret` now. */
export class IssuedOAuthClient extends OAuthClient {
  readonly #clientSecret: string | null;

  /** @internal */
  constructor(parser: ObjectParser, response: Response, etag: string | null) {
    super(parser, response, etag);
    this.#clientSecret = parser.optional("client_secret", text, null);
  }

  /** The secret; `null` for a public one. `console.log` and `JSON.stringify` show it masked; read it from here. */
  get clientSecret(): string | null {
    return this.#clientSecret;
  }

  override toJSON(): object {
    return { ...super.toJSON(), clientSecret: this.#clientSecret === null ? null : masked(this.#clientSecret) };
  }
}

/** What remains of an OAuth client that was deleted. */
export class DeletedOAuthClient extends Result {
  /** Its `client_id`. */
  readonly id: string;
  /** Always true. */
  readonly deleted: boolean;

  /** @internal */
  constructor(parser: ObjectParser, response: Response) {
    super(parser, response);
    parser.optional("object", text, null);
    this.id = parser.required("id", text);
    this.deleted = parser.optional("deleted", flag, true);
  }
}

/** Return the OAuth client in *response*. */
export function oauthClientFrom(members: Json, response: Response): OAuthClient {
  return new OAuthClient(new ObjectParser(members), response, response.headers.get("etag"));
}

/** Return one of the OAuth clients in *response*, without an ETag, which would be that of the list. */
export function listedOAuthClientFrom(members: Json, response: Response): OAuthClient {
  return new OAuthClient(new ObjectParser(members), response, null);
}

/** Return the OAuth client in *response*, with its new secret. */
export function issuedOAuthClientFrom(members: Json, response: Response): IssuedOAuthClient {
  return new IssuedOAuthClient(new ObjectParser(members), response, response.headers.get("etag"));
}

/** Return what *response* says of a deleted OAuth client. */
export function deletedOAuthClientFrom(members: Json, response: Response): DeletedOAuthClient {
  return new DeletedOAuthClient(new ObjectParser(members), response);
}

function secretFrom(value: unknown): ClientSecret {
  const parser = new ObjectParser(record(value));
  return {
    masked: parser.optional("masked", text, ""),
    current: parser.optional("current", flag, false),
    createdAt: parser.optional("created_at", moment, null),
    expiresAt: parser.optional("expires_at", moment, null),
  };
}
