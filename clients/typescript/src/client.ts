/** The client: a credential, the address of the API, and its resources. */

import { ClientContext, createClientContext } from "./client-context.js";
import { Accounts } from "./resources/accounts.js";
import { Keys } from "./resources/keys.js";
import type { OAuth } from "./resources/oauth.js";
import { Sessions } from "./resources/sessions.js";
import { Skills } from "./resources/skills.js";
import { identityFrom, type Identity } from "./results/account.js";
import type { ClientOptions } from "./settings/client-options.js";
import { parseObject } from "./wire/parsing.js";
import { SafeOutput } from "./wire/safe-output.js";

/**
 * A client of the MachPay API.
 *
 * Without a credential, the key is taken from MACHPAY_API_KEY. Without either, only `oauth` works, and any other call
 * throws a ConfigurationError.
 */
export class MachPay extends SafeOutput {
  /** API keys. */
  readonly keys: Keys;
  /** Skills to execute. */
  readonly skills: Skills;
  /** The account that the credential belongs to. */
  readonly account: Accounts;
  /** Short-lived tokens. */
  readonly sessions: Sessions;
  /** Access that users grant to an application. */
  readonly oauth: OAuth;
  readonly #context: ClientContext;

  constructor(options?: ClientOptions);
  /** @internal */
  constructor(context: ClientContext);
  constructor(given: ClientOptions | ClientContext = {}) {
    super();
    this.#context = given instanceof ClientContext ? given : createClientContext(given);
    const { transport, oauth } = this.#context;
    this.keys = new Keys(transport);
    this.skills = new Skills(transport);
    this.account = new Accounts(transport);
    this.sessions = new Sessions(transport);
    this.oauth = oauth;
  }

  /** Return the identity that the server sees. */
  async whoami(): Promise<Identity> {
    const response = await this.#context.transport.send({ method: "GET", path: "/v1/whoami" });
    return parseObject(response, identityFrom);
  }

  /** Return a client with the given options changed, which shares the credential of this one. */
  withOptions(options: Pick<ClientOptions, "timeout" | "maxRetries">): MachPay {
    return new MachPay(this.#context.withOptions(options));
  }

  override toJSON(): object {
    const { credentials, options } = this.#context.transport;
    return { credential: credentials.masked, baseUrl: options.baseUrl };
  }
}
