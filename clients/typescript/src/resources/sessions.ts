/** `client.sessions`: short-lived tokens. */

import { sessionFrom, type Session } from "../results/session.js";
import { checkNames, jsonOf, stringsOf } from "../wire/call.js";
import { parseObject } from "../wire/parsing.js";
import type { Transport } from "../wire/transport.js";
import type { IdempotencyOptions } from "./keys.js";

/** The session to create. */
export interface SessionCreation extends IdempotencyOptions {
  /** Some of the key's scopes; by default all of them. */
  readonly scopes?: Iterable<string> | undefined;
  /** At most 900, which is the default. */
  readonly ttlSeconds?: number | undefined;
}

/** Create sessions, which a page or a device uses instead of an API key. */
export class Sessions {
  readonly #transport: Transport;

  /** @internal */
  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Create a session, with an API key. Its `.token` is shown only once. */
  async create(params: SessionCreation = {}): Promise<Session> {
    checkNames("sessions.create", params, ["scopes", "ttlSeconds", "idempotencyKey"]);
    const body = jsonOf({ scopes: stringsOf("scopes", params.scopes), ttl_seconds: params.ttlSeconds });
    const { idempotencyKey } = params;
    const call = { method: "POST", path: "/v1/sessions", body, idempotencyKey } as const;
    return parseObject(await this.#transport.send(call), sessionFrom);
  }
}
