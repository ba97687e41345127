/** `client.sessions`: short-lived tokens. */

import { sessionFrom, type Session } from "../results/session.js";
import { changingOptions, type IdempotencyOptions } from "../settings/request-options.js";
import { jsonOf, stringsOf } from "../wire/call.js";
import { parseObject } from "../wire/parsing.js";
import type { Transport } from "../wire/transport.js";

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
  async create(params: SessionCreation = {}, options?: IdempotencyOptions): Promise<Session> {
    const given = changingOptions("sessions.create", ["scopes", "ttlSeconds"], params, options);
    const body = jsonOf({ scopes: stringsOf("scopes", params.scopes), ttl_seconds: params.ttlSeconds });
    const call = { method: "POST", path: "/v1/sessions", body, options: given };
    return parseObject(await this.#transport.send(call), sessionFrom);
  }
}
