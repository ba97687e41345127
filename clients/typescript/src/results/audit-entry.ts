/** The audit log of the account, as returned by the API. */

import { moment, ObjectParser, record, text, whole, type Json } from "../wire/parsing.js";
import type { Response } from "../wire/response.js";
import { Result } from "./result.js";

/** Who made a change and, if known, from where. */
export interface AuditActor {
  /** As in `api_key` and `user`. */
  readonly kind: string | null;
  /** The id of the key or the user. */
  readonly id: string | null;
  /** The address of the request. */
  readonly address: string | null;
  /** The id of the request. */
  readonly requestId: string | null;
}

/** A change of an object in the account. */
export class AuditEntry extends Result {
  /** Its id. */
  readonly id: string;
  /** Its place in the log. */
  readonly number: number | null;
  /** When it was made. */
  readonly at: Date | null;
  /** Who made it. */
  readonly actor: AuditActor;
  /** As in `key.revoke`. */
  readonly action: string | null;
  /** The id of the account. */
  readonly accountId: string | null;
  /** The id of the object. */
  readonly objectId: string | null;
  /** The changed values before it. */
  readonly before: Readonly<Record<string, unknown>>;
  /** The changed values after it. */
  readonly after: Readonly<Record<string, unknown>>;

  /** @internal */
  constructor(parser: ObjectParser, response: Response) {
    super(parser, response);
    parser.optional("object", text, null);
    this.id = parser.required("id", text);
    this.number = parser.optional("number", whole, null);
    this.at = parser.optional("at", moment, null);
    this.actor = parser.optional("actor", actorFrom, actorFrom({}));
    this.action = parser.optional("action", text, null);
    this.accountId = parser.optional("account_id", text, null);
    this.objectId = parser.optional("object_id", text, null);
    this.before = parser.optional("before", record, {});
    this.after = parser.optional("after", record, {});
  }
}

/** Return one of the entries in *response*. */
export function auditEntryFrom(members: Json, response: Response): AuditEntry {
  return new AuditEntry(new ObjectParser(members), response);
}

function actorFrom(value: unknown): AuditActor {
  const parser = new ObjectParser(record(value));
  return {
    kind: parser.optional("kind", text, null),
    id: parser.optional("id", text, null),
    address: parser.optional("address", text, null),
    requestId: parser.optional("request_id", text, null),
  };
}
