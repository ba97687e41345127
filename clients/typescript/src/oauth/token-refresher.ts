/** Refreshes an access token before it expires, with one request for all waiting calls (singleflight). */

import { OAuthError } from "../errors.js";
import type { Tokens } from "../results/tokens.js";
import { Credential, credentialFrom } from "../settings/credential.js";
import type { Credentials } from "../wire/transport.js";

const EARLY = 30_000; // milliseconds: a token that expires in transit would be refused

/** Called with new tokens, and awaited before they are used. It must not use the same client. */
export type OnTokens = (tokens: Tokens) => void | Promise<void>;

export interface TokenRefresherParams {
  readonly credential: Credential | null;
  readonly refreshToken: string;
  readonly refresh: (refreshToken: string) => Promise<Tokens>;
  readonly onTokens: OnTokens | undefined;
  readonly now: () => number;
}

/** The credentials of a client that refreshes its access token. Derived clients share them. */
export class TokenRefresher implements Credentials {
  readonly #refresh: (refreshToken: string) => Promise<Tokens>;
  readonly #onTokens: OnTokens | undefined;
  readonly #now: () => number;
  #credential: Credential | null;
  #refreshToken: string;
  #refreshAt: number; // milliseconds since the epoch
  #undelivered: Tokens | null = null;
  #running: Promise<void> | null = null;
  #finalError: OAuthError | null = null;

  constructor({ credential, refreshToken, refresh, onTokens, now }: TokenRefresherParams) {
    this.#refresh = refresh;
    this.#onTokens = onTokens;
    this.#now = now;
    this.#credential = credential;
    this.#refreshToken = refreshToken;
    this.#refreshAt = credential === null ? -Infinity : (expiryIn(credential.value) ?? Infinity) - EARLY;
  }

  get masked(): string | null {
    return this.#credential?.toString() ?? null;
  }

  async current(): Promise<Credential> {
    if (this.#isPending || this.#now() >= this.#refreshAt) await this.#refreshOnce();
    return this.#presentCredential();
  }

  async replacement(refused: Credential): Promise<Credential> {
    // Another call may have been refused as well, and have refreshed it meanwhile.
    if (this.#isPending || this.#presentCredential() === refused) await this.#refreshOnce();
    return this.#presentCredential();
  }

  /** Whether a refresh is running, or tokens are not delivered to `onTokens` yet. */
  get #isPending(): boolean {
    return this.#running !== null || this.#undelivered !== null;
  }

  #refreshOnce(): Promise<void> {
    this.#running ??= this.#run().finally(() => {
      this.#running = null;
    });
    return this.#running;
  }

  async #run(): Promise<void> {
    if (this.#finalError !== null) throw this.#finalError;
    // If `onTokens` failed before, its tokens are delivered again: their refresh token cannot be used twice.
    this.#undelivered ??= await this.#fetch();
    await this.#onTokens?.(this.#undelivered);
    this.#undelivered = null;
  }

  async #fetch(): Promise<Tokens> {
    try {
      const tokens = await this.#refresh(this.#refreshToken);
      this.#credential = credentialFrom("The new access token", tokens.accessToken);
      this.#refreshToken = tokens.refreshToken ?? this.#refreshToken;
      this.#refreshAt = this.#refreshTimeOf(tokens);
      return tokens;
    } catch (error) {
      // Final: no later refresh can succeed.
      if (error instanceof OAuthError && error.error === "invalid_grant") this.#finalError = error;
      throw error;
    }
  }

  /** Return when to refresh *tokens*. It depends on their lifetime, which is right even if the clock is wrong. */
  #refreshTimeOf(tokens: Tokens): number {
    const now = this.#now();
    const expiry = tokens.expiresAt?.getTime() ?? expiryIn(tokens.accessToken) ?? Infinity;
    // An expiry in the past means that the clocks differ, so only the server knows when the token expires.
    if (expiry <= now) return Infinity;
    return expiry - Math.min(EARLY, (expiry - now) / 2); // also for lifetimes of less than a minute
  }

  #presentCredential(): Credential {
    if (this.#credential === null) throw new TypeError("there is a credential after each refresh");
    return this.#credential;
  }
}

/** Return the `exp` of a JWT in milliseconds since the epoch, or `null` without one. It is not verified. */
function expiryIn(token: string): number | null {
  const [, payload, signature] = token.split(".");
  if (payload === undefined || signature === undefined) return null;
  try {
    const claims: unknown = JSON.parse(atob(payload.replaceAll("-", "+").replaceAll("_", "/")));
    const exp = typeof claims === "object" && claims !== null && "exp" in claims ? claims.exp : null;
    return typeof exp === "number" ? exp * 1000 : null;
  } catch {
    return null;
  }
}
