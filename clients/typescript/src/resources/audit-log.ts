/** `client.auditLog`: who changed what in the account. */

import { auditEntryFrom, type AuditEntry } from "../results/audit-entry.js";
import { fetchPage, Listing } from "../results/page.js";
import { readingOptions, type RequestOptions } from "../settings/request-options.js";
import type { Transport } from "../wire/transport.js";

/** The pagination of the audit log. */
export interface AuditLogFilter extends RequestOptions {
  /** The maximum size of a page. */
  readonly limit?: number | undefined;
  /** Start after the entry with this id. */
  readonly after?: string | undefined;
}

/** List changes. Needs a live credential with the scope for it. */
export class AuditLog {
  readonly #transport: Transport;

  /** @internal */
  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** List changes, newest first: `await` returns the first page, `for await` yields all of them. */
  list(params: AuditLogFilter = {}, options?: RequestOptions): Listing<AuditEntry> {
    return new Listing(async () => {
      const given = readingOptions("auditLog.list", ["limit", "after"], params, options);
      const query = { limit: params.limit, after: params.after };
      const call = { method: "GET", path: "/v1/audit-log", query, options: given };
      return fetchPage(this.#transport, call, auditEntryFrom);
    });
  }
}
