/** What comes back to the redirect URI, which anybody can make a browser open: nothing in it is true before a check. */

import { OAuthError } from "../errors.js";
import { checkNames, textOf } from "../wire/call.js";

/** A callback as frameworks give it: its URL or path, its query, or the query's members. */
export type Callback = string | URL | URLSearchParams | Readonly<Record<string, unknown>>;

/** What a callback is checked against. */
export interface CallbackExpectations {
  /** What `authorizationUrl` returned, out of this user's session. */
  readonly state: string;
  /** Who the server is. If given, a callback has to name it (RFC 9207): for those who work with several servers. */
  readonly issuer?: string | undefined;
}

/** Return the code in *callback*, if it is the answer to this user's own request. */
export function codeFrom(callback: Callback, expectations: CallbackExpectations): string {
  checkNames("oauth.checkCallback", expectations, ["state", "issuer"]);
  const parameters = parametersOf(callback);
  // RFC 6749 §10.12: without the state of this session the callback may be another user's, slipped into this browser.
  if (parameters.get("state") !== textOf("state", expectations.state)) {
    throw new OAuthError("state_mismatch", "The callback does not belong to this session; begin again.");
  }
  const { issuer } = expectations;
  // RFC 9207 §2.4: a code from one server must not be taken to another, and neither must its refusal be believed.
  if (issuer !== undefined && parameters.get("iss") !== textOf("issuer", issuer)) {
    throw new OAuthError("issuer_mismatch", `The callback does not come from ${issuer}.`);
  }
  const error = parameters.get("error");
  if (error) throw new OAuthError(error, parameters.get("error_description") ?? null);
  const code = parameters.get("code");
  if (!code) throw new OAuthError("missing_code", "The callback has neither a code nor an error.");
  return code;
}

/** Return the parameters that are there once. RFC 6749 §3.1: none may be there twice, and which would be meant? */
function parametersOf(callback: Callback): ReadonlyMap<string, string> {
  const once = new Map<string, string>();
  const twice = new Set<string>();
  for (const [name, value] of pairsOf(callback)) {
    if (typeof value !== "string" || once.has(name)) twice.add(name);
    else once.set(name, value);
  }
  for (const name of twice) once.delete(name);
  return once;
}

function pairsOf(callback: Callback): Iterable<readonly [string, unknown]> {
  if (typeof callback === "string") {
    const query = callback.replace(/#.*$/s, "");
    return new URLSearchParams(query.slice(query.indexOf("?") + 1));
  }
  if (callback instanceof URL) return callback.searchParams;
  if (callback instanceof URLSearchParams) return callback;
  return Object.entries(callback);
}
