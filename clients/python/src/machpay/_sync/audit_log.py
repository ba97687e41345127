"""`client.audit_log`: who changed what in the account.

Generated from `_async` by generate.py: edit it there.
"""

from typing import Unpack

from machpay._audit import AuditEntry, audit_entry_from
from machpay._call import Call, CallOptions, query_of
from machpay._sync.page import Page, fetch_page
from machpay._sync.transport import Transport


class AuditLog:
    """List changes. Needs a live credential with the scope for it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self, *, limit: int | None = None, after: str | None = None, **options: Unpack[CallOptions]
    ) -> Page[AuditEntry]:
        """List the changes in the account, newest first."""
        call = Call("GET", "/v1/audit-log", query_of(limit=limit, after=after)).using(options)
        return fetch_page(self._transport, call, audit_entry_from)
