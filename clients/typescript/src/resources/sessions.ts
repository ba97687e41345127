/** `client.sessions`: short-lived tokens. */

import { sessionFrom, type Session } from "../results/session.js";
import { checkNames, jsonOf, stringsOf } from "../wire/call.js";
import { readObject } from "../wire/reading.js";
import type { Transport } from "../wire/transport.js";
import type { Repeatable } from "./keys.js";

/** The session to create. */
export interface SessionCreation extends Repeatable {
  /** Some of the key's scopes; all of them unless told. */
  readonly scopes?: Iterable<string> | undefined;
  /** 900 at most, and unless told. */
  readonly ttlSeconds?: number | undefined;
}

/** Create sessions: what a page or a device gets in place of an API key. */
export class Sessions {
  readonly #transport: Transport;

  /** @internal */
  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Create a session, with an API key. Its `.token` is told this once. */
  async create(params: SessionCreation = {}): Promise<Session> {
    checkNames("sessions.create", params, ["scopes", "ttlSeconds", "idempotencyKey"]);
    const body = jsonOf({ scopes: stringsOf("scopes", params.scopes), ttl_seconds: params.ttlSeconds });
    const { idempotencyKey } = params;
    const call = { method: "POST", path: "/v1/sessions", body, idempotencyKey } as const;
    return readObject(await this.#transport.send(call), sessionFrom);
  }
}
