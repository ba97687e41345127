/** Grants: what users allow OAuth clients to do, as returned by the API. */

import { moment, ObjectParser, text, texts, type Json } from "../wire/parsing.js";
import type { Response } from "../wire/response.js";
import type { Environment } from "./account.js";
import { Result } from "./result.js";

/** What a user allows an OAuth client to do. */
export class Grant extends Result {
  /** Its id. */
  readonly id: string;
  /** The id of the account that it belongs to. */
  readonly accountId: string | null;
  /** The OAuth client. */
  readonly clientId: string | null;
  /** The user; `null` if the OAuth client acts for itself. */
  readonly userId: string | null;
  /** Whether its traffic is live or test. */
  readonly environment: Environment | null;
  /** What the OAuth client may do. */
  readonly scopes: readonly string[];
  /** Whether it holds. */
  readonly status: "active" | "ended" | (string & {}) | null;
  /** When the user allowed it. */
  readonly createdAt: Date | null;

  /** @internal */
  constructor(parser: ObjectParser, response: Response) {
    super(parser, response);
    parser.optional("object", text, null);
    this.id = parser.required("id", text);
    this.accountId = parser.optional("account_id", text, null);
    this.clientId = parser.optional("client_id", text, null);
    this.userId = parser.optional("user_id", text, null);
    this.environment = parser.optional("environment", text, null);
    this.scopes = parser.optional("scopes", texts, []);
    this.status = parser.optional("status", text, null);
    this.createdAt = parser.optional("created_at", moment, null);
  }
}

/** Return the grant in *response*. */
export function grantFrom(members: Json, response: Response): Grant {
  return new Grant(new ObjectParser(members), response);
}
