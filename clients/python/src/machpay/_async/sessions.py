"""`client.sessions`: tokens for a short time, for what should not hold the credential itself."""

from collections.abc import Sequence

from machpay._async.transport import AsyncTransport
from machpay._call import Call, json_of, strings_of
from machpay._reading import read_object
from machpay._session import Session, session_from


class AsyncSessions:
    """Make sessions out of the credential."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self,
        *,
        scopes: Sequence[str] | None = None,
        ttl_seconds: int | None = None,
        idempotency_key: str | None = None,
    ) -> Session:
        """Create a session. Its `.token` is told this once, and goes where an access token does."""
        optional = {"scopes": strings_of("scopes", scopes), "ttl_seconds": ttl_seconds}
        body = json_of({member: value for member, value in optional.items() if value is not None})
        call = Call("POST", "/v1/sessions", body=body, idempotency_key=idempotency_key)
        return read_object(await self._transport.send(call), session_from)
