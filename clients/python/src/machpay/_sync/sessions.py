"""`client.sessions`: short-lived tokens, for less trusted code that should not hold the credential itself.

Generated from `_async` by generate.py: edit it there.
"""

from collections.abc import Sequence

from machpay._call import Call, json_of, strings_of
from machpay._parsing import parse_object
from machpay._session import Session, session_from
from machpay._sync.transport import Transport


class Sessions:
    """Create sessions of the credential."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        *,
        scopes: Sequence[str] | None = None,
        ttl_seconds: int | None = None,
        idempotency_key: str | None = None,
    ) -> Session:
        """Create a session. Its `.token` is shown only once. Use it as an access token."""
        optional = {"scopes": strings_of("scopes", scopes), "ttl_seconds": ttl_seconds}
        body = json_of({member: value for member, value in optional.items() if value is not None})
        call = Call("POST", "/v1/sessions", body=body, idempotency_key=idempotency_key)
        return parse_object(self._transport.send(call), session_from)
