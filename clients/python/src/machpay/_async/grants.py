"""`client.grants`: what users allow OAuth clients to do."""

from typing import Unpack

from machpay._async.listing import listing  # async only
from machpay._async.page import AsyncPage, fetch_page
from machpay._async.transport import AsyncTransport
from machpay._call import Call, CallOptions, ChangeOptions, path_of, query_of
from machpay._grant import Grant, grant_from
from machpay._parsing import parse_object


class AsyncGrants:
    """List and revoke grants. Needs a credential with the scope for it."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    @listing  # async only
    async def list(
        self,
        *,
        client_id: str | None = None,
        limit: int | None = None,
        after: str | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncPage[Grant]:
        """List grants, newest first, if given those of one OAuth client."""
        query = query_of(limit=limit, after=after, client_id=client_id)
        return await fetch_page(self._transport, Call("GET", "/v1/oauth/grants", query).using(options), grant_from)

    async def revoke(self, grant_id: str, **options: Unpack[ChangeOptions]) -> Grant:
        """Revoke the grant: the OAuth client is refused from its next request on, and must ask the user again."""
        call = Call("POST", path_of("/v1/oauth/grants/{grant_id}/revoke", grant_id=grant_id)).using(options)
        return parse_object(await self._transport.send(call), grant_from)
