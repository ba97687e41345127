"""The one table of the key API: what there is, who may, what is sent and what comes back.

Routing (`app`), the policy that guards it (`OWN_ROUTES`) and the OpenAPI document (`openapi`) are read off it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import BaseModel
from starlette.responses import Response

from machpay_gateway.admin import account, keys, sessions
from machpay_gateway.admin.answers import AuditList, IssuedKey, IssuedSession, Key, KeyList, Usage, Whoami
from machpay_gateway.admin.call import Call
from machpay_gateway.admin.caller import MANAGING
from machpay_gateway.admin.leaks import PATH as LEAKS_PATH
from machpay_gateway.admin.requests import (
    EntrySelection,
    KeyChange,
    KeySelection,
    NewKey,
    NewSession,
    NoFields,
    NoQuery,
    Period,
    Revocation,
    Rotation,
    Sent,
)
from machpay_gateway.core.route import Route

DESCRIPTION_PATH = "/v1/openapi.json"


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be asked. *problems* are its own codes, besides those that any request may meet."""

    method: str
    path: str
    name: str
    run: Callable[[Call], Awaitable[Response]]
    answer: type[BaseModel]
    scopes: str = MANAGING
    query: type[Sent] = NoQuery
    body: type[Sent] | None = None
    problems: tuple[str, ...] = ()
    status: int = 200
    has_etag: bool = False
    is_repeatable: bool = False  # by Idempotency-Key


_KEY, _CHANGE = "/v1/keys/{id}", ("not_found", "precondition_failed")

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "POST", "/v1/keys", "createKey", keys.create, IssuedKey,
        body=NewKey, problems=("conflict",), status=201, has_etag=True, is_repeatable=True,
    ),
    Operation("GET", "/v1/keys", "listKeys", keys.list_, KeyList, query=KeySelection),
    Operation("GET", _KEY, "retrieveKey", keys.retrieve, Key, problems=("not_found",), has_etag=True),
    Operation(
        "PATCH", _KEY, "updateKey", keys.update, Key,
        body=KeyChange, problems=("conflict", *_CHANGE), has_etag=True,
    ),
    Operation(
        "POST", f"{_KEY}/rotate", "rotateKey", keys.rotate, IssuedKey,
        body=Rotation, problems=("conflict", *_CHANGE), has_etag=True, is_repeatable=True,
    ),
    Operation(
        "POST", f"{_KEY}/end-grace", "endGrace", keys.end_grace, Key,
        body=NoFields, problems=_CHANGE, has_etag=True,
    ),
    Operation(
        "POST", f"{_KEY}/revoke", "revokeKey", keys.revoke, Key,
        query=Revocation, body=NoFields, problems=("conflict", *_CHANGE), has_etag=True,
    ),
    Operation(
        "GET", f"{_KEY}/usage", "retrieveUsage", keys.usage, Usage, query=Period, problems=("not_found",),
    ),
    Operation("GET", "/v1/audit-log", "listChanges", account.audit_log, AuditList, query=EntrySelection),
    Operation(
        "POST", "/v1/sessions", "createSession", sessions.create, IssuedSession,
        scopes="", body=NewSession, problems=("not_configured",), status=201,
    ),
    Operation("GET", "/v1/whoami", "whoami", account.whoami, Whoami, scopes=""),
)  # fmt: skip

OWN_ROUTES: tuple[Route, ...] = (
    *(Route(f"{operation.method} {operation.path}", scopes=operation.scopes) for operation in OPERATIONS),
    Route(f"GET {DESCRIPTION_PATH}", public=True),
    Route(f"POST {LEAKS_PATH}", public=True),  # signed, and by nobody who has a key here
)
