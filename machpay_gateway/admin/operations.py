"""The one table of the key API: its operations, with permissions, parameters, bodies and responses.

Routing (`app`), the access policy (`OWN_ROUTES`) and the OpenAPI document (`openapi`) are derived from it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.responses import Response

from machpay_gateway.admin import account, clients, grants, keys, sessions
from machpay_gateway.admin.leaks import PATH as LEAKS_PATH
from machpay_gateway.admin.request import AdminRequest
from machpay_gateway.admin.requests import (
    AuditLogQuery,
    ClientChange,
    ClientListQuery,
    GrantListQuery,
    KeyChange,
    KeyListQuery,
    KeyUsageQuery,
    NewClient,
    NewKey,
    NewSession,
    NoFields,
    NoQuery,
    RequestModel,
    RevokeQuery,
    Rotation,
    SecretRotation,
)
from machpay_gateway.admin.responses import (
    AuditListDocument,
    ClientListDocument,
    DeletedClientDocument,
    GrantListDocument,
    IssuedSessionDocument,
    KeyListDocument,
    WhoamiDocument,
)
from machpay_gateway.core.accounts.management import MANAGING
from machpay_gateway.core.accounts.management import ManagementAction as Action
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.keys.document import IssuedKeyDocument, KeyDocument
from machpay_gateway.core.oauth.documents import IssuedClientDocument, OAuthClientDocument, OAuthGrantDocument
from machpay_gateway.core.usage.document import UsageDocument

DESCRIPTION_PATH = "/v1/openapi.json"


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation, *about* a key, an app or a grant if its path has an id.

    *action* is what it does to records, None if it concerns only the caller. *problems* are its own codes, besides
    those that every operation has.
    """

    method: str
    path: str
    name: str
    action: Action | None
    run: Callable[[AdminRequest], Awaitable[Response]]
    response: type
    scopes: str = MANAGING
    query: type[RequestModel] = NoQuery
    body: type[RequestModel] | None = None
    problems: tuple[str, ...] = ()
    status: int = 200
    has_etag: bool = False
    is_repeatable: bool = False  # by Idempotency-Key
    about: str = "key"


_KEY, _CHANGE = "/v1/keys/{id}", ("not_found", "precondition_failed")
_CLIENTS, _GRANTS = "/v1/oauth/clients", "/v1/oauth/grants"

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "POST", "/v1/keys", "createKey", Action.CREATE, keys.create, IssuedKeyDocument,
        body=NewKey, problems=("conflict", "key_limit_reached"), status=201, has_etag=True, is_repeatable=True,
    ),
    Operation("GET", "/v1/keys", "listKeys", Action.READ, keys.list_, KeyListDocument, query=KeyListQuery),
    Operation(
        "GET", _KEY, "retrieveKey", Action.READ, keys.retrieve, KeyDocument,
        problems=("not_found",), has_etag=True,
    ),
    Operation(
        "PATCH", _KEY, "updateKey", Action.CHANGE, keys.update, KeyDocument,
        body=KeyChange, problems=("conflict", "key_limit_reached", *_CHANGE), has_etag=True,
    ),
    Operation(
        "POST", f"{_KEY}/rotate", "rotateKey", Action.ISSUE_SECRET, keys.rotate, IssuedKeyDocument,
        body=Rotation, problems=("conflict", *_CHANGE), has_etag=True, is_repeatable=True,
    ),
    Operation(
        "POST", f"{_KEY}/end-grace", "endGrace", Action.END, keys.end_grace, KeyDocument,
        body=NoFields, problems=_CHANGE, has_etag=True,
    ),
    Operation(
        "POST", f"{_KEY}/revoke", "revokeKey", Action.END, keys.revoke, KeyDocument,
        query=RevokeQuery, body=NoFields, problems=("conflict", *_CHANGE), has_etag=True,
    ),
    Operation(
        "GET", f"{_KEY}/usage", "retrieveUsage", Action.READ, keys.usage, UsageDocument,
        query=KeyUsageQuery, problems=("not_found",),
    ),
    Operation(
        "POST", _CLIENTS, "createClient", Action.CREATE, clients.create, IssuedClientDocument,
        body=NewClient, status=201, has_etag=True, about="app",
    ),
    Operation(
        "GET", _CLIENTS, "listClients", Action.READ, clients.list_, ClientListDocument,
        query=ClientListQuery,
    ),
    Operation(
        "GET", f"{_CLIENTS}/{{id}}", "retrieveClient", Action.READ, clients.retrieve, OAuthClientDocument,
        problems=("not_found",), has_etag=True, about="app",
    ),
    Operation(
        "PATCH", f"{_CLIENTS}/{{id}}", "updateClient", Action.CHANGE, clients.update, OAuthClientDocument,
        body=ClientChange, problems=("conflict", *_CHANGE), has_etag=True, about="app",
    ),
    Operation(
        "DELETE", f"{_CLIENTS}/{{id}}", "deleteClient", Action.END, clients.delete, DeletedClientDocument,
        problems=_CHANGE, about="app",
    ),
    Operation(
        "POST", f"{_CLIENTS}/{{id}}/rotate-secret", "rotateClientSecret", Action.ISSUE_SECRET,
        clients.rotate_secret, IssuedClientDocument,
        body=SecretRotation, problems=("conflict", *_CHANGE), has_etag=True, about="app",
    ),
    Operation(
        "GET", _GRANTS, "listGrants", Action.READ, grants.list_, GrantListDocument,
        query=GrantListQuery,
    ),
    Operation(
        "POST", f"{_GRANTS}/{{id}}/revoke", "revokeGrant", Action.END, grants.revoke, OAuthGrantDocument,
        body=NoFields, problems=("not_found",), about="grant",
    ),
    Operation(
        "GET", "/v1/audit-log", "listChanges", Action.READ_AUDIT_LOG, account.audit_log, AuditListDocument,
        query=AuditLogQuery,
    ),
    Operation(
        "POST", "/v1/sessions", "createSession", Action.CREATE_SESSION, sessions.create, IssuedSessionDocument,
        scopes="", body=NewSession, status=201,
    ),
    Operation("GET", "/v1/whoami", "whoami", None, account.whoami, WhoamiDocument, scopes=""),
)  # fmt: skip

OWN_ROUTES: tuple[Route, ...] = (
    *(Route(f"{operation.method} {operation.path}", scopes=operation.scopes) for operation in OPERATIONS),
    Route(f"GET {DESCRIPTION_PATH}", public=True),
    Route(f"POST {LEAKS_PATH}", public=True),  # authenticated by a signature instead of a key
)
