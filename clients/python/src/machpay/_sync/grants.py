"""`client.grants`: what users allow OAuth clients to do.

Generated from `_async` by generate.py: edit it there.
"""

from typing import Unpack

from machpay._call import Call, CallOptions, ChangeOptions, path_of, query_of
from machpay._grant import Grant, grant_from
from machpay._parsing import parse_object
from machpay._sync.page import Page, fetch_page
from machpay._sync.transport import Transport


class Grants:
    """List and revoke grants. Needs a credential with the scope for it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        *,
        client_id: str | None = None,
        limit: int | None = None,
        after: str | None = None,
        **options: Unpack[CallOptions],
    ) -> Page[Grant]:
        """List grants, newest first, if given those of one OAuth client."""
        query = query_of(limit=limit, after=after, client_id=client_id)
        return fetch_page(self._transport, Call("GET", "/v1/oauth/grants", query).using(options), grant_from)

    def revoke(self, grant_id: str, **options: Unpack[ChangeOptions]) -> Grant:
        """Revoke the grant: the OAuth client is refused from its next request on, and must ask the user again."""
        call = Call("POST", path_of("/v1/oauth/grants/{grant_id}/revoke", grant_id=grant_id)).using(options)
        return parse_object(self._transport.send(call), grant_from)
