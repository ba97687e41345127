/** DPoP: tokens that are bound to a key, and proofs of possession of it (RFC 9449). */

import { ConfigurationError } from "../errors.js";
import { kindOf } from "../settings/credential.js";
import { uuid } from "../wire/effects.js";
import { SafeOutput } from "../wire/safe-output.js";
import { base64url } from "./base64url.js";

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;

/** `CryptoKey`, by the declarations of browsers or of Node.js. */
export type WebCryptoKey = Awaited<ReturnType<typeof crypto.subtle.importKey>>;

/** A private key of P-256 as a JWK (RFC 7518 §6.2). `d` is the secret. */
export interface DPoPJwk {
  /** Always `EC`. */
  readonly kty?: string;
  /** Always `P-256`. */
  readonly crv?: string;
  /** The first coordinate of the public key. */
  readonly x?: string;
  /** Its second coordinate. */
  readonly y?: string;
  /** The private key. */
  readonly d?: string;
}

/** The two halves of a key, as WebCrypto has them. */
export interface DPoPKeyPair {
  /** What signs. */
  readonly privateKey: WebCryptoKey;
  /** What verifies. */
  readonly publicKey: WebCryptoKey;
}

/** A key pair (ES256). Keep it with the tokens that are bound to it. */
export class DPoPKey extends SafeOutput {
  /** The pair, which browsers can keep in IndexedDB even if it is not extractable. */
  readonly keyPair: DPoPKeyPair;
  /** The thumbprint of the public key (RFC 7638), which tokens have as `cnf.jkt`. */
  readonly thumbprint: string;
  readonly #jwk: object;

  private constructor(keyPair: DPoPKeyPair, jwk: object, thumbprint: string) {
    super();
    this.keyPair = keyPair;
    this.thumbprint = thumbprint;
    this.#jwk = jwk;
  }

  /** Return a new key. Scripts can read its private half only if it is *extractable*, by default false. */
  static async generate({ extractable = false }: { readonly extractable?: boolean } = {}): Promise<DPoPKey> {
    return DPoPKey.fromKeyPair(await subtle().generateKey(ALGORITHM, extractable, ["sign", "verify"]));
  }

  /** Return the key that was kept as `keyPair`. */
  static async fromKeyPair(keyPair: DPoPKeyPair): Promise<DPoPKey> {
    const { kty, crv, x, y } = await subtle().exportKey("jwk", keyPair.publicKey);
    if (kty !== "EC" || crv !== "P-256") throw new ConfigurationError("The DPoP key is not a key of P-256.");
    const jwk = { crv, kty, x, y }; // RFC 7638 §3.2: in this order
    return new DPoPKey(keyPair, jwk, await digest(JSON.stringify(jwk)));
  }

  /** Return the key that `toJwk` returned. */
  static async fromJwk(jwk: DPoPJwk): Promise<DPoPKey> {
    const { kty, crv, x, y, d } = jwk;
    if (kty !== "EC" || crv !== "P-256" || d === undefined) {
      throw new ConfigurationError("The DPoP key is not a private key of P-256.");
    }
    const publicJwk = { kty, crv, x, y } as JsonWebKey;
    return DPoPKey.fromKeyPair({
      privateKey: await subtle().importKey("jwk", { ...publicJwk, d }, ALGORITHM, true, ["sign"]),
      publicKey: await subtle().importKey("jwk", publicJwk, ALGORITHM, true, ["verify"]),
    });
  }

  /** Return the private key as a JWK, if it is extractable. It is a secret. */
  async toJwk(): Promise<DPoPJwk> {
    return (await subtle().exportKey("jwk", this.keyPair.privateKey)) as DPoPJwk;
  }

  /**
   * Return a proof for one request (§4.2). *url* is without query and fragment, *now* in milliseconds.
   * @internal
   */
  async proof(method: string, url: string, accessToken: string | null, now: number): Promise<string> {
    const ath = accessToken === null ? {} : { ath: await digest(accessToken) };
    const claims = { jti: uuid(), htm: method, htu: url, iat: Math.floor(now / 1000), ...ath };
    const signed = `${encoded({ typ: "dpop+jwt", alg: "ES256", jwk: this.#jwk })}.${encoded(claims)}`;
    const bytes = new TextEncoder().encode(signed);
    const signature = await subtle().sign(ALGORITHM, this.keyPair.privateKey, bytes);
    return `${signed}.${base64url(new Uint8Array(signature))}`;
  }

  override toJSON(): object {
    return { thumbprint: this.thumbprint };
  }
}

/** Return *value*, a DPoP key. */
export function dpopKeyFrom(value: unknown): DPoPKey | undefined {
  if (value === undefined || value instanceof DPoPKey) return value;
  throw new ConfigurationError(`dpopKey is ${kindOf(value)}, and has to be a DPoPKey.`);
}

function encoded(members: object): string {
  return base64url(new TextEncoder().encode(JSON.stringify(members)));
}

async function digest(text: string): Promise<string> {
  return base64url(new Uint8Array(await subtle().digest("SHA-256", new TextEncoder().encode(text))));
}

function subtle(): SubtleCrypto {
  if ((crypto.subtle as SubtleCrypto | undefined) !== undefined) return crypto.subtle;
  throw new ConfigurationError("DPoP needs WebCrypto, which browsers offer on https:// pages and on localhost only.");
}
