/** The way to the consent of a user: where to send the browser, and what to keep until it comes back. */

import { ConfigurationError, InvalidArgumentError } from "../errors.js";
import { checkNames, stringsOf, textOf } from "../wire/call.js";

const RANDOM_BYTES = 32; // RFC 7636 §4.1: 43 characters, as many as the shortest verifier has

/** What to ask the user for, and where to come back to. */
export interface AuthorizationParams {
  readonly clientId: string;
  readonly redirectUri: string;
  readonly scopes?: Iterable<string> | undefined;
  /** In place of `scopes`, separated by spaces. */
  readonly scope?: string | undefined;
  /** One of your own in place of a random one. */
  readonly state?: string | undefined;
  /** What the tokens are for (RFC 8707). */
  readonly resource?: string | undefined;
}

/** Send the user to `url`; keep `state` and `codeVerifier` in the user's session for the callback. */
export interface AuthorizationRequest {
  readonly url: string;
  readonly state: string;
  readonly codeVerifier: string;
}

/** Return a request to the server at *authUrl*, with a fresh state and PKCE (RFC 7636). */
export async function authorizationRequest(
  authUrl: string,
  params: AuthorizationParams,
): Promise<AuthorizationRequest> {
  const known = ["clientId", "redirectUri", "scopes", "scope", "state", "resource"];
  checkNames("oauth.authorizationUrl", params, known);
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
  // A plus stands for a space in forms only; %20 does so everywhere.
  return { url: `${authUrl}/oauth/authorize?${String(query).replaceAll("+", "%20")}`, state, codeVerifier };
}

/** Return the scope that *params* ask for, `undefined` when they leave it to the server. */
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
    throw new ConfigurationError("PKCE needs SHA-256, which browsers have on https:// pages and on localhost only.");
  }
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(codeVerifier));
  return base64url(new Uint8Array(digest));
}

function base64url(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replace(/=+$/, "");
}
