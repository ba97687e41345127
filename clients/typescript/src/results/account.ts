/** The account, and who is calling. Their further members are in `.extra`. */

import { Members, text, texts, type Json } from "../wire/reading.js";
import type { Response } from "../wire/response.js";
import { Received } from "./received.js";

/** The account that the credential belongs to. */
export class Account extends Received {
  readonly id: string | null;

  /** @internal */
  constructor(of: Members, response: Response) {
    super(of, response);
    this.id = of.optional("id", text, null);
  }
}

/** Whom the server takes the caller for. */
export class Identity extends Received {
  readonly id: string | null;
  readonly name: string | null;
  readonly environment: string | null;
  readonly tier: string | null;
  readonly scopes: readonly string[];

  /** @internal */
  constructor(of: Members, response: Response) {
    super(of, response);
    this.id = of.optional("id", text, null);
    this.name = of.optional("name", text, null);
    this.environment = of.optional("environment", text, null);
    this.tier = of.optional("tier", text, null);
    this.scopes = of.optional("scopes", texts, []);
  }
}

/** Return the account that *response* tells of. */
export function accountFrom(members: Json, response: Response): Account {
  return new Account(new Members(members), response);
}

/** Return the identity that *response* tells of. */
export function identityFrom(members: Json, response: Response): Identity {
  return new Identity(new Members(members), response);
}
