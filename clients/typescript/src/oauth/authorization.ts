/** OAuth authorization requests: the URL to redirect a user to, and the values to keep for the callback. */

import { ConfigurationError, InvalidArgumentError } from "../errors.js";
import { checkNames } from "../settings/request-options.js";
import { stringsOf, textOf } from "../wire/call.js";
import { base64url } from "./base64url.js";

const RANDOM_BYTES = 32; // RFC 7636 §4.1: 43 characters, the minimum length of a verifier

/** The parameters of an authorization request. */
export interface AuthorizationParams {
  /** The id of the OAuth client. */
  readonly clientId: string;
  /** Where the user is sent back to: one of those that are registered. */
  readonly redirectUri: string;
  /** What to ask the user for; by default all of the application's scopes. */
  readonly scopes?: Iterable<string> | undefined;
  /** Instead of `scopes`, separated by spaces. */
  readonly scope?: string | undefined;
  /** By default a random one. */
  readonly state?: string | undefined;
  /** The API that the tokens are for (RFC 8707). */
  readonly resource?: string | undefined;
  /** `login` asks for the password again, `consent` for the consent, `none` asks nothing. */
  readonly prompt?: "login" | "consent" | "none" | (string & {}) | undefined;
}

/** Redirect the user to `url`. Keep `state` and `codeVerifier` in the user's session for the callback. */
export interface AuthorizationRequest {
  /** Where to redirect the user to. */
  readonly url: string;
  /** To be compared in the callback: keep it in the user's session. */
  readonly state: string;
  /** To be sent with the code: keep it in the user's session. */
  readonly codeVerifier: string;
}

/** Return a request to the server at *authUrl*, with a fresh state and PKCE (RFC 7636). */
export async function authorizationRequest(
  authUrl: string,
  params: AuthorizationParams,
): Promise<AuthorizationRequest> {
  const names = ["clientId", "redirectUri", "scopes", "scope", "state", "resource", "prompt"];
  checkNames("oauth.authorizationUrl", params, names);
  const state = params.state === undefined ? randomText() : textOf("state", params.state);
  const codeVerifier = randomText();
  const query = new URLSearchParams({
    response_type: "code",
    client_id: textOf("clientId", params.clientId),
    redirect_uri: textOf("redirectUri", params.redirectUri),
    state,
    code_challenge: await challengeOf(codeVerifier),
    code_challenge_method: "S256",
  });
  const scope = scopeOf(params);
  if (scope !== undefined) query.set("scope", scope);
  if (params.resource !== undefined) query.set("resource", textOf("resource", params.resource));
  if (params.prompt !== undefined) query.set("prompt", textOf("prompt", params.prompt));
  // A plus means a space in forms only, %20 everywhere.
  return { url: `${authUrl}/oauth/authorize?${String(query).replaceAll("+", "%20")}`, state, codeVerifier };
}

/** Return the scope in *params*, or `undefined` for the default of the server. */
export function scopeOf(params: Pick<AuthorizationParams, "scope" | "scopes">): string | undefined {
  const { scope, scopes } = params;
  if (scope !== undefined && scopes !== undefined) {
    throw new InvalidArgumentError("Both scope and scopes are given; pass one of them.");
  }
  return scope === undefined ? stringsOf("scopes", scopes)?.join(" ") : textOf("scope", scope);
}

function randomText(): string {
  return base64url(crypto.getRandomValues(new Uint8Array(RANDOM_BYTES)));
}

async function challengeOf(codeVerifier: string): Promise<string> {
  if ((crypto.subtle as SubtleCrypto | undefined) === undefined) {
    throw new ConfigurationError("PKCE needs SHA-256, which browsers offer on https:// pages and on localhost only.");
  }
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(codeVerifier));
  return base64url(new Uint8Array(digest));
}
