/** Callbacks to the redirect URI. Anybody can make a browser open it, so callbacks are authenticated first. */

import { InvalidArgumentError, OAuthError } from "../errors.js";
import { kindOf } from "../settings/credential.js";
import { checkNames } from "../settings/request-options.js";
import { textOf } from "../wire/call.js";

/** A callback in the forms of web frameworks: its URL or path, its query, or the parameters of the query. */
export type Callback = string | URL | URLSearchParams | Readonly<Record<string, unknown>>;

/** The expected values of a callback. */
export interface CallbackExpectations {
  /** The `state` from `authorizationUrl`, stored in the user's session. */
  readonly state: string;
  /** The expected authorization server, for applications that use several. The callback must name it (RFC 9207). */
  readonly issuer?: string | undefined;
}

/** Return the code in *callback*. Throw an OAuthError if it does not belong to this user's request. */
export function parseCallback(callback: Callback, expectations: CallbackExpectations): string {
  checkNames("oauth.checkCallback", expectations, ["state", "issuer"]);
  const parameters = parametersOf(callback);
  // RFC 6749 §10.12: a callback without the state of this session may be forged (CSRF).
  if (parameters.get("state") !== textOf("state", expectations.state)) {
    throw new OAuthError("state_mismatch", "The callback does not belong to this session; begin again.");
  }
  const { issuer } = expectations;
  // RFC 9207 §2.4: a code of one server must not be sent to another, and its errors must not be trusted either.
  if (issuer !== undefined && parameters.get("iss") !== textOf("issuer", issuer)) {
    throw new OAuthError("issuer_mismatch", `The callback does not come from ${issuer}.`);
  }
  const error = parameters.get("error");
  if (error) throw new OAuthError(error, parameters.get("error_description") ?? null);
  const code = parameters.get("code");
  if (!code) throw new OAuthError("missing_code", "The callback has neither a code nor an error.");
  return code;
}

/** Return the parameters without repeated ones. RFC 6749 §3.1: a parameter must not occur twice. */
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
  if (typeof callback !== "object" || (callback as unknown) === null) {
    throw new InvalidArgumentError(`The callback is ${kindOf(callback)}, and has to be its URL or its parameters.`);
  }
  if (callback instanceof URL) return callback.searchParams;
  if (callback instanceof URLSearchParams) return callback;
  return Object.entries(callback);
}
