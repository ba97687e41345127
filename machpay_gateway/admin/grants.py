"""The operations on what users let apps do: seeing it, and ending it."""

from dataclasses import replace

from starlette.responses import Response

from machpay_gateway.admin.documents import document_response, page_response
from machpay_gateway.admin.request import AdminRequest
from machpay_gateway.admin.requests import GrantSelection, NoFields
from machpay_gateway.core.oauth.documents import grant_document


async def list_(call: AdminRequest) -> Response:
    """List grants of the account's users, and of its apps for themselves, newest first."""
    endings, chosen, caller = call.revocation, call.query(GrantSelection), call.caller
    await call.check_after(chosen.after, endings.get, "grant")
    found = await endings.list(
        caller.account_id,
        client_id=chosen.client_id,
        environment=caller.environment,
        after=chosen.after,
        limit=chosen.limit + 1,
    )
    return page_response([grant_document(grant) for grant in found], chosen.limit)


async def revoke(call: AdminRequest) -> Response:
    """End the grant: its tokens are refused from their next request, and the app has to ask the user again."""
    endings, _ = call.revocation, call.sent(NoFields)
    grant = call.seen(await endings.get(call.caller.account_id, call.id), "grant")
    await endings.end(call.caller.account_id, grant, actor=call.caller.actor)
    return document_response(grant_document(replace(grant, is_alive=False)))
