/** Refreshes an access token before it expires, with one request for all waiting calls (singleflight). */

import { ConfigurationError, OAuthError } from "../errors.js";
import type { Tokens } from "../results/tokens.js";
import { Credential, credentialFrom } from "../settings/credential.js";
import type { Credentials } from "../wire/transport.js";
import type { TokenStore } from "./token-store.js";

const EARLY = 30_000; // milliseconds: a token that expires in transit would be refused

export interface TokenRefresherParams {
  readonly credential: Credential | null;
  /** `null`: the first one is loaded. */
  readonly refreshToken: string | null;
  readonly refresh: (refreshToken: string) => Promise<Tokens>;
  readonly store: TokenStore;
  readonly now: () => number;
}

/** The credentials of a client that refreshes its access token. Derived clients share them. */
export class TokenRefresher implements Credentials {
  readonly #refresh: (refreshToken: string) => Promise<Tokens>;
  readonly #store: TokenStore;
  readonly #now: () => number;
  #credential: Credential | null;
  #refreshToken: string | null;
  #refreshAt: number; // milliseconds since the epoch
  #undelivered: Tokens | null = null;
  #running: Promise<void> | null = null;
  #finalError: OAuthError | null = null;

  constructor({ credential, refreshToken, refresh, store, now }: TokenRefresherParams) {
    this.#refresh = refresh;
    this.#store = store;
    this.#now = now;
    this.#credential = credential;
    this.#refreshToken = refreshToken;
    this.#refreshAt = credential === null ? -Infinity : (expiryIn(credential.value) ?? Infinity) - EARLY;
  }

  get masked(): string | null {
    return this.#credential?.toString() ?? null;
  }

  async current(): Promise<Credential> {
    if (this.#store.isCaller) return this.#presentCredential();
    if (this.#isPending || this.#isDue) await this.#refreshOnce(null);
    return this.#presentCredential();
  }

  async replacement(refused: Credential): Promise<Credential | null> {
    if (this.#store.isCaller) return null;
    // Another call may have been refused as well, and have refreshed it meanwhile.
    if (this.#isPending || this.#presentCredential() === refused) await this.#refreshOnce(refused);
    return this.#presentCredential();
  }

  /** Whether a refresh is running, or tokens are not delivered to `onTokens` yet. */
  get #isPending(): boolean {
    return this.#running !== null || this.#undelivered !== null;
  }

  get #isDue(): boolean {
    return this.#now() >= this.#refreshAt;
  }

  #refreshOnce(refused: Credential | null): Promise<void> {
    this.#running ??= this.#run(refused).finally(() => {
      this.#running = null;
    });
    return this.#running;
  }

  async #run(refused: Credential | null): Promise<void> {
    // If `onTokens` failed before, its tokens are delivered again: their refresh token cannot be used twice.
    if (this.#undelivered === null) {
      await this.#load();
      if (this.#finalError !== null) throw this.#finalError;
      const isStale = this.#isDue || (refused !== null && this.#credential === refused);
      if (!isStale) return;
      await this.#fetch();
    }
    if (this.#undelivered !== null) await this.#store.save(this.#undelivered);
    this.#undelivered = null;
  }

  /** Take over tokens that another process has stored. Return whether there are any. */
  async #load(): Promise<boolean> {
    const stored = this.#store.canLoad ? await this.#store.load() : null;
    if (stored === null || stored.refreshToken === this.#refreshToken) return false;
    const { accessToken, refreshToken, expiresAt } = stored;
    this.#finalError = null;
    this.#refreshToken = refreshToken;
    this.#credential = accessToken === null ? null : credentialFrom("loadTokens: accessToken", accessToken);
    const expiry = expiresAt?.getTime() ?? (accessToken === null ? null : expiryIn(accessToken)) ?? Infinity;
    const early = Math.min(EARLY, Math.max(0, (expiry - this.#now()) / 2));
    this.#refreshAt = accessToken === null ? -Infinity : expiry - early;
    return true;
  }

  async #fetch(): Promise<void> {
    if (this.#refreshToken === null) {
      throw new ConfigurationError("loadTokens returned null, and there is no refreshToken: the user has to sign in.");
    }
    try {
      const tokens = await this.#refresh(this.#refreshToken);
      this.#credential = credentialFrom("The new access token", tokens.accessToken);
      this.#refreshToken = tokens.refreshToken ?? this.#refreshToken;
      this.#refreshAt = this.#refreshTimeOf(tokens);
      this.#undelivered = tokens;
    } catch (error) {
      if (!(error instanceof OAuthError) || error.error !== "invalid_grant") throw error;
      // Another process may have refreshed meanwhile.
      if (await this.#load()) {
        if (this.#isDue) await this.#fetch();
        return;
      }
      this.#finalError = error; // no later refresh can succeed
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
    if (this.#credential === null) throw new ConfigurationError("There is no access token yet: it is being loaded.");
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
