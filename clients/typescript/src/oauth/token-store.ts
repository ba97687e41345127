/** The user's `onTokens` and `loadTokens`, which store tokens and read them. */

import { ConfigurationError } from "../errors.js";
import type { Tokens } from "../results/tokens.js";
import { credentialFrom, kindOf } from "../settings/credential.js";
import { asyncContext } from "../settings/environment.js";

/** Called with new tokens, and awaited before they are used: store both. */
export type OnTokens = (tokens: Tokens) => unknown;

/** What `loadTokens` may return: the last tokens that `onTokens` was given, in this process or another one. */
export interface StoredTokens {
  /** The access token. */
  readonly accessToken?: string | null | undefined;
  /** The refresh token. */
  readonly refreshToken: string | null | undefined;
  /** When the access token expires, if that is known and the token does not say it itself; also as JSON has it. */
  readonly expiresAt?: Date | string | null | undefined;
}

/** Called before each refresh. Return what is stored, or `null` if nothing is. */
export type LoadTokens = () => StoredTokens | null | undefined | Promise<StoredTokens | null | undefined>;

/** Tokens from the store, validated. */
export interface LoadedTokens {
  readonly accessToken: string | null;
  readonly refreshToken: string;
  readonly expiresAt: Date | null;
}

const CONTEXT = asyncContext();

/** Calls the user's functions, and tells what they start from other calls: they must not wait for themselves. */
export class TokenStore {
  readonly #onTokens: OnTokens | undefined;
  readonly #loadTokens: LoadTokens | undefined;
  #running: object | null = null; // identifies the running call of a function
  #isSynchronous = false; // whether its synchronous part runs

  constructor(onTokens: OnTokens | undefined, loadTokens: LoadTokens | undefined) {
    for (const [name, value] of Object.entries({ onTokens, loadTokens })) {
      if (value === undefined || typeof value === "function") continue;
      throw new ConfigurationError(`${name} is ${kindOf(value)}, and has to be a function.`);
    }
    if (loadTokens !== undefined && onTokens === undefined) {
      // It would go back to the refresh token that the last refresh has used.
      throw new ConfigurationError("loadTokens is given without onTokens; pass both: new tokens have to be stored.");
    }
    this.#onTokens = onTokens;
    this.#loadTokens = loadTokens;
  }

  get canLoad(): boolean {
    return this.#loadTokens !== undefined;
  }

  /** Whether this code was started by one of the functions, which is still running. */
  get isCaller(): boolean {
    if (this.#running === null) return false;
    // Without a context, as in browsers, any call might come from the function. Waiting for it could be for ever.
    return this.#isSynchronous || CONTEXT === null || CONTEXT.getStore() === this.#running;
  }

  /** Pass *tokens* to `onTokens`, and wait for it. */
  async save(tokens: Tokens): Promise<void> {
    const onTokens = this.#onTokens;
    if (onTokens !== undefined) await this.#call(() => onTokens(tokens));
  }

  /** Return what `loadTokens` returns, or `null` if nothing is stored. */
  async load(): Promise<LoadedTokens | null> {
    const loadTokens = this.#loadTokens;
    const stored = loadTokens === undefined ? null : await this.#call(loadTokens);
    return stored === null || stored === undefined ? null : loadedFrom(stored);
  }

  async #call<T>(work: () => T): Promise<Awaited<T>> {
    const running = {};
    this.#running = running;
    try {
      return await (CONTEXT === null ? this.#start(work) : CONTEXT.run(running, () => this.#start(work)));
    } finally {
      this.#running = null;
    }
  }

  #start<T>(work: () => T): T {
    this.#isSynchronous = true;
    try {
      return work();
    } finally {
      this.#isSynchronous = false;
    }
  }
}

function loadedFrom(stored: unknown): LoadedTokens {
  if (typeof stored !== "object") {
    throw new ConfigurationError(`loadTokens returned a value ${kindOf(stored)}; return an object of tokens, or null.`);
  }
  const { accessToken, refreshToken, expiresAt } = stored as StoredTokens;
  if (refreshToken === null || refreshToken === undefined) {
    throw new ConfigurationError("loadTokens returned no refreshToken; return null if nothing is stored.");
  }
  credentialFrom("loadTokens: refreshToken", refreshToken);
  if (accessToken !== null && accessToken !== undefined) credentialFrom("loadTokens: accessToken", accessToken);
  const expiry = typeof expiresAt === "string" ? new Date(expiresAt) : (expiresAt ?? null);
  if (expiry !== null && (!(expiry instanceof Date) || Number.isNaN(expiry.getTime()))) {
    throw new ConfigurationError("loadTokens: expiresAt has to be a Date.");
  }
  return { accessToken: accessToken ?? null, refreshToken, expiresAt: expiry };
}
