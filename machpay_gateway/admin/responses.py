"""What the key API answers, as types for OpenAPI. The documents themselves are made by `core.keys.document`."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from machpay_gateway.core.keys.audit import ActorKind

Secret = Annotated[str, Field(description="Shown this once.", pattern="^sk_(live|test)_")]
Number = Annotated[int, Field(ge=0)]


class ResponseModel(BaseModel):
    """A part of an answer. More members may come with later versions."""

    model_config = ConfigDict(frozen=True)


class KeySecret(ResponseModel):
    """One of a key's secrets, which can be told apart and not used."""

    masked: str
    current: bool
    created_at: datetime
    expires_at: datetime | None
    last_used_at: Annotated[datetime | None, Field(description="When it was last presented, whatever came of it.")]


class Key(ResponseModel):
    """A key. Its id, settings and quota outlive its secrets."""

    id: str
    object: Literal["key"]
    account_id: str
    name: str
    environment: Literal["live", "test"]
    tier: str
    scopes: list[str]
    allowed_ips: list[str]
    status: Literal["active", "expired", "revoked"]
    masked: str
    created_at: datetime
    last_used_at: Annotated[datetime | None, Field(description="By any secret that it ever had.")]
    last_rotated_at: datetime | None
    rotation_due: Annotated[bool, Field(description="Whether its secret is older than 90 days.")]
    expires_at: datetime | None
    metadata: dict[str, str]
    secrets: Annotated[list[KeySecret], Field(description="The current one, and during a grace the one before.")]


class IssuedKey(Key):
    """A key with its new secret."""

    secret: Secret


class KeyList(ResponseModel):
    """A page of keys, newest first."""

    object: Literal["list"]
    data: list[Key]
    has_more: bool


class IssuedSession(ResponseModel):
    """A session, with its token."""

    object: Literal["session"]
    id: str
    token: Annotated[str, Field(description="Shown this once: a JWT that is sent as a key is.")]
    token_type: Literal["Bearer"]
    expires_in: Annotated[int, Field(description="Seconds.")]
    expires_at: datetime
    scopes: list[str]


class ClientSecret(ResponseModel):
    """One of an app's secrets, which can be told apart and not used."""

    masked: str
    current: bool
    created_at: datetime
    expires_at: datetime | None


class OAuthClient(ResponseModel):
    """An app that users may let act for them."""

    id: Annotated[str, Field(description="Its `client_id`.")]
    object: Literal["oauth_client"]
    account_id: str
    name: str
    environment: Literal["live", "test"]
    public: bool
    redirect_uris: list[str]
    scopes: list[str]
    grant_types: list[Literal["authorization_code", "refresh_token", "client_credentials"]]
    require_pkce: bool
    dpop_bound: bool
    self_registered: Annotated[bool, Field(description="Whether it registered itself: its name was not checked.")]
    created_at: datetime
    secrets: Annotated[list[ClientSecret], Field(description="The current one, and during a grace the one before.")]


class IssuedClient(OAuthClient):
    """An app with its new secret."""

    client_secret: Annotated[
        str | None, Field(description="Shown this once; null for a public app, which has none.", pattern="^cs_mp1_")
    ]


class DeletedClient(ResponseModel):
    """An app that is no more."""

    id: str
    object: Literal["oauth_client"]
    deleted: Literal[True]


class ClientList(ResponseModel):
    """A page of apps, newest first."""

    object: Literal["list"]
    data: list[OAuthClient]
    has_more: bool


class OAuthGrant(ResponseModel):
    """What a user lets an app do, or an app does for itself."""

    id: str
    object: Literal["oauth_grant"]
    account_id: str
    client_id: str
    user_id: Annotated[str | None, Field(description="null where the app calls for itself.")]
    environment: Literal["live", "test"]
    scopes: list[str]
    status: Literal["active", "ended"]
    created_at: datetime


class GrantList(ResponseModel):
    """A page of grants, newest first."""

    object: Literal["list"]
    data: list[OAuthGrant]
    has_more: bool


class LatencyMilliseconds(ResponseModel):
    """How long requests took, in milliseconds; null where there were none. All but the mean are estimates."""

    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None


class Counts(ResponseModel):
    """Requests, and what became of them."""

    requests: Number
    allowed: Number
    refused: Number
    outcomes: Annotated[dict[str, Number], Field(description="`allowed`, or the code of the refusal.")]
    statuses: dict[str, Number]
    latency_ms: LatencyMilliseconds


class UsageBucket(Counts):
    """Those of one bucket."""

    start: datetime


class UsageTotal(Counts):
    """Those of all buckets."""

    routes: dict[str, Number]


class Usage(ResponseModel):
    """What a key was used for. Buckets in which there was no request are left out."""

    object: Literal["usage"]
    key_id: str
    bucket: Literal["minute", "hour", "day"]
    from_: Annotated[datetime, Field(alias="from")]
    to: datetime
    data: list[UsageBucket]
    total: UsageTotal


class AuditActor(ResponseModel):
    """Who made a change, and as far as is known from where."""

    kind: ActorKind
    id: str
    address: str | None
    request_id: str | None


class AuditEntry(ResponseModel):
    """A change: what was so before and what after."""

    id: str
    object: Literal["audit_entry"]
    number: Number
    at: datetime
    actor: AuditActor
    action: str
    account_id: str
    object_id: str
    before: dict[str, Any]
    after: dict[str, Any]


class AuditList(ResponseModel):
    """A page of changes, newest first."""

    object: Literal["list"]
    data: list[AuditEntry]
    has_more: bool


class TierLimits(ResponseModel):
    """How much the caller may do."""

    rate: Annotated[str, Field(description="Requests per window, as in 1000/minute.")]
    requests: Number
    window_seconds: Number
    concurrency: Number


class Remaining(ResponseModel):
    """What is left of the limits, this request taken off."""

    requests: Number
    reset_seconds: Annotated[int, Field(ge=1, description="Until the next request frees.")]
    concurrency: Number


class Whoami(ResponseModel):
    """Who is calling."""

    object: Literal["principal"]
    kind: Literal["api_key", "session", "oauth", "jwt"]
    id: str
    name: str
    account_id: str | None
    environment: Literal["live", "test"]
    tier: str
    scopes: list[str]
    expires_at: datetime | None
    limits: TierLimits
    remaining: Remaining


class FieldProblem(ResponseModel):
    """What is wrong with one field."""

    place: str
    reason: str


class ProblemDocument(ResponseModel):
    """Why a request was not carried out (RFC 9457)."""

    type: str
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    code: Annotated[str, Field(description="The reason's stable name.")]
    request_id: str
    errors: list[FieldProblem] = []
    required_scopes: list[str] = []
    violated_policies: list[str] = []
    retry_after: Annotated[int, Field(ge=1, description="Seconds.")] = 1
