/** `client.oauth`: access that users grant to an application. It needs no credential of the API. */

import { OAuthError } from "../errors.js";
import {
  authorizationRequest,
  scopeOf,
  type AuthorizationParams,
  type AuthorizationRequest,
} from "../oauth/authorization.js";
import { dpopKeyFrom, type DPoPKey } from "../oauth/dpop.js";
import { parseCallback, type Callback, type CallbackExpectations } from "../oauth/callback.js";
import { introspectionFrom, type Introspection } from "../results/introspection.js";
import { tokensFrom, type Tokens } from "../results/tokens.js";
import { refuseInBrowser } from "../settings/credential.js";
import type { Options } from "../settings/options.js";
import { optionsWith } from "../settings/options.js";
import { readingOptions, type RequestOptions } from "../settings/request-options.js";
import { textOf } from "../wire/call.js";
import { sendWithRetries, CallProgress, type HttpRequest } from "../wire/sender.js";
import { Stream } from "../wire/stream.js";
import type { Effects } from "../wire/effects.js";
import { problemIn, textIn } from "../wire/problem.js";
import { parseObject } from "../wire/parsing.js";
import { Response } from "../wire/response.js";
import type { Repeat } from "../wire/retry.js";
import { successOf } from "../wire/success.js";

/** What identifies the application. Only a confidential one has a secret; a page or an app on a device has none. */
export interface ApplicationCredentials extends RequestOptions {
  /** The id of the OAuth client. */
  readonly clientId: string;
  /** Its secret. Not in browsers. */
  readonly clientSecret?: string | undefined;
}

/** An authorization code to exchange for tokens. */
export interface CodeExchange extends ApplicationCredentials {
  /** From the callback. Its type is unknown, as in web frameworks; anything but one string is refused. */
  readonly code: unknown;
  /** The same as in the authorization request. */
  readonly redirectUri: string;
  /** From `authorizationUrl`; missing if the request was made without PKCE. */
  readonly codeVerifier?: string | undefined;
  /** Binds the tokens to this key. */
  readonly dpopKey?: DPoPKey | undefined;
}

/** A refresh token to exchange for new tokens. */
export interface TokenRefresh extends ApplicationCredentials {
  /** The refresh token that was issued last. */
  readonly refreshToken: string;
  /** Fewer scopes than before; by default all of them. */
  readonly scopes?: Iterable<string> | undefined;
  /** Instead of `scopes`, separated by spaces. */
  readonly scope?: string | undefined;
  /** Binds the new tokens to this key. */
  readonly dpopKey?: DPoPKey | undefined;
}

/** What an application asks for itself. */
export interface ClientCredentialsRequest extends ApplicationCredentials {
  /** The scopes to ask for; by default all of the application's. */
  readonly scopes?: Iterable<string> | undefined;
  /** Instead of `scopes`, separated by spaces. */
  readonly scope?: string | undefined;
  /** The API that the token is for (RFC 8707). */
  readonly resource?: string | undefined;
  /** Binds the token to this key. */
  readonly dpopKey?: DPoPKey | undefined;
}

/** A token to ask about. */
export interface TokenIntrospection extends ApplicationCredentials {
  /** One of the application's own access tokens or refresh tokens. */
  readonly token: string;
}

/** A token to revoke. */
export interface TokenRevocation extends ApplicationCredentials {
  /** An access token, or a refresh token. */
  readonly token: string;
}

interface FormRequest {
  readonly client: ApplicationCredentials;
  readonly form: Readonly<Record<string, string | undefined>>;
  readonly repeat: Repeat;
  readonly secrets: readonly (string | undefined)[];
  readonly options: RequestOptions;
  readonly dpopKey?: DPoPKey | undefined;
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
  async exchangeCode(params: CodeExchange, options?: RequestOptions): Promise<Tokens> {
    const names = ["code", "redirectUri", "clientId", "clientSecret", "codeVerifier", "dpopKey"];
    const given = readingOptions("oauth.exchangeCode", names, params, options);
    const code = textOf("code", params.code);
    const { codeVerifier } = params;
    const form = {
      grant_type: "authorization_code",
      code,
      redirect_uri: textOf("redirectUri", params.redirectUri),
      code_verifier: codeVerifier === undefined ? undefined : textOf("codeVerifier", codeVerifier),
    };
    const secrets = [code, codeVerifier];
    return this.#tokens({ client: params, form, repeat: "unreceived", secrets, options: given }, params.dpopKey);
  }

  /** Return new tokens. Their refresh token replaces the given one. */
  async refreshToken(params: TokenRefresh, options?: RequestOptions): Promise<Tokens> {
    const names = ["refreshToken", "clientId", "clientSecret", "scopes", "scope", "dpopKey"];
    const given = readingOptions("oauth.refreshToken", names, params, options);
    const current = textOf("refreshToken", params.refreshToken);
    const form = { grant_type: "refresh_token", refresh_token: current, scope: scopeOf(params) };
    // A retry gets the same new tokens, so a lost response does not end the login.
    const request = { client: params, form, repeat: "always", secrets: [current], options: given } as const;
    return this.#tokens(request, params.dpopKey, current);
  }

