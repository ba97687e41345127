/** Builds the parts of a client from its options, and selects its credential. */

import { ConfigurationError } from "./errors.js";
import { TokenRefresher } from "./oauth/token-refresher.js";
import { OAuth } from "./resources/oauth.js";
import { CLIENT_OPTION_NAMES, type ClientOptions } from "./settings/client-options.js";
import { Credential, credentialFrom, kindOf, refuseInBrowser } from "./settings/credential.js";
import { variable } from "./settings/environment.js";
import { optionsWith, checkOptionNames, optionsFrom, type GivenOptions } from "./settings/options.js";
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
  withOptions(given: Pick<GivenOptions, "timeout" | "maxRetries">): ClientContext {
    checkOptionNames(given, ["timeout", "maxRetries"]);
    const { options, credentials, effects } = this.transport;
    const changed = optionsWith(options, given);
    return new ClientContext(new Transport(changed, credentials, effects), new OAuth(changed, effects));
  }
}

/** Return the context for the *given* options, all validated. */
export function createClientContext(given: ClientOptions, effects: Effects = DEFAULT_EFFECTS): ClientContext {
  if (typeof given !== "object" || given === null) {
    throw new ConfigurationError(`The options are ${kindOf(given)}; write new MachPay({ apiKey: … }).`);
  }
  checkOptionNames(given, CLIENT_OPTION_NAMES);
  if (given.clientSecret !== undefined) refuseInBrowser("clientSecret is a secret of the application, which");
  const options = optionsFrom(given);
  const oauth = new OAuth(options, effects);
  return new ClientContext(new Transport(options, credentialsFrom(given, oauth, effects), effects), oauth);
}

/** Return the credentials. Options override the environment; two contradicting options are an error. */
function credentialsFrom(given: ClientOptions, oauth: OAuth, effects: Effects): Credentials {
  const { refreshToken } = given;
  const isGiven = { apiKey: "apiKey" in given, accessToken: "accessToken" in given };
  const hasRefreshToken = refreshToken !== undefined && refreshToken !== null;
  if (isGiven.apiKey && (isGiven.accessToken || hasRefreshToken)) {
    const other = isGiven.accessToken ? "accessToken" : "refreshToken";
    throw new ConfigurationError(`Both apiKey and ${other} are given; pass the one to be used.`);
  }
  if (isGiven.apiKey) return new StaticCredentials(apiKeyFrom("apiKey", given.apiKey));
  const credential = isGiven.accessToken ? credentialFrom("accessToken", given.accessToken) : null;
  if (hasRefreshToken) return tokenRefresherFrom(given, credential, refreshToken, oauth, effects);
  if (credential !== null) return new StaticCredentials(credential);
  const key = variable(API_KEY_VARIABLE);
  return key ? new StaticCredentials(apiKeyFrom(API_KEY_VARIABLE, key)) : new NoCredentials();
}

function apiKeyFrom(name: string, value: unknown): Credential {
  refuseInBrowser(`${name} is an API key, which`);
  return credentialFrom(name, value);
}

function tokenRefresherFrom(
  given: ClientOptions,
  credential: Credential | null,
  refreshToken: string,
  oauth: OAuth,
  effects: Effects,
): TokenRefresher {
  const { clientId, clientSecret, onTokens } = given;
  if (clientId === undefined) throw new ConfigurationError("refreshToken is given without clientId; pass both.");
  if (onTokens !== undefined && typeof onTokens !== "function") {
    throw new ConfigurationError(`onTokens is ${kindOf(onTokens)}, and has to be a function.`);
  }
  credentialFrom("refreshToken", refreshToken);
  return new TokenRefresher({
    credential,
    refreshToken,
    refresh: (current) => oauth.refreshToken({ refreshToken: current, clientId, clientSecret }),
    onTokens,
    now: effects.now,
  });
}

/** A credential that is never refreshed. */
class StaticCredentials implements Credentials {
  readonly #credential: Credential;

  constructor(credential: Credential) {
    this.#credential = credential;
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
