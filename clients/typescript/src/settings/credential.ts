/** Credentials: how one is sent, and that nobody sees it anywhere else. */

import { ConfigurationError } from "../errors.js";
import { INSPECT } from "../wire/shown.js";
import { isBrowser } from "./environment.js";

const PREFIX = /^sk_(?:live|test)_/;
const SENDABLE = /^[\x21-\x7e]+$/;
const SHOWN = 4; // as many characters as tell two keys apart in a list
const ENOUGH_TO_SHOW_SOME = 16;
const SHORTEST_SECRET = 6; // to hide anything shorter would only garble what is said

/** Return what may be shown of *secret*: `sk_live_…a1b2`. */
export function masked(secret: string): string {
  const prefix = PREFIX.exec(secret)?.[0] ?? "";
  const isLong = secret.length - prefix.length >= ENOUGH_TO_SHOW_SOME;
  return isLong ? `${prefix}…${secret.slice(-SHOWN)}` : `${prefix}…`;
}

/** Return *text* without *secrets*: servers and proxies have been seen to echo what they refuse. */
export function without(text: string, secrets: readonly string[]): string {
  return secrets
    .filter((secret) => secret.length >= SHORTEST_SECRET)
    .reduce((hidden, secret) => hidden.replaceAll(secret, masked(secret)), text);
}

/** An API key or an access token. Both are sent alike. */
export class Credential {
  readonly #value: string;

  constructor(value: string) {
    this.#value = value;
  }

  get value(): string {
    return this.#value;
  }

  /** The value of the Authorization header. */
  get authorization(): string {
    return `Bearer ${this.#value}`;
  }

  toString(): string {
    return masked(this.#value);
  }

  toJSON(): string {
    return masked(this.#value);
  }

  [INSPECT](): string {
    return `Credential(${masked(this.#value)})`;
  }
}

/** Return *value* as a credential. What cannot be a header's value is refused here, where nothing prints it. */
export function credentialFrom(name: string, value: unknown): Credential {
  if (typeof value !== "string") {
    throw new ConfigurationError(`${name} is ${kindOf(value)}, and has to be a string.`);
  }
  if (value === "") throw new ConfigurationError(`${name} is empty.`);
  if (!SENDABLE.test(value)) {
    throw new ConfigurationError(`${name} contains white space, a line break or a character that is not ASCII.`);
  }
  if (PREFIX.test(value)) refuseInBrowser(`${name} is an API key, which`);
  return new Credential(value);
}

/** Refuse a secret where it would be published. *what* opens the sentence. */
export function refuseInBrowser(what: string): void {
  if (!isBrowser()) return;
  throw new ConfigurationError(
    `${what} everybody who opens this page could read and use. Keep it on a server, and give the page ` +
      "an access token (accessToken): from OAuth with PKCE, or a session that the server creates with " +
      "client.sessions.create().",
  );
}

/** Return what *value* is, and nothing of what it holds. */
export function kindOf(value: unknown): string {
  if (value === undefined || value === null) return String(value);
  return Array.isArray(value) ? "an array" : `of type ${typeof value}`;
}
