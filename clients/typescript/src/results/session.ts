/** Sessions: short-lived tokens that a server makes for what it does not trust with its key. */

import { masked } from "../settings/credential.js";
import { Members, moment, number, text, texts, type Json } from "../wire/reading.js";
import type { Response } from "../wire/response.js";
import { Received } from "./received.js";

/** A session. Its `token` is an access token: `new MachPay({ accessToken: session.token })`. */
export class Session extends Received {
  readonly id: string | null;
  readonly tokenType: string;
  /** The seconds that it lasts from when it came. */
  readonly expiresIn: number | null;
  readonly expiresAt: Date | null;
  readonly scopes: readonly string[];
  readonly #token: string;

  /** @internal */
  constructor(of: Members, response: Response) {
    super(of, response);
    of.optional("object", text, null);
    this.id = of.optional("id", text, null);
    this.#token = of.required("token", text);
    this.tokenType = of.optional("token_type", text, "Bearer");
    this.expiresIn = of.optional("expires_in", number, null);
    this.expiresAt = of.optional("expires_at", moment, null);
    this.scopes = of.optional("scopes", texts, []);
  }

  /** The token. `console.log` and `JSON.stringify` show it masked; read it from here. */
  get token(): string {
    return this.#token;
  }

  override toJSON(): object {
    return { ...super.toJSON(), token: masked(this.#token) };
  }
}

/** Return the session that *response* tells of. */
export function sessionFrom(members: Json, response: Response): Session {
  return new Session(new Members(members), response);
}
