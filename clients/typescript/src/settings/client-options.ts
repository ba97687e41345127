/** The options of `new MachPay({ … })`. */

import type { OnTokens } from "../oauth/token-refresher.js";
import type { Fetch } from "./options.js";

/**
 * The options of a client. They override the environment.
 *
 * A credential option must have a value: `undefined` is an error. Otherwise a user who is not logged in would act with
 * the key of the environment.
 */
export interface ClientOptions {
  /** An API key; by default MACHPAY_API_KEY, without `accessToken`. Not in browsers. */
  readonly apiKey?: string | undefined;
  /** A user's access token, or a session's token. */
  readonly accessToken?: string | undefined;
  /** With `clientId`, the client refreshes its access token automatically. */
  readonly refreshToken?: string | null | undefined;
  readonly clientId?: string | undefined;
  /** Not in browsers. */
  readonly clientSecret?: string | undefined;
  /** Called with each new pair of tokens, and awaited before they are used: store both. */
  readonly onTokens?: OnTokens | undefined;
  /** The address of the API; by default MACHPAY_BASE_URL. */
  readonly baseUrl?: string | undefined;
  /** The address of the authorization server; by default MACHPAY_AUTH_URL. */
  readonly authUrl?: string | undefined;
  /** Milliseconds for one attempt; by default 30,000. A call takes at most `maxRetries + 1` times as long. */
  readonly timeout?: number | undefined;
  /** By default 2. */
  readonly maxRetries?: number | undefined;
  /** Sends requests instead of the global `fetch`. */
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
