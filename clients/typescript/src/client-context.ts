/** Builds the parts of a client from its options, and selects its credential. */

import { ConfigurationError } from "./errors.js";
import { dpopKeyFrom } from "./oauth/dpop.js";
import { TokenRefresher } from "./oauth/token-refresher.js";
import { TokenStore } from "./oauth/token-store.js";
import { OAuth } from "./resources/oauth.js";
import { CLIENT_OPTION_NAMES, type ClientOptions } from "./settings/client-options.js";
import { Credential, credentialFrom, kindOf, refuseInBrowser } from "./settings/credential.js";
import { variable } from "./settings/environment.js";
import { optionsWith, checkOptionNames, optionsFrom, type ChangeableOptions } from "./settings/options.js";
import { DEFAULT_EFFECTS, type Effects } from "./wire/effects.js";
import { Transport, type Credentials } from "./wire/transport.js";

const API_KEY_VARIABLE = "MACHPAY_API_KEY";

/** The parts of a client. */
export class ClientContext {
  readonly transport: Transport;
  readonly oauth: OAuth;

  constructor(transport: Transport, oauth: OAuth) {
    this.transport = transport;
    this.oauth = oauth;
  }

  /** Return a context with the *given* options, which shares the credential. */
  withOptions(given: ChangeableOptions): ClientContext {
    checkOptionNames(given, ["timeout", "maxRetries", "defaultHeaders"]);
    const { options, credentials, effects, dpopKey } = this.transport;
    const changed = optionsWith(options, given);
    return new ClientContext(new Transport(changed, credentials, effects, dpopKey), new OAuth(changed, effects));
  }
}

/** Return the context for the *given* options, all validated. */
export function createClientContext(given: ClientOptions, effects: Effects = DEFAULT_EFFECTS): ClientContext {
  if (typeof given !== "object" || given === null) {
    throw new ConfigurationError(`The options are ${kindOf(given)}; write new MachPay({ apiKey: … }).`);
  }
  checkOptionNames(given, CLIENT_OPTION_NAMES);
  const options = optionsFrom(given);
  if (given.clientSecret !== undefined && !options.isTrusted) {
    refuseInBrowser("clientSecret is a secret of the application, which");
  }
  const oauth = new OAuth(options, effects);
  const dpopKey = dpopKeyFrom(given.dpopKey);
  const credentials = credentialsFrom(given, oauth, effects, options.isTrusted);
  if (dpopKey !== undefined && credentials.isApiKey) {
    throw new ConfigurationError("Both an API key and dpopKey are given; only access tokens are bound to a key.");
  }
  return new ClientContext(new Transport(options, credentials, effects, dpopKey), oauth);
}

/** Return the credentials. Options override the environment; two contradicting options are an error. */
function credentialsFrom(
  given: ClientOptions,
  oauth: OAuth,
  effects: Effects,
  isTrusted: boolean,
): Credentials & { readonly isApiKey?: boolean } {
  const { refreshToken, loadTokens } = given;
  const isGiven = { apiKey: "apiKey" in given, accessToken: "accessToken" in given };
  const hasRefreshToken = refreshToken !== undefined && refreshToken !== null;
  const refreshes = hasRefreshToken || loadTokens !== undefined;
  if (isGiven.apiKey && (isGiven.accessToken || refreshes)) {
    const other = isGiven.accessToken ? "accessToken" : hasRefreshToken ? "refreshToken" : "loadTokens";
    throw new ConfigurationError(`Both apiKey and ${other} are given; pass the one to be used.`);
  }
  if (isGiven.apiKey) return new StaticCredentials(apiKeyFrom("apiKey", given.apiKey, isTrusted), true);
  const credential = isGiven.accessToken ? credentialFrom("accessToken", given.accessToken, isTrusted) : null;
  if (refreshes) return tokenRefresherFrom(given, credential, hasRefreshToken ? refreshToken : null, oauth, effects);
  if (credential !== null) return new StaticCredentials(credential, false);
  const key = variable(API_KEY_VARIABLE);
  return key ? new StaticCredentials(apiKeyFrom(API_KEY_VARIABLE, key, isTrusted), true) : new NoCredentials();
}

function apiKeyFrom(name: string, value: unknown, isTrusted: boolean): Credential {
  if (!isTrusted) refuseInBrowser(`${name} is an API key, which`);
  return credentialFrom(name, value, isTrusted);
}

function tokenRefresherFrom(
  given: ClientOptions,
  credential: Credential | null,
  refreshToken: string | null,
  oauth: OAuth,
  effects: Effects,
): TokenRefresher {
  const { clientId, clientSecret, onTokens, loadTokens, dpopKey } = given;
  const store = new TokenStore(onTokens, loadTokens);
  const name = refreshToken === null ? "loadTokens" : "refreshToken";
  if (clientId === undefined) throw new ConfigurationError(`${name} is given without clientId; pass both.`);
  if (refreshToken !== null) credentialFrom("refreshToken", refreshToken);
  return new TokenRefresher({
    credential,
    refreshToken,
    refresh: (current) => oauth.refreshToken({ refreshToken: current, clientId, clientSecret, dpopKey }),
    store,
    now: effects.now,
  });
}

/** A credential that is never refreshed. */
class StaticCredentials implements Credentials {
  readonly isApiKey: boolean;
  readonly #credential: Credential;

  constructor(credential: Credential, isApiKey: boolean) {
    this.#credential = credential;
    this.isApiKey = isApiKey;
  }

  get masked(): string {
    return String(this.#credential);
  }

  async current(): Promise<Credential> {
    return this.#credential;
  }

  async replacement(): Promise<null> {
    return null;
  }
}

/** No credential. Only `client.oauth` works without one. */
class NoCredentials implements Credentials {
  readonly masked = null;

  async current(): Promise<never> {
    throw new ConfigurationError(
      `There is no credential: set the environment variable ${API_KEY_VARIABLE}, or pass apiKey or accessToken.`,
    );
  }

  async replacement(): Promise<null> {
    return null;
  }
}
