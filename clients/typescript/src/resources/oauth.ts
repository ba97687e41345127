/** `client.oauth`: access that users grant to an application. It needs no credential of the API. */

import { OAuthError } from "../errors.js";
import {
  authorizationRequest,
  scopeOf,
  type AuthorizationParams,
  type AuthorizationRequest,
} from "../oauth/authorization.js";
import { parseCallback, type Callback, type CallbackExpectations } from "../oauth/callback.js";
import { tokensFrom, type Tokens } from "../results/tokens.js";
import { refuseInBrowser } from "../settings/credential.js";
import type { Options } from "../settings/options.js";
import { checkNames, textOf } from "../wire/call.js";
import { sendWithRetries, CallProgress, type HttpRequest } from "../wire/sender.js";
import type { Effects } from "../wire/effects.js";
import { problemIn, textIn } from "../wire/problem.js";
import { parseObject } from "../wire/parsing.js";
import { Response } from "../wire/response.js";
import type { Repeat } from "../wire/retry.js";
import { successOf } from "../wire/success.js";

/** The application. Only a confidential one has a `clientSecret`; a page or an app on a device has none. */
export interface OAuthClient {
  readonly clientId: string;
  readonly clientSecret?: string | undefined;
}

/** An authorization code to exchange for tokens. */
export interface CodeExchange extends OAuthClient {
  /** From the callback. Its type is unknown, as in web frameworks; anything but one string is refused. */
  readonly code: unknown;
  /** The same as in the authorization request. */
  readonly redirectUri: string;
  /** From `authorizationUrl`; missing if the request was made without PKCE. */
  readonly codeVerifier?: string | undefined;
}

/** A refresh token to exchange for new tokens. */
export interface TokenRefresh extends OAuthClient {
  readonly refreshToken: string;
  /** Fewer scopes than before; by default all of them. */
  readonly scopes?: Iterable<string> | undefined;
  /** Instead of `scopes`, separated by spaces. */
  readonly scope?: string | undefined;
}

/** A token to revoke. */
export interface TokenRevocation extends OAuthClient {
  /** An access token, or a refresh token. */
  readonly token: string;
}

interface FormRequest {
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

  /** Return the URL to redirect the user to, with a random `state` and PKCE. */
  async authorizationUrl(params: AuthorizationParams): Promise<AuthorizationRequest> {
    return authorizationRequest(this.#options.authUrl, params);
  }

  /** Return the code in a callback. Throw an OAuthError for an error, and for a forged callback. */
  checkCallback(callback: Callback, expectations: CallbackExpectations): string {
    return parseCallback(callback, expectations);
  }

  /** Return tokens for a code. It is retried only if the server was not reached: a code can be used once. */
  async exchangeCode(params: CodeExchange): Promise<Tokens> {
    const names = ["code", "redirectUri", "clientId", "clientSecret", "codeVerifier"];
    checkNames("oauth.exchangeCode", params, names);
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
    return parseObject(response, (members) => tokensFrom(members, response, null));
  }

  /** Return new tokens. Their refresh token replaces the given one. */
  async refreshToken(params: TokenRefresh): Promise<Tokens> {
    checkNames("oauth.refreshToken", params, ["refreshToken", "clientId", "clientSecret", "scopes", "scope"]);
    const current = textOf("refreshToken", params.refreshToken);
    const form = { grant_type: "refresh_token", refresh_token: current, scope: scopeOf(params) };
    // A retry gets the same new tokens, so a lost response does not end the login.
    const request = { client: params, form, repeat: "always", secrets: [current] } as const;
    const response = await this.#post("/oauth/token", request);
    return parseObject(response, (members) => tokensFrom(members, response, current));
  }

  /** Revoke a token. An invalid token is not an error (RFC 7009 §2.2). */
  async revoke(params: TokenRevocation): Promise<void> {
    checkNames("oauth.revoke", params, ["token", "clientId", "clientSecret"]);
    const token = textOf("token", params.token);
    await this.#post("/oauth/revoke", { client: params, form: { token }, repeat: "always", secrets: [token] });
  }

  async #post(path: string, { client, form, repeat, secrets }: FormRequest): Promise<Response> {
    const authentication = clientAuthentication(client);
    const fields = Object.entries({ ...form, ...authentication.form }).filter((pair): pair is [string, string] => {
      return pair[1] !== undefined;
    });
    const request: HttpRequest = {
      method: "POST",
      origin: this.#options.authUrl,
      path,
      query: "",
      headers: { "Content-Type": "application/x-www-form-urlencoded", ...authentication.headers },
      body: String(new URLSearchParams(fields)),
      repeat,
      secrets: [...secrets, ...authentication.secrets].filter((secret) => secret !== undefined),
    };
    const progress = new CallProgress(this.#effects.monotonic);
    const outcome = await sendWithRetries(request, this.#options, this.#effects, progress);
    if (outcome instanceof Response && !outcome.isSuccess) throwIfOAuthError(outcome);
    return successOf(outcome);
  }
}

interface ClientAuthentication {
  readonly form: Readonly<Record<string, string>>;
  readonly headers: Readonly<Record<string, string>>;
  readonly secrets: readonly string[];
}

/** Return the authentication of the application: HTTP Basic with a secret, or the id alone without one. */
function clientAuthentication({ clientId, clientSecret }: OAuthClient): ClientAuthentication {
  const id = textOf("clientId", clientId);
  if (clientSecret === undefined) return { form: { client_id: id }, headers: {}, secrets: [] };
  const secret = textOf("clientSecret", clientSecret);
  refuseInBrowser("clientSecret is a secret of the application, which");
  // RFC 6749 §2.3.1: form-encoded first, so that a colon in the id does not end it.
  const basic = btoa(`${formEncoded(id)}:${formEncoded(secret)}`);
  return { form: {}, headers: { Authorization: `Basic ${basic}` }, secrets: [secret, basic] };
}

function formEncoded(text: string): string {
  return String(new URLSearchParams({ "": text })).slice(1);
}

/** Throw an OAuthError for an error of RFC 6749 §5.2. Others, as a proxy's page or a 429, are errors of the API. */
function throwIfOAuthError(response: Response): void {
  const problem = problemIn(response);
  const error = textIn(problem, "error");
  if (error !== null) throw new OAuthError(error, textIn(problem, "error_description"), response);
}
