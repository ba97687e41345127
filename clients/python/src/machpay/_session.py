"""Sessions: short-lived tokens that a credential is exchanged for."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from machpay._credential import masked_repr
from machpay._parsing import ObjectParser, moment, optional_text, optional_whole, text, texts
from machpay._response import Response
from machpay._result import Result


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Session(Result):
    """A session. Its *token* is for `MachPay(access_token=…)`, and shown only once."""

    token: str
    id: str | None = None
    token_type: str | None = None
    expires_in: int | None = None
    expires_at: dt.datetime | None = None
    scopes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return masked_repr(self, "token")


def session_from(members: Mapping[str, object], response: Response) -> Session:
    """Return the session in *response*."""
    parser = ObjectParser(members)
    parser.optional("object", text, "session")
    return Session(
        token=parser.required("token", text),
        id=parser.optional("id", optional_text, None),
        token_type=parser.optional("token_type", optional_text, None),
        expires_in=parser.optional("expires_in", optional_whole, None),
        expires_at=parser.optional("expires_at", moment, None),
        scopes=parser.optional("scopes", texts, ()),
        extra=parser.rest(),
        response=response,
    )
