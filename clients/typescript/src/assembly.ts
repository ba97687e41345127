/** Puts a client together: the only place that knows which credential is meant. */

import { ConfigurationError } from "./errors.js";
import { Renewal } from "./oauth/renewal.js";
import { OAuth } from "./resources/oauth.js";
import { CLIENT_OPTION_NAMES, type ClientOptions } from "./settings/client-options.js";
import { Credential, credentialFrom, kindOf, refuseInBrowser } from "./settings/credential.js";
import { variable } from "./settings/environment.js";
import { changedOptions, checkOptionNames, optionsFrom, type GivenOptions } from "./settings/options.js";
import { WORLD, type Effects } from "./wire/effects.js";
import { Transport, type Credentials } from "./wire/transport.js";

const API_KEY_VARIABLE = "MACHPAY_API_KEY";

/** What a client is made of. */
export class Assembly {
  readonly transport: Transport;
  readonly oauth: OAuth;

  constructor(transport: Transport, oauth: OAuth) {
    this.transport = transport;
    this.oauth = oauth;
  }

  /** Return one that differs in what is *given*, and shares the credential. */
  changed(given: Pick<GivenOptions, "timeout" | "maxRetries">): Assembly {
    checkOptionNames(given, ["timeout", "maxRetries"]);
    const { options, credentials, effects } = this.transport;
    const changed = changedOptions(options, given);
    return new Assembly(new Transport(changed, credentials, effects), new OAuth(changed, effects));
  }
}

/** Return what *given* asks for, all of it checked. */
export function assembled(given: ClientOptions, effects: Effects = WORLD): Assembly {
  if (typeof given !== "object" || given === null) {
    throw new ConfigurationError(`The options are ${kindOf(given)}; write new MachPay({ apiKey: … }).`);
  }
  checkOptionNames(given, CLIENT_OPTION_NAMES);
  if (given.clientSecret !== undefined) refuseInBrowser("clientSecret is a secret of the application, which");
  const options = optionsFrom(given);
  const oauth = new OAuth(options, effects);
  return new Assembly(new Transport(options, credentialsFrom(given, oauth, effects), effects), oauth);
}

/** Return the one credential that is meant. Explicit beats the environment; two explicit ones are an error. */
function credentialsFrom(given: ClientOptions, oauth: OAuth, effects: Effects): Credentials {
  const { refreshToken } = given;
  const isGiven = { apiKey: "apiKey" in given, accessToken: "accessToken" in given };
  const hasRefreshToken = refreshToken !== undefined && refreshToken !== null;
  if (isGiven.apiKey && (isGiven.accessToken || hasRefreshToken)) {
    const other = isGiven.accessToken ? "accessToken" : "refreshToken";
    throw new ConfigurationError(`Both apiKey and ${other} are given; pass the one to be used.`);
  }
  if (isGiven.apiKey) return new Fixed(apiKeyFrom("apiKey", given.apiKey));
  const credential = isGiven.accessToken ? credentialFrom("accessToken", given.accessToken) : null;
  if (hasRefreshToken) return renewalFrom(given, credential, refreshToken, oauth, effects);
  if (credential !== null) return new Fixed(credential);
  const found = variable(API_KEY_VARIABLE);
  return found ? new Fixed(apiKeyFrom(API_KEY_VARIABLE, found)) : new Missing();
}

function apiKeyFrom(name: string, value: unknown): Credential {
  refuseInBrowser(`${name} is an API key, which`);
  return credentialFrom(name, value);
}

function renewalFrom(
  given: ClientOptions,
  credential: Credential | null,
  refreshToken: string,
  oauth: OAuth,
  effects: Effects,
): Renewal {
  const { clientId, clientSecret, onTokens } = given;
  if (clientId === undefined) throw new ConfigurationError("refreshToken is given without clientId; pass both.");
  if (onTokens !== undefined && typeof onTokens !== "function") {
    throw new ConfigurationError(`onTokens is ${kindOf(onTokens)}, and has to be a function.`);
  }
  credentialFrom("refreshToken", refreshToken);
  return new Renewal({
    credential,
    refreshToken,
    refresh: (present) => oauth.refreshToken({ refreshToken: present, clientId, clientSecret }),
    onTokens,
    now: effects.now,
  });
}

/** A credential that stays as it is. */
class Fixed implements Credentials {
  readonly #credential: Credential;

  constructor(credential: Credential) {
    this.#credential = credential;
  }

  get shown(): string {
    return String(this.#credential);
  }

  async current(): Promise<Credential> {
    return this.#credential;
  }

  async renewed(): Promise<null> {
    return null;
  }
}

/** None. What needs none works all the same, as `client.oauth` does. */
class Missing implements Credentials {
  readonly shown = null;

  async current(): Promise<never> {
    throw new ConfigurationError(
      `There is no credential: set the environment variable ${API_KEY_VARIABLE}, or pass apiKey or accessToken.`,
    );
  }

  async renewed(): Promise<null> {
    return null;
  }
}