  /** Return a token with which the application acts for itself. It has no refresh token: ask for another one. */
  async clientCredentials(params: ClientCredentialsRequest, options?: RequestOptions): Promise<Tokens> {
    const names = ["clientId", "clientSecret", "scopes", "scope", "resource", "dpopKey"];
    const given = readingOptions("oauth.clientCredentials", names, params, options);
    const form = {
      grant_type: "client_credentials",
      scope: scopeOf(params),
      resource: params.resource === undefined ? undefined : textOf("resource", params.resource),
    };
    textOf("clientSecret", params.clientSecret); // a public application cannot act for itself
    const request = { client: params, form, repeat: "always", secrets: [], options: given } as const;
    return this.#tokens(request, params.dpopKey);
  }

  /** Return what the server knows of one of the application's own tokens. Another one is not `.active` (RFC 7662). */
  async introspect(params: TokenIntrospection, options?: RequestOptions): Promise<Introspection> {
    const given = readingOptions("oauth.introspect", ["token", "clientId", "clientSecret"], params, options);
    const token = textOf("token", params.token);
    textOf("clientSecret", params.clientSecret); // a public application cannot introspect tokens
    const request = { client: params, form: { token }, repeat: "always", secrets: [token], options: given } as const;
    return parseObject(await this.#post("/oauth/introspect", request), introspectionFrom);
  }

  /** Revoke a token. An invalid token is not an error (RFC 7009 §2.2). */
  async revoke(params: TokenRevocation, options?: RequestOptions): Promise<void> {
    const given = readingOptions("oauth.revoke", ["token", "clientId", "clientSecret"], params, options);
    const token = textOf("token", params.token);
    const request = { client: params, form: { token }, repeat: "always", secrets: [token], options: given } as const;
    await this.#post("/oauth/revoke", request);
  }

  async #tokens(request: FormRequest, dpopKey: unknown, current: string | null = null): Promise<Tokens> {
    const key = dpopKeyFrom(dpopKey);
    const response = await this.#post("/oauth/token", { ...request, dpopKey: key });
    return parseObject(response, (members) =>
      tokensFrom(members, response, current, key === undefined ? "Bearer" : "DPoP"),
    );
  }

  async #post(path: string, { client, form, repeat, secrets, options, dpopKey }: FormRequest): Promise<Response> {
    const authentication = this.#authentication(client);
    const fields = Object.entries({ ...form, ...authentication.form }).filter((pair): pair is [string, string] => {
      return pair[1] !== undefined;
    });
    const effects = this.#effects;
    const request: HttpRequest = {
      method: "POST",
      origin: this.#options.authUrl,
      path,
      query: "",
      headers: {
        Accept: "application/json",
        ...options.headers,
        "Content-Type": "application/x-www-form-urlencoded",
        ...authentication.headers,
      },
      body: String(new URLSearchParams(fields)),
      repeat,
      secrets: [...secrets, ...authentication.secrets].filter((secret) => secret !== undefined),
      signal: options.signal,
      proof: dpopKey && ((method, url) => dpopKey.proof(method, url, null, effects.now())),
    };
    const { timeout, maxRetries } = options;
    const progress = new CallProgress(effects.monotonic);
    const outcome = await sendWithRetries(
      request,
      optionsWith(this.#options, { timeout, maxRetries }),
      effects,
      progress,
    );
    if (outcome instanceof Stream) return outcome.response;
    if (outcome instanceof Response && !outcome.isSuccess) throwIfOAuthError(outcome);
    return successOf(outcome);
  }

  /** Return the authentication of the application: HTTP Basic with a secret, or the id alone without one. */
  #authentication({ clientId, clientSecret }: ApplicationCredentials): ClientAuthentication {
    const id = textOf("clientId", clientId);
    if (clientSecret === undefined) return { form: { client_id: id }, headers: {}, secrets: [] };
    const secret = textOf("clientSecret", clientSecret);
    if (!this.#options.isTrusted) refuseInBrowser("clientSecret is a secret of the application, which");
    // RFC 6749 §2.3.1: form-encoded first, so that a colon in the id does not end it.
    const basic = btoa(`${formEncoded(id)}:${formEncoded(secret)}`);
    return { form: {}, headers: { Authorization: `Basic ${basic}` }, secrets: [secret, basic] };
  }
}

interface ClientAuthentication {
  readonly form: Readonly<Record<string, string>>;
  readonly headers: Readonly<Record<string, string>>;
  readonly secrets: readonly string[];
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
