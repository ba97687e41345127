/** `client.account`: the account that the credential belongs to. */

import { accountFrom, type Account } from "../results/account.js";
import { readingOptions, type RequestOptions } from "../settings/request-options.js";
import { parseObject } from "../wire/parsing.js";
import type { Transport } from "../wire/transport.js";

/** Retrieve the account. */
export class Accounts {
  readonly #transport: Transport;

  /** @internal */
  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Return the account. Members other than its id are in `.extra`. */
  async retrieve(options: RequestOptions = {}): Promise<Account> {
    const given = readingOptions("account.retrieve", [], options);
    return parseObject(await this.#transport.send({ method: "GET", path: "/v1/account", options: given }), accountFrom);
  }
}
