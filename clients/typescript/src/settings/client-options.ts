/** What `new MachPay({ … })` takes. */

import type { OnTokens } from "../oauth/renewal.js";
import type { Fetch } from "./options.js";

/**
 * What a client is told. Explicit beats the environment.
 *
 * A credential that is given has to be there: `undefined` is an error, lest somebody who is not logged in act with the
 * key of the environment.
 */
export interface ClientOptions {
  /** An API key; MACHPAY_API_KEY unless this or `accessToken` is given. Not in browsers. */
  readonly apiKey?: string | undefined;
  /** A user's access token, or a session's token. */
  readonly accessToken?: string | undefined;
  /** With `clientId`: the client refreshes its access token by itself. */
  readonly refreshToken?: string | null | undefined;
  readonly clientId?: string | undefined;
  /** Not in browsers. */
  readonly clientSecret?: string | undefined;
  /** Called with each new pair of tokens, and awaited before they are used: store both. */
  readonly onTokens?: OnTokens | undefined;
  /** Where the API is; MACHPAY_BASE_URL unless given. */
  readonly baseUrl?: string | undefined;
  /** Where tokens come from; MACHPAY_AUTH_URL unless given. */
  readonly authUrl?: string | undefined;
  /** Milliseconds for one attempt; 30,000 unless given. A call takes `maxRetries + 1` times that at most. */
  readonly timeout?: number | undefined;
  /** 2 unless given. */
  readonly maxRetries?: number | undefined;
  /** What sends requests, in place of the global `fetch`. */
  readonly fetch?: Fetch | undefined;
}

export const CLIENT_OPTION_NAMES: readonly (keyof ClientOptions)[] = [
  "apiKey",
  "accessToken",
  "refreshToken",
  "clientId",
  "clientSecret",
  "onTokens",
  "baseUrl",
  "authUrl",
  "timeout",
  "maxRetries",
  "fetch",
];
