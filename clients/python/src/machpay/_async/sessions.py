"""`client.sessions`: short-lived tokens, for less trusted code that should not hold the credential itself."""

from collections.abc import Sequence
from typing import Unpack

from machpay._async.transport import AsyncTransport
from machpay._call import Call, ChangeOptions, json_of, strings_of
from machpay._parsing import parse_object
from machpay._session import Session, session_from


class AsyncSessions:
    """Create sessions of the credential."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self,
        *,
        scopes: Sequence[str] | None = None,
        ttl_seconds: int | None = None,
        **options: Unpack[ChangeOptions],
    ) -> Session:
        """Create a session. Its `.token` is shown only once. Use it as an access token."""
        optional = {"scopes": strings_of("scopes", scopes), "ttl_seconds": ttl_seconds}
        body = json_of({member: value for member, value in optional.items() if value is not None})
        call = Call("POST", "/v1/sessions", body=body).using(options)
        return parse_object(await self._transport.send(call), session_from)
