/** The client: a credential, the address of the API, and its resources. */

import { ClientContext, createClientContext } from "./client-context.js";
import { Accounts } from "./resources/accounts.js";
import { AuditLog } from "./resources/audit-log.js";
import { Grants } from "./resources/grants.js";
import { Keys } from "./resources/keys.js";
import type { OAuth } from "./resources/oauth.js";
import { OAuthClients } from "./resources/oauth-clients.js";
import { Requests } from "./resources/requests.js";
import { Sessions } from "./resources/sessions.js";
import { Skills } from "./resources/skills.js";
import { identityFrom, type Identity } from "./results/account.js";
import type { ClientOptions } from "./settings/client-options.js";
import { readingOptions, type RequestOptions } from "./settings/request-options.js";
import { parseObject } from "./wire/parsing.js";
import type { Transport } from "./wire/transport.js";

/**
 * A client of the MachPay API.
 *
 * Without a credential, the key is taken from MACHPAY_API_KEY. Without either, only `oauth` works, and any other call
 * throws a ConfigurationError.
 */
export class MachPay extends Requests {
  /** API keys. */
  readonly keys: Keys;
  /** Skills to execute. */
  readonly skills: Skills;
  /** The account that the credential belongs to. */
  readonly account: Accounts;
  /** Short-lived tokens. */
  readonly sessions: Sessions;
  /** Applications that may act for users. */
  readonly oauthClients: OAuthClients;
  /** What users allow OAuth clients to do. */
  readonly grants: Grants;
  /** Who changed what in the account. */
  readonly auditLog: AuditLog;
  /** Access that users grant to an application. */
  readonly oauth: OAuth;
  readonly #context: ClientContext;

  /** Create a client. Throw a ConfigurationError for options that are invalid or contradict each other. */
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
    this.oauthClients = new OAuthClients(transport);
    this.grants = new Grants(transport);
    this.auditLog = new AuditLog(transport);
    this.oauth = oauth;
  }

  /** Return the identity that the server sees. */
  async whoami(options: RequestOptions = {}): Promise<Identity> {
    const given = readingOptions("whoami", [], options);
    return parseObject(await this.transport.send({ method: "GET", path: "/v1/whoami", options: given }), identityFrom);
  }

  /**
   * Return a client with the given options changed, which shares the credential of this one.
   *
   * `defaultHeaders` are sent in addition to those of this client.
   */
  withOptions(options: Pick<ClientOptions, "timeout" | "maxRetries" | "defaultHeaders">): MachPay {
    return new MachPay(this.#context.withOptions(options));
  }

  /** @internal */
  protected override get transport(): Transport {
    return this.#context.transport;
  }

  /** Return the masked credential and the address of the API. */
  override toJSON(): object {
    const { credentials, options } = this.#context.transport;
    return { credential: credentials.masked, baseUrl: options.baseUrl };
  }
}
