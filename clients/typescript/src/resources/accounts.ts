/** `client.account`: the account that the credential belongs to. */

import { accountFrom, type Account } from "../results/account.js";
import { readObject } from "../wire/reading.js";
import type { Transport } from "../wire/transport.js";

/** Look at the account. */
export class Accounts {
  readonly #transport: Transport;

  /** @internal */
  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Return the account; its figures are in `.extra`. */
  async retrieve(): Promise<Account> {
    return readObject(await this.#transport.send({ method: "GET", path: "/v1/account" }), accountFrom);
  }
}
