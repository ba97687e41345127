/** Credentials: how they are sent, and how they are kept out of logs and errors. */

import { ConfigurationError } from "../errors.js";
import { INSPECT } from "../wire/safe-output.js";
import { isBrowser } from "./environment.js";

const PREFIX = /^[a-z][a-z0-9]{0,15}_(?:live|test)_/; // a gateway may have a brand of its own
const SENDABLE = /^[\x21-\x7e]+$/;
const VISIBLE = 4; // characters, enough to tell two keys apart in a list
const MIN_PARTLY_VISIBLE = 16;
const MIN_REDACTED = 6; // redacting anything shorter would only garble messages

/** Return *secret* as displayed: `sk_live_…a1b2`. */
export function masked(secret: string): string {
  const prefix = PREFIX.exec(secret)?.[0] ?? "";
  const isLong = secret.length - prefix.length >= MIN_PARTLY_VISIBLE;
  return isLong ? `${prefix}…${secret.slice(-VISIBLE)}` : `${prefix}…`;
}

/** Return *text* without *secrets*: some servers and proxies echo the requests that they refuse. */
export function redact(text: string, secrets: readonly string[]): string {
  return secrets
    .filter((secret) => secret.length >= MIN_REDACTED)
    .reduce((redacted, secret) => redacted.replaceAll(secret, masked(secret)), text);
}

/** An API key or an access token. Both are sent in the same way. */
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

/** Return *value* as a credential. Invalid ones are refused here, because an HTTP library might print them. */
export function credentialFrom(name: string, value: unknown, isTrusted = false): Credential {
  if (typeof value !== "string") {
    throw new ConfigurationError(`${name} is ${kindOf(value)}, and has to be a string.`);
  }
  if (value === "") throw new ConfigurationError(`${name} is empty.`);
  if (!SENDABLE.test(value)) {
    throw new ConfigurationError(`${name} contains white space, a line break or a character that is not ASCII.`);
  }
  if (PREFIX.test(value) && !isTrusted) refuseInBrowser(`${name} is an API key, which`);
  return new Credential(value);
}

/** Throw in a browser, where a secret would be public. *what* is the start of the message. */
export function refuseInBrowser(what: string): void {
  if (!isBrowser()) return;
  throw new ConfigurationError(
    `${what} everybody who opens this page could read and use. Keep it on a server, and give the page ` +
      "an access token (accessToken): from OAuth with PKCE, or a session that the server creates with " +
      "client.sessions.create(). In tests, and where nobody else can read it, dangerouslyAllowBrowser: true allows it.",
  );
}

/** Return a description of the type of *value*, without the value. */
export function kindOf(value: unknown): string {
  if (value === undefined || value === null) return String(value);
  return Array.isArray(value) ? "an array" : `of type ${typeof value}`;
}
