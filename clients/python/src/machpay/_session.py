"""Sessions: short-lived tokens that a credential makes out of itself."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from machpay._credential import shown
from machpay._reading import Members, moment, optional_text, optional_whole, text, texts
from machpay._received import Received
from machpay._response import Response


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Session(Received):
    """A session. Its *token* is what `MachPay(access_token=…)` takes, and is told this once."""

    token: str
    id: str | None = None
    token_type: str | None = None
    expires_in: int | None = None
    expires_at: dt.datetime | None = None
    scopes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return shown(self, "token")


def session_from(members: Mapping[str, object], response: Response) -> Session:
    """Return the session that *response* tells of."""
    of = Members(members)
    of.optional("object", text, "session")
    return Session(
        token=of.required("token", text),
        id=of.optional("id", optional_text, None),
        token_type=of.optional("token_type", optional_text, None),
        expires_in=of.optional("expires_in", optional_whole, None),
        expires_at=of.optional("expires_at", moment, None),
        scopes=of.optional("scopes", texts, ()),
        extra=of.rest(),
        response=response,
    )
