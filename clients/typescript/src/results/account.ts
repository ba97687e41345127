/** The account and the identity of the caller. Further members are in `.extra`. */

import { ObjectParser, text, texts, type Json } from "../wire/parsing.js";
import type { Response } from "../wire/response.js";
import { Result } from "./result.js";

/** The account that the credential belongs to. */
export class Account extends Result {
  readonly id: string | null;

  /** @internal */
  constructor(parser: ObjectParser, response: Response) {
    super(parser, response);
    this.id = parser.optional("id", text, null);
  }
}

/** The caller as the server identifies it. */
export class Identity extends Result {
  readonly id: string | null;
  readonly name: string | null;
  readonly environment: string | null;
  readonly tier: string | null;
  readonly scopes: readonly string[];

  /** @internal */
  constructor(parser: ObjectParser, response: Response) {
    super(parser, response);
    this.id = parser.optional("id", text, null);
    this.name = parser.optional("name", text, null);
    this.environment = parser.optional("environment", text, null);
    this.tier = parser.optional("tier", text, null);
    this.scopes = parser.optional("scopes", texts, []);
  }
}

/** Return the account in *response*. */
export function accountFrom(members: Json, response: Response): Account {
  return new Account(new ObjectParser(members), response);
}

/** Return the identity in *response*. */
export function identityFrom(members: Json, response: Response): Identity {
  return new Identity(new ObjectParser(members), response);
}
