"""The JSON documents that only the key API responds with. It shares those in `core` with the command line."""

from typing import Annotated, Literal, NotRequired

from typing_extensions import TypedDict

from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.decision.problem import whole_seconds
from machpay_gateway.core.json_schema import Count, JsonSchema, Timestamp
from machpay_gateway.core.keys.document import AuditEntryDocument, Environment, KeyDocument
from machpay_gateway.core.limits.admission import Admitted
from machpay_gateway.core.oauth.client import OAuthClient
from machpay_gateway.core.oauth.documents import OAuthClientDocument, OAuthGrantDocument
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.core.text import format_moment, format_moment_or_none
from machpay_gateway.core.usage.document import PolicyDocument, policy_document


class KeyListDocument(TypedDict):
    """A page of keys, newest first."""

    object: Literal["list"]
    data: list[KeyDocument]
    has_more: bool


class ClientListDocument(TypedDict):
    """A page of apps, newest first."""

    object: Literal["list"]
    data: list[OAuthClientDocument]
    has_more: bool


class GrantListDocument(TypedDict):
    """A page of grants, newest first."""

    object: Literal["list"]
    data: list[OAuthGrantDocument]
    has_more: bool


class AuditListDocument(TypedDict):
    """A page of changes, newest first."""

    object: Literal["list"]
    data: list[AuditEntryDocument]
    has_more: bool


class DeletedClientDocument(TypedDict):
    """An app that was deleted."""

    id: str
    object: Literal["oauth_client"]
    deleted: Literal[True]


class IssuedSessionDocument(TypedDict):
    """A session, with its token."""

    object: Literal["session"]
    id: str
    token: Annotated[str, JsonSchema(description="Shown only once: a JWT, sent in the same header as a key.")]
    token_type: Literal["Bearer"]
    expires_in: Annotated[int, JsonSchema(description="Seconds.")]
    expires_at: Timestamp
    scopes: list[str]


class TierLimitsDocument(TypedDict):
    """The limits of the caller's tier."""

    rate: Annotated[str, JsonSchema(description="Requests per window, as in 1000/minute.")]
    requests: Count
    window_seconds: Count
    concurrency: Count


class RemainingDocument(TypedDict):
    """What is left of the limits after this request."""

    requests: Count
    reset_seconds: Annotated[int, JsonSchema(minimum=1, description="Seconds until the window has room again.")]
    concurrency: Count


class WhoamiDocument(TypedDict):
    """The caller: its scopes, its limits and what is left of them."""

    object: Literal["principal"]
    kind: Annotated[str, JsonSchema(enum=["api_key", "session", "oauth", "jwt", "custom"])]
    id: str
    name: str
    account_id: str | None
    environment: Environment
    tier: str
    scopes: list[str]
    expires_at: Timestamp | None
    limits: TierLimitsDocument
    remaining: RemainingDocument
    policies: list[PolicyDocument]


class FieldProblem(TypedDict):
    """What is wrong with one field."""

    place: Annotated[str, JsonSchema(description="As in `scopes.1`, `query.limit`, `header.Idempotency-Key`.")]
    reason: str


class ProblemDocument(TypedDict):
    """Why a request was refused (RFC 9457)."""

    type: str
    title: str
    status: Annotated[int, JsonSchema(minimum=400, maximum=599)]
    detail: str
    code: Annotated[str, JsonSchema(description="The stable name of the reason.")]
    request_id: str
    errors: NotRequired[list[FieldProblem]]
    required_scopes: NotRequired[list[str]]
    violated_policies: NotRequired[list[str]]
    retry_after: NotRequired[Annotated[int, JsonSchema(minimum=1, description="Seconds.")]]


def whoami_document(principal: Principal, admission: Admitted) -> WhoamiDocument:
    """Return the caller, with the limits of its *admission*."""
    levels = list(admission.plan.levels(admission.levels))
    rate, left, resets_in = next(level for level in levels if not level.policy.is_concurrency)
    slots, slots_left, _ = next(level for level in levels if level.policy.is_concurrency)
    return {
        "object": "principal",
        "kind": principal.kind,
        "id": principal.id,
        "name": principal.name,
        "account_id": principal.account_id,
        "environment": principal.environment,
        "tier": principal.tier,
        "scopes": list(principal.scopes),
        "expires_at": format_moment_or_none(principal.expires_at),
        "limits": {
            "rate": principal.limits.rate_text,
            "requests": rate.limit,
            "window_seconds": rate.window_seconds or 1,
            "concurrency": slots.limit,
        },
        "remaining": {
            "requests": max(0, left),
            "reset_seconds": whole_seconds(resets_in),
            "concurrency": max(0, slots_left),
        },
        "policies": [policy_document(level) for level in levels],
    }


def issued_session_document(
    token_id: str, token: str, scopes: Scopes, *, ttl_seconds: int, now: float
) -> IssuedSessionDocument:
    """Return the session that was created at *now*."""
    return {
        "object": "session",
        "id": token_id,
        "token": token,
        "token_type": "Bearer",
        "expires_in": ttl_seconds,
        "expires_at": format_moment(int(now) + ttl_seconds),
        "scopes": list(scopes),
    }


def deleted_client_document(client: OAuthClient) -> DeletedClientDocument:
    """Return what remains of a deleted client."""
    return {"id": client.id, "object": "oauth_client", "deleted": True}
