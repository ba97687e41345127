/** The tokens that the authorization server issues (RFC 6749 §5.1). */

import { masked } from "../settings/credential.js";
import { ObjectParser, ParseError, number, text, type Json } from "../wire/parsing.js";
import type { Response } from "../wire/response.js";
import { Result } from "./result.js";

/** An access token, and a refresh token. Store both. A refresh token can be used only once. */
export class Tokens extends Result {
  /** `Bearer`, or `DPoP` if they are bound to a key. */
  readonly tokenType: string;
  /** The lifetime of the access token in seconds after the response. */
  readonly expiresIn: number | null;
  /** When the access token expires. */
  readonly expiresAt: Date | null;
  /** The scopes as sent by the server; `null` if they are those that were requested. */
  readonly scope: string | null;
  /** The scopes of the access token. */
  readonly scopes: readonly string[];
  readonly #accessToken: string;
  readonly #refreshToken: string | null;

  /** @internal */
  constructor(parser: ObjectParser, response: Response, current: string | null, tokenType: "Bearer" | "DPoP") {
    super(parser, response);
    this.#accessToken = parser.required("access_token", text);
    // RFC 6749 §6: without a new refresh token, the current one remains valid.
    this.#refreshToken = parser.optional("refresh_token", text, current);
    this.tokenType = parser.optional("token_type", (value) => typeOf(value, tokenType), tokenType);
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
export function tokensFrom(
  members: Json,
  response: Response,
  current: string | null,
  /** `Bearer`, or `DPoP` if they are bound to a key. */
  tokenType: "Bearer" | "DPoP" = "Bearer",
): Tokens {
  return new Tokens(new ObjectParser(members), response, current, tokenType);
}

/** Return the type of a token. RFC 6749 §7.1: a client must not use a token of an unknown type. */
function typeOf(value: unknown, expected: "Bearer" | "DPoP"): string {
  if (text(value).toLowerCase() !== expected.toLowerCase()) throw new ParseError(`not ${expected}`);
  return text(value);
}
