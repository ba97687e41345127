"""The operations on grants: what users allow apps to do."""

from dataclasses import replace

from starlette.responses import Response

from machpay_gateway.admin.documents import document_response, page_response
from machpay_gateway.admin.request import AdminRequest
from machpay_gateway.admin.requests import GrantListQuery, NoFields
from machpay_gateway.core.oauth.documents import grant_document


async def list_(call: AdminRequest) -> Response:
    """List the grants of the account's users, and of its apps for themselves, newest first."""
    revocation, query, caller = call.revocation, call.query(GrantListQuery), call.caller
    await call.check_cursor(query.after, revocation.get, "grant")
    grants = await revocation.list(
        caller.account_id,
        client_id=query.client_id,
        environment=caller.environment,
        after=query.after,
        limit=query.limit + 1,
    )
    return page_response([grant_document(grant) for grant in grants], query.limit)


async def revoke(call: AdminRequest) -> Response:
    """Revoke the grant. Its tokens are refused from the next request on, and the app must ask the user again."""
    revocation, _ = call.revocation, call.body(NoFields)
    grant = call.require_record(await revocation.get(call.caller.account_id, call.id), "grant")
    await revocation.revoke_grant(call.caller.account_id, grant, actor=call.caller.actor)
    return document_response(grant_document(replace(grant, is_alive=False)))
