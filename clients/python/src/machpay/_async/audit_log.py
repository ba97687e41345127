"""`client.audit_log`: who changed what in the account."""

from typing import Unpack

from machpay._async.listing import listing  # async only
from machpay._async.page import AsyncPage, fetch_page
from machpay._async.transport import AsyncTransport
from machpay._audit import AuditEntry, audit_entry_from
from machpay._call import Call, CallOptions, query_of


class AsyncAuditLog:
    """List changes. Needs a live credential with the scope for it."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    @listing  # async only
    async def list(
        self, *, limit: int | None = None, after: str | None = None, **options: Unpack[CallOptions]
    ) -> AsyncPage[AuditEntry]:
        """List the changes in the account, newest first."""
        call = Call("GET", "/v1/audit-log", query_of(limit=limit, after=after)).using(options)
        return await fetch_page(self._transport, call, audit_entry_from)
