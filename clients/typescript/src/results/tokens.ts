/** The tokens that the authorization server issues (RFC 6749 §5.1). */

import { masked } from "../settings/credential.js";
import { ObjectParser, number, text, type Json } from "../wire/parsing.js";
import type { Response } from "../wire/response.js";
import { Result } from "./result.js";

/** An access token, and a refresh token. Store both. A refresh token can be used only once. */
export class Tokens extends Result {
  readonly tokenType: string;
  /** The lifetime of the access token in seconds after the response. */
  readonly expiresIn: number | null;
  readonly expiresAt: Date | null;
  /** The scopes as sent by the server; `null` if they are those that were requested. */
  readonly scope: string | null;
  readonly scopes: readonly string[];
  readonly #accessToken: string;
  readonly #refreshToken: string | null;

  /** @internal */
  constructor(parser: ObjectParser, response: Response, current: string | null) {
    super(parser, response);
    this.#accessToken = parser.required("access_token", text);
    // RFC 6749 §6: without a new refresh token, the current one remains valid.
    this.#refreshToken = parser.optional("refresh_token", text, current);
    this.tokenType = parser.optional("token_type", text, "Bearer");
    this.expiresIn = parser.optional("expires_in", number, null);
    this.expiresAt = this.expiresIn === null ? null : new Date(response.receivedAt + this.expiresIn * 1000);
    this.scope = parser.optional("scope", text, null);
    this.scopes = (this.scope ?? "").split(" ").filter(Boolean);
  }

  /** The access token. `console.log` and `JSON.stringify` show it masked; read it from here. */
  get accessToken(): string {
    return this.#accessToken;
  }

  /** The refresh token to use next; masked like the access token. `null` if there is none. */
  get refreshToken(): string | null {
    return this.#refreshToken;
  }

  override toJSON(): object {
    const refreshToken = this.#refreshToken === null ? null : masked(this.#refreshToken);
    return { ...super.toJSON(), accessToken: masked(this.#accessToken), refreshToken };
  }
}

/** Return the tokens in *response*. *current* is the refresh token of the request. */
export function tokensFrom(members: Json, response: Response, current: string | null): Tokens {
  return new Tokens(new ObjectParser(members), response, current);
}
