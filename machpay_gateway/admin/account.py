"""The caller itself, and the audit log of its account."""

from starlette.responses import Response

from machpay_gateway.admin.documents import document_response, page_response
from machpay_gateway.admin.request import AdminRequest
from machpay_gateway.admin.requests import AuditLogQuery
from machpay_gateway.admin.responses import whoami_document
from machpay_gateway.core.keys.document import audit_document


async def whoami(call: AdminRequest) -> Response:
    """Return the caller: its scopes, its limits and what is left of them."""
    return document_response(whoami_document(call.caller.principal, call.caller.admission))


async def audit_log(call: AdminRequest) -> Response:
    """List the changes in the caller's account, newest first."""
    query = call.query(AuditLogQuery)
    before = None if query.after is None else int(query.after.removeprefix("audit_"))
    rows = await call.gateway.store.audit_page(call.caller.account_id, before=before, limit=query.limit + 1)
    return page_response([audit_document(row) for row in rows], query.limit)
