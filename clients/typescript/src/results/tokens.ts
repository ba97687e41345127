/** What the authorization server gives for a code or a refresh token (RFC 6749 §5.1). */

import { masked } from "../settings/credential.js";
import { Members, number, text, type Json } from "../wire/reading.js";
import type { Response } from "../wire/response.js";
import { Received } from "./received.js";

/** An access token, and what gets the next one. Store both; the refresh token is for one use. */
export class Tokens extends Received {
  readonly tokenType: string;
  /** The seconds that the access token lasts from when it came. */
  readonly expiresIn: number | null;
  readonly expiresAt: Date | null;
  /** The scopes as they came; `null` when they are those that were asked for. */
  readonly scope: string | null;
  readonly scopes: readonly string[];
  readonly #accessToken: string;
  readonly #refreshToken: string | null;

  /** @internal */
  constructor(of: Members, response: Response, present: string | null) {
    super(of, response);
    this.#accessToken = of.required("access_token", text);
    // RFC 6749 §6: a server that sends no new refresh token leaves the present one in force.
    this.#refreshToken = of.optional("refresh_token", text, present);
    this.tokenType = of.optional("token_type", text, "Bearer");
    this.expiresIn = of.optional("expires_in", number, null);
    this.expiresAt = this.expiresIn === null ? null : new Date(response.receivedAt + this.expiresIn * 1000);
    this.scope = of.optional("scope", text, null);
    this.scopes = (this.scope ?? "").split(" ").filter(Boolean);
  }

  /** The access token. `console.log` and `JSON.stringify` show it masked; read it from here. */
  get accessToken(): string {
    return this.#accessToken;
  }

  /** The refresh token to use next; masked as the access token is. `null` when there is none. */
  get refreshToken(): string | null {
    return this.#refreshToken;
  }

  override toJSON(): object {
    const refreshToken = this.#refreshToken === null ? null : masked(this.#refreshToken);
    return { ...super.toJSON(), accessToken: masked(this.#accessToken), refreshToken };
  }
}

/** Return the tokens that *response* tells of; *present* is the refresh token that it answers to. */
export function tokensFrom(members: Json, response: Response, present: string | null): Tokens {
  return new Tokens(new Members(members), response, present);
}
