/** An access token that is replaced in time, by one request however many calls want it. */

import { OAuthError } from "../errors.js";
import type { Tokens } from "../results/tokens.js";
import { Credential, credentialFrom } from "../settings/credential.js";
import type { Credentials } from "../wire/transport.js";

const EARLY = 30_000; // milliseconds: a token must not end on its way

/** What is called with new tokens, and awaited before they are used. It must not call the same client. */
export type OnTokens = (tokens: Tokens) => void | Promise<void>;

export interface RenewalParams {
  readonly credential: Credential | null;
  readonly refreshToken: string;
  readonly refresh: (refreshToken: string) => Promise<Tokens>;
  readonly onTokens: OnTokens | undefined;
  readonly now: () => number;
}

/** The credential of a client that refreshes by itself. All clients made from it share this one. */
export class Renewal implements Credentials {
  readonly #refresh: (refreshToken: string) => Promise<Tokens>;
  readonly #onTokens: OnTokens | undefined;
  readonly #now: () => number;
  #credential: Credential | null;
  #refreshToken: string;
  #renewAt: number; // milliseconds since the epoch
  #unsaved: Tokens | null = null;
  #running: Promise<void> | null = null;
  #ended: OAuthError | null = null;

  constructor({ credential, refreshToken, refresh, onTokens, now }: RenewalParams) {
    this.#refresh = refresh;
    this.#onTokens = onTokens;
    this.#now = now;
    this.#credential = credential;
    this.#refreshToken = refreshToken;
    this.#renewAt = credential === null ? -Infinity : (expiryIn(credential.value) ?? Infinity) - EARLY;
  }

  get shown(): string | null {
    return this.#credential?.toString() ?? null;
  }

  async current(): Promise<Credential> {
    if (this.#isPending || this.#now() >= this.#renewAt) await this.#renew();
    return this.#known();
  }

  async renewed(refused: Credential): Promise<Credential> {
    // Another call may have been refused, too, and have renewed it meanwhile.
    if (this.#isPending || this.#known() === refused) await this.#renew();
    return this.#known();
  }

  /** Whether there are new tokens on their way, to here or to where they are stored. */
  get #isPending(): boolean {
    return this.#running !== null || this.#unsaved !== null;
  }

  #renew(): Promise<void> {
    this.#running ??= this.#run().finally(() => {
      this.#running = null;
    });
    return this.#running;
  }

  async #run(): Promise<void> {
    if (this.#ended !== null) throw this.#ended;
    // When saving them failed, these are still to be saved: the refresh token that they came for is used up.
    this.#unsaved ??= await this.#fetch();
    await this.#onTokens?.(this.#unsaved);
    this.#unsaved = null;
  }

  async #fetch(): Promise<Tokens> {
    try {
      const tokens = await this.#refresh(this.#refreshToken);
      this.#credential = credentialFrom("The new access token", tokens.accessToken);
      this.#refreshToken = tokens.refreshToken ?? this.#refreshToken;
      this.#renewAt = this.#renewalOf(tokens);
      return tokens;
    } catch (error) {
      // The login is over, and asking again would not bring it back.
      if (error instanceof OAuthError && error.error === "invalid_grant") this.#ended = error;
      throw error;
    }
  }

  /** Return when *tokens* are to be replaced: by how long they last, which no wrong clock changes. */
  #renewalOf(tokens: Tokens): number {
    const now = this.#now();
    const expiry = tokens.expiresAt?.getTime() ?? expiryIn(tokens.accessToken) ?? Infinity;
    // One that has ended as it comes was made by another clock: only the server can tell when it ends.
    if (expiry <= now) return Infinity;
    return expiry - Math.min(EARLY, (expiry - now) / 2); // for tokens that last less than a minute, too
  }

  #known(): Credential {
    if (this.#credential === null) throw new TypeError("there is a credential after each renewal");
    return this.#credential;
  }
}

/** Return when a JWT expires by its own account, in milliseconds since the epoch; `null` when it does not say. */
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
