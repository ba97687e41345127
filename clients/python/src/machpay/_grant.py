"""Grants: what users allow OAuth clients to do, as returned by the API."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from machpay._parsing import ObjectParser, moment, optional_text, text, texts
from machpay._response import Response
from machpay._result import Result
from machpay._types import Environment, GrantStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant(Result):
    """What a user allows an OAuth client to do. Without a *user_id*, the client acts for itself."""

    id: str
    account_id: str | None = None
    client_id: str | None = None
    user_id: str | None = None
    environment: Environment | None = None
    scopes: tuple[str, ...] = ()
    status: GrantStatus | None = None
    created_at: dt.datetime | None = None


def grant_from(members: Mapping[str, object], response: Response) -> Grant:
    """Return the grant in *response*."""
    parser = ObjectParser(members)
    parser.optional("object", text, "oauth_grant")
    return Grant(
        id=parser.required("id", text),
        account_id=parser.optional("account_id", optional_text, None),
        client_id=parser.optional("client_id", optional_text, None),
        user_id=parser.optional("user_id", optional_text, None),
        environment=cast("Environment | None", parser.optional("environment", optional_text, None)),
        scopes=parser.optional("scopes", texts, ()),
        status=cast("GrantStatus | None", parser.optional("status", optional_text, None)),
        created_at=parser.optional("created_at", moment, None),
        extra=parser.rest(),
        response=response,
    )
