/** The client: a credential, a place to send it to, and the resources there. */

import { Assembly, assembled } from "./assembly.js";
import { Accounts } from "./resources/accounts.js";
import { Keys } from "./resources/keys.js";
import type { OAuth } from "./resources/oauth.js";
import { Sessions } from "./resources/sessions.js";
import { Skills } from "./resources/skills.js";
import { identityFrom, type Identity } from "./results/account.js";
import type { ClientOptions } from "./settings/client-options.js";
import { readObject } from "./wire/reading.js";
import { Shown } from "./wire/shown.js";

/**
 * A client of the MachPay API.
 *
 * Without a credential the key comes from MACHPAY_API_KEY; without that, too, only `oauth` works, and any other call
 * throws a ConfigurationError.
 */
export class MachPay extends Shown {
  /** API keys. */
  readonly keys: Keys;
  /** What can be executed. */
  readonly skills: Skills;
  /** The account that the credential belongs to. */
  readonly account: Accounts;
  /** Short-lived tokens. */
  readonly sessions: Sessions;
  /** Tokens for a user who consents. */
  readonly oauth: OAuth;
  readonly #assembly: Assembly;

  constructor(options?: ClientOptions);
  /** @internal */
  constructor(assembly: Assembly);
  constructor(given: ClientOptions | Assembly = {}) {
    super();
    this.#assembly = given instanceof Assembly ? given : assembled(given);
    const { transport, oauth } = this.#assembly;
    this.keys = new Keys(transport);
    this.skills = new Skills(transport);
    this.account = new Accounts(transport);
    this.sessions = new Sessions(transport);
    this.oauth = oauth;
  }

  /** Return whom the server takes this client for. */
  async whoami(): Promise<Identity> {
    const response = await this.#assembly.transport.send({ method: "GET", path: "/v1/whoami" });
    return readObject(response, identityFrom);
  }

  /** Return a client that differs in what is given, and shares the credential of this one. */
  withOptions(options: Pick<ClientOptions, "timeout" | "maxRetries">): MachPay {
    return new MachPay(this.#assembly.changed(options));
  }

  override toJSON(): object {
    const { credentials, options } = this.#assembly.transport;
    return { credential: credentials.shown, baseUrl: options.baseUrl };
  }
}
