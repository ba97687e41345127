/** `client.grants`: what users allow OAuth clients to do. */

import { grantFrom, type Grant } from "../results/grant.js";
import { fetchPage, Listing } from "../results/page.js";
import {
  changingOptions,
  readingOptions,
  type IdempotencyOptions,
  type RequestOptions,
} from "../settings/request-options.js";
import { segment } from "../wire/call.js";
import { parseObject } from "../wire/parsing.js";
import type { Transport } from "../wire/transport.js";

/** Filters for a list of grants, and its pagination. */
export interface GrantFilter extends RequestOptions {
  /** Only grants of this OAuth client. */
  readonly clientId?: string | undefined;
  /** The maximum size of a page. */
  readonly limit?: number | undefined;
  /** Start after the grant with this id. */
  readonly after?: string | undefined;
}

/** List and revoke grants. Needs a credential with the scope for it. */
export class Grants {
  readonly #transport: Transport;

  /** @internal */
  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** List grants, newest first: `await` returns the first page, `for await` yields all of them. */
  list(params: GrantFilter = {}, options?: RequestOptions): Listing<Grant> {
    return new Listing(async () => {
      const given = readingOptions("grants.list", ["clientId", "limit", "after"], params, options);
      const query = { limit: params.limit, after: params.after, client_id: params.clientId };
      const call = { method: "GET", path: "/v1/oauth/grants", query, options: given };
      return fetchPage(this.#transport, call, grantFrom);
    });
  }

  /** Revoke the grant: the OAuth client is refused from its next request on, and must ask the user again. */
  async revoke(grantId: string, options: IdempotencyOptions = {}): Promise<Grant> {
    const given = changingOptions("grants.revoke", [], options);
    const path = `/v1/oauth/grants/${segment("grantId", grantId)}/revoke`;
    return parseObject(await this.#transport.send({ method: "POST", path, options: given }), grantFrom);
  }
}
