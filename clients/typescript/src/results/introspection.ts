/** What the authorization server says of a token (RFC 7662 §2.2). */

import { flag, number, ObjectParser, text, texts, type Json } from "../wire/parsing.js";
import type { Response } from "../wire/response.js";
import { Result } from "./result.js";

/** A token. If it is not `active`, nothing else is known. */
export class Introspection extends Result {
  /** Whether it is valid now. */
  readonly active: boolean;
  /** Its scopes as sent by the server. */
  readonly scope: string | null;
  /** Its scopes. */
  readonly scopes: readonly string[];
  /** The OAuth client that it was issued to. */
  readonly clientId: string | null;
  /** A name of its user. */
  readonly username: string | null;
  /** As in `Bearer`. */
  readonly tokenType: string | null;
  /** Whom it is about (`sub`). */
  readonly subject: string | null;
  /** Who issued it (`iss`). */
  readonly issuer: string | null;
  /** Whom it is for (`aud`). */
  readonly audience: readonly string[];
  /** When it was issued (`iat`). */
  readonly issuedAt: Date | null;
  /** When it expires (`exp`). */
  readonly expiresAt: Date | null;

  /** @internal */
  constructor(parser: ObjectParser, response: Response) {
    super(parser, response);
    this.active = parser.required("active", flag);
    this.scope = parser.optional("scope", text, null);
    this.scopes = (this.scope ?? "").split(" ").filter(Boolean);
    this.clientId = parser.optional("client_id", text, null);
    this.username = parser.optional("username", text, null);
    this.tokenType = parser.optional("token_type", text, null);
    this.subject = parser.optional("sub", text, null);
    this.issuer = parser.optional("iss", text, null);
    this.audience = parser.optional("aud", (value) => (typeof value === "string" ? [value] : texts(value)), []);
    this.issuedAt = parser.optional("iat", momentFrom, null);
    this.expiresAt = parser.optional("exp", momentFrom, null);
  }
}

/** Return what *response* says of a token. */
export function introspectionFrom(members: Json, response: Response): Introspection {
  return new Introspection(new ObjectParser(members), response);
}

function momentFrom(value: unknown): Date {
  return new Date(number(value) * 1000);
}
