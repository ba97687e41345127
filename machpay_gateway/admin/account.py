"""What a caller may know of itself, and of what was changed in its account."""

from starlette.responses import Response

from machpay_gateway.admin.documents import document_response, page_response
from machpay_gateway.admin.request import AdminRequest
from machpay_gateway.admin.requests import EntrySelection
from machpay_gateway.core.decision.problem import whole_seconds
from machpay_gateway.core.keys.document import audit_document
from machpay_gateway.core.text import format_moment_or_none


async def whoami(call: AdminRequest) -> Response:
    """Tell the caller who it is, what it may do and how much of that is left."""
    principal, grant = call.caller.principal, call.caller.grant
    limits = principal.limits
    return document_response(
        {
            "object": "principal",
            "kind": principal.kind,
            "id": principal.id,
            "name": principal.name,
            "account_id": principal.account_id,
            "environment": principal.environment,
            "tier": principal.tier,
            "scopes": list(principal.scopes),
            "expires_at": format_moment_or_none(principal.expires_at),
            "limits": {
                "rate": limits.rate,
                "requests": limits.limit,
                "window_seconds": limits.window_seconds,
                "concurrency": limits.concurrency,
            },
            "remaining": {
                "requests": grant.left,
                "reset_seconds": whole_seconds(grant.resets_in),
                "concurrency": grant.slots_left,
            },
        }
    )


async def audit_log(call: AdminRequest) -> Response:
    """List the changes in the caller's account, newest first."""
    chosen = call.query(EntrySelection)
    before = None if chosen.after is None else int(chosen.after.removeprefix("audit_"))
    rows = await call.gateway.store.audit_page(call.caller.account_id, before=before, limit=chosen.limit + 1)
    return page_response([audit_document(row) for row in rows], chosen.limit)
