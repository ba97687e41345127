/** `client.oauth`: tokens for a user who consents. It needs no credential of the API. */

import { OAuthError } from "../errors.js";
import {
  authorizationRequest,
  scopeOf,
  type AuthorizationParams,
  type AuthorizationRequest,
} from "../oauth/authorization.js";
import { codeFrom, type Callback, type CallbackExpectations } from "../oauth/callback.js";
import { tokensFrom, type Tokens } from "../results/tokens.js";
import { refuseInBrowser } from "../settings/credential.js";
import type { Options } from "../settings/options.js";
import { checkNames, textOf } from "../wire/call.js";
import { deliver, Spent, type Parcel } from "../wire/delivery.js";
import type { Effects } from "../wire/effects.js";
import { problemIn, textIn } from "../wire/problem.js";
import { readObject } from "../wire/reading.js";
import { Response } from "../wire/response.js";
import type { Repeat } from "../wire/retry.js";
import { successOf } from "../wire/success.js";

/** The application. One that can keep a secret has a `clientSecret`; a page or an app on a device has none. */
export interface OAuthClient {
  readonly clientId: string;
  readonly clientSecret?: string | undefined;
}

/** A code, and what shows that it is for this application. */
export interface CodeExchange extends OAuthClient {
  /** As the callback brought it: frameworks cannot say of what type it is. Anything but one string is refused. */
  readonly code: unknown;
  /** The same as in the authorization request. */
  readonly redirectUri: string;
  /** What `authorizationUrl` returned; missing if the request was made without PKCE. */
  readonly codeVerifier?: string | undefined;
}

/** A refresh token, and what to ask for with it. */
export interface TokenRefresh extends OAuthClient {
  readonly refreshToken: string;
  /** Fewer scopes than before; all of them unless told. */
  readonly scopes?: Iterable<string> | undefined;
  /** In place of `scopes`, separated by spaces. */
  readonly scope?: string | undefined;
}

/** A token to revoke. */
export interface TokenRevocation extends OAuthClient {
  /** An access token, or a refresh token. */
  readonly token: string;
}

interface Sent {
  readonly client: OAuthClient;
  readonly form: Readonly<Record<string, string | undefined>>;
  readonly repeat: Repeat;
  readonly secrets: readonly (string | undefined)[];
}

/** Get, refresh and revoke tokens. */
export class OAuth {
  readonly #options: Options;
  readonly #effects: Effects;

  /** @internal */
  constructor(options: Options, effects: Effects) {
    this.#options = options;
    this.#effects = effects;
  }

  /** Return where to send the user, with a random `state` and PKCE. */
  async authorizationUrl(params: AuthorizationParams): Promise<AuthorizationRequest> {
    return authorizationRequest(this.#options.authUrl, params);
  }

  /** Return the code in a callback. Throw an OAuthError when it is an error, or not the answer to this request. */
  checkCallback(callback: Callback, expectations: CallbackExpectations): string {
    return codeFrom(callback, expectations);
  }

  /** Return tokens for a code. A code is for one use, so this is sent once, unless the server was not reached. */
  async exchangeCode(params: CodeExchange): Promise<Tokens> {
    const known = ["code", "redirectUri", "clientId", "clientSecret", "codeVerifier"];
    checkNames("oauth.exchangeCode", params, known);
    const code = textOf("code", params.code);
    const { codeVerifier } = params;
    const form = {
      grant_type: "authorization_code",
      code,
      redirect_uri: textOf("redirectUri", params.redirectUri),
      code_verifier: codeVerifier === undefined ? undefined : textOf("codeVerifier", codeVerifier),
    };
    const secrets = [code, codeVerifier];
    const response = await this.#post("/oauth/token", { client: params, form, repeat: "unreceived", secrets });
    return readObject(response, (members) => tokensFrom(members, response, null));
  }

  /** Return new tokens, of which the refresh token takes the place of the given one. */
  async refreshToken(params: TokenRefresh): Promise<Tokens> {
    checkNames("oauth.refreshToken", params, ["refreshToken", "clientId", "clientSecret", "scopes", "scope"]);
    const present = textOf("refreshToken", params.refreshToken);
    const form = { grant_type: "refresh_token", refresh_token: present, scope: scopeOf(params) };
    // Sent again, it is answered with the same successor: a lost answer costs nobody the login.
    const sent = { client: params, form, repeat: "always", secrets: [present] } as const;
    const response = await this.#post("/oauth/token", sent);
    return readObject(response, (members) => tokensFrom(members, response, present));
  }

  /** Let a token work no more. One that does not is no error (RFC 7009 §2.2). */
  async revoke(params: TokenRevocation): Promise<void> {
    checkNames("oauth.revoke", params, ["token", "clientId", "clientSecret"]);
    const token = textOf("token", params.token);
    await this.#post("/oauth/revoke", { client: params, form: { token }, repeat: "always", secrets: [token] });
  }

  async #post(path: string, { client, form, repeat, secrets }: Sent): Promise<Response> {
    const identified = identification(client);
    const given = Object.entries({ ...form, ...identified.form }).filter((pair): pair is [string, string] => {
      return pair[1] !== undefined;
    });
    const parcel: Parcel = {
      method: "POST",
      origin: this.#options.authUrl,
      path,
      query: "",
      headers: { "Content-Type": "application/x-www-form-urlencoded", ...identified.headers },
      body: String(new URLSearchParams(given)),
      repeat,
      secrets: [...secrets, ...identified.secrets].filter((secret) => secret !== undefined),
    };
    const outcome = await deliver(parcel, this.#options, this.#effects, new Spent(this.#effects.monotonic));
    if (outcome instanceof Response && !outcome.isSuccess) throwIfOAuthError(outcome);
    return successOf(outcome);
  }
}

interface Identification {
  readonly form: Readonly<Record<string, string>>;
  readonly headers: Readonly<Record<string, string>>;
  readonly secrets: readonly string[];
}

/** Return how the application says who it is: with its secret by HTTP Basic, without one by its id alone. */
function identification({ clientId, clientSecret }: OAuthClient): Identification {
  const id = textOf("clientId", clientId);
  if (clientSecret === undefined) return { form: { client_id: id }, headers: {}, secrets: [] };
  const secret = textOf("clientSecret", clientSecret);
  refuseInBrowser("clientSecret is a secret of the application, which");
  // RFC 6749 §2.3.1: encoded as in a form before it is encoded as a password; a colon in the id would end it.
  const basic = btoa(`${formEncoded(id)}:${formEncoded(secret)}`);
  return { form: {}, headers: { Authorization: `Basic ${basic}` }, secrets: [secret, basic] };
}

function formEncoded(text: string): string {
  return String(new URLSearchParams({ "": text })).slice(1);
}

/** Throw what RFC 6749 §5.2 calls an error. Anything else is for the API's own errors: a proxy's page, a 429. */
function throwIfOAuthError(response: Response): void {
  const said = problemIn(response);
  const error = textIn(said, "error");
  if (error !== null) throw new OAuthError(error, textIn(said, "error_description"), response);
}
