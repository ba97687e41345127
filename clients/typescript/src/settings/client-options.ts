/** The options of `new MachPay({ … })`. */

import type { DPoPKey } from "../oauth/dpop.js";
import type { LoadTokens, OnTokens } from "../oauth/token-store.js";
import type { Logger, RequestEvent, ResponseEvent } from "../wire/hooks.js";
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
  /** The id of the OAuth client that the tokens were issued to. */
  readonly clientId?: string | undefined;
  /** Its secret, if it has one. Not in browsers. */
  readonly clientSecret?: string | undefined;
  /** Called with each new pair of tokens, and awaited before they are used: store both. */
  readonly onTokens?: OnTokens | undefined;
  /** Called before each refresh. Returns what `onTokens` stored last, in this process or another one. */
  readonly loadTokens?: LoadTokens | undefined;
  /** The key that the tokens are bound to (RFC 9449). */
  readonly dpopKey?: DPoPKey | undefined;
  /** The address of the API; by default MACHPAY_BASE_URL. */
  readonly baseUrl?: string | undefined;
  /** The address of the authorization server; by default MACHPAY_AUTH_URL. */
  readonly authUrl?: string | undefined;
  /** Milliseconds for one attempt; by default 30,000. A call takes at most `maxRetries + 1` times as long. */
  readonly timeout?: number | undefined;
  /** How often a call is retried; by default twice. */
  readonly maxRetries?: number | undefined;
  /** Sends requests instead of the global `fetch`. */
  readonly fetch?: Fetch | undefined;
  /** Headers that are sent with each request to the API. They may not replace the credential. */
  readonly defaultHeaders?: Readonly<Record<string, string>> | undefined;
  /** Called before each attempt. */
  readonly onRequest?: ((event: RequestEvent) => void) | undefined;
  /** Called after each attempt. */
  readonly onResponse?: ((event: ResponseEvent) => void) | undefined;
  /** Gets a line for each attempt and each retry, without secrets; `console` is one. */
  readonly logger?: Logger | undefined;
  /** Accepts secrets in a browser: for tests in jsdom, and for pages that nobody else can open. */
  readonly dangerouslyAllowBrowser?: boolean | undefined;
}

export const CLIENT_OPTION_NAMES: readonly (keyof ClientOptions)[] = [
  "apiKey",
  "accessToken",
  "refreshToken",
  "clientId",
  "clientSecret",
  "onTokens",
  "loadTokens",
  "dpopKey",
  "baseUrl",
  "authUrl",
  "timeout",
  "maxRetries",
  "fetch",
  "defaultHeaders",
  "onRequest",
  "onResponse",
  "logger",
  "dangerouslyAllowBrowser",
];
