/** Sessions: short-lived tokens for code that is not trusted with the API key. */

import { masked } from "../settings/credential.js";
import { ObjectParser, moment, number, text, texts, type Json } from "../wire/parsing.js";
import type { Response } from "../wire/response.js";
import { Result } from "./result.js";

/** A session. Its `token` is an access token: `new MachPay({ accessToken: session.token })`. */
export class Session extends Result {
  /** Its id. */
  readonly id: string | null;
  /** Always `Bearer`. */
  readonly tokenType: string;
  /** Its lifetime in seconds after the response. */
  readonly expiresIn: number | null;
  /** When it expires. */
  readonly expiresAt: Date | null;
  /** What it may do. */
  readonly scopes: readonly string[];
  readonly #token: string;

  /** @internal */
  constructor(parser: ObjectParser, response: Response) {
    super(parser, response);
    parser.optional("object", text, null);
    this.id = parser.optional("id", text, null);
    this.#token = parser.required("token", text);
    this.tokenType = parser.optional("token_type", text, "Bearer");
    this.expiresIn = parser.optional("expires_in", number, null);
    this.expiresAt = parser.optional("expires_at", moment, null);
    this.scopes = parser.optional("scopes", texts, []);
  }

  /** The token. `console.log` and `JSON.stringify` show it masked; read it from here. */
  get token(): string {
    return this.#token;
  }

  override toJSON(): object {
    return { ...super.toJSON(), token: masked(this.#token) };
  }
}

/** Return the session in *response*. */
export function sessionFrom(members: Json, response: Response): Session {
  return new Session(new ObjectParser(members), response);
}
