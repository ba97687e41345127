"""The bodies and queries of the key API. These types validate requests and generate OpenAPI's schemas."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from machpay_gateway.admin.fields import (
    AppName,
    AppScopes,
    Environment,
    Flag,
    GrantTypes,
    HeldScopes,
    LaterMoment,
    Metadata,
    Moment,
    Name,
    NetworkList,
    PageSize,
    RedirectUris,
    ScopeList,
)
from machpay_gateway.core.jose.session import MAX_SECONDS
from machpay_gateway.core.keys.key import DAY_SECONDS, MAX_GRACE_SECONDS
from machpay_gateway.core.usage.counters import MAX_BUCKETS

DEFAULT_PAGE = 20
CLIENT_ID = "^app_[0-9A-Za-z]{1,60}$"


class RequestModel(BaseModel):
    """A body or a query. Types are not coerced, and unknown fields are refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class NoFields(RequestModel):
    """No body, or an empty object."""


class NewKey(RequestModel):
    """A key to create."""

    name: Name
    scopes: ScopeList
    environment: Environment | None = Field(
        default=None, description="`live` or `test`; by default the environment of the calling key."
    )
    allowed_ips: NetworkList | None = None
    expires_at: LaterMoment | None = Field(default=None, description="When the key expires; null: never.")
    metadata: Metadata | None = None


class KeyChange(RequestModel):
    """The settings of a key to change. Those that are left out stay as they are."""

    # These two can be left out but not null. `model_fields_set` tells which fields were sent.
    name: Name = Field(default_factory=str)
    scopes: ScopeList = Field(default_factory=list)
    allowed_ips: NetworkList | None = None
    expires_at: LaterMoment | None = Field(default=None, description="When the key expires; null: never.")
    metadata: Metadata | None = None


class Rotation(RequestModel):
    """How to rotate."""

    grace_seconds: Annotated[
        int,
        Field(
            ge=0,
            le=MAX_GRACE_SECONDS,
            description="How long the current secret still works, at most until the key expires; 0 ends it at once.",
        ),
    ] = DAY_SECONDS


class NewSession(RequestModel):
    """A session to create."""

    scopes: HeldScopes | None = Field(default=None, description="By default the scopes of the key.")
    ttl_seconds: Annotated[
        int, Field(ge=1, le=MAX_SECONDS, description="Its lifetime, which never exceeds that of its key.")
    ] = MAX_SECONDS


class NewClient(RequestModel):
    """An app to create."""

    name: AppName
    scopes: AppScopes
    redirect_uris: RedirectUris | None = None
    grant_types: GrantTypes | None = Field(
        default=None, description="By default `authorization_code` and `refresh_token`."
    )
    environment: Environment | None = Field(
        default=None, description="`live` or `test`; by default the environment of the calling key."
    )
    public: Annotated[bool, Field(description="Runs in a browser or on users' machines, and so has no secret.")] = False
    require_pkce: Annotated[bool, Field(description="Whether PKCE is required; always true for a public app.")] = True
    dpop_bound: Annotated[bool, Field(description="Whether it gets only tokens that are bound to a DPoP key.")] = False


class ClientChange(RequestModel):
    """The settings of an app to change. Those that are left out stay as they are."""

    # As in KeyChange, `model_fields_set` tells which fields were sent.
    name: AppName = Field(default_factory=str)
    scopes: AppScopes = Field(default_factory=list)
    redirect_uris: RedirectUris = Field(default_factory=list)
    grant_types: GrantTypes = Field(default_factory=list)
    require_pkce: bool = Field(default_factory=bool)
    dpop_bound: bool = Field(default_factory=bool)


class SecretRotation(RequestModel):
    """How to rotate an app's secret."""

    grace_seconds: Annotated[
        int,
        Field(ge=0, le=MAX_GRACE_SECONDS, description="How long the current secret still works; 0 ends it at once."),
    ] = DAY_SECONDS


class ClientListQuery(RequestModel):
    """A page of apps, and filters."""

    limit: PageSize = DEFAULT_PAGE
    after: Annotated[str | None, Field(pattern=CLIENT_ID, description="Start after the app with this id.")] = None
    environment: Annotated[Literal["live", "test"] | None, Field(description="Only apps for this traffic.")] = None


class GrantListQuery(RequestModel):
    """A page of grants, and a filter."""

    limit: PageSize = DEFAULT_PAGE
    after: Annotated[
        str | None, Field(pattern="^grant_[0-9A-Za-z]{1,58}$", description="Start after the grant with this id.")
    ] = None
    client_id: Annotated[str | None, Field(pattern=CLIENT_ID, description="Only grants of this app.")] = None


class KeyListQuery(RequestModel):
    """A page of keys, and filters."""

    limit: PageSize = DEFAULT_PAGE
    after: Annotated[
        str | None, Field(pattern="^key_[0-9A-Za-z]{1,60}$", description="Start after the key with this id.")
    ] = None
    environment: Annotated[Literal["live", "test"] | None, Field(description="Only keys for this traffic.")] = None
    status: Annotated[Literal["active", "expired", "revoked"] | None, Field(description="Only keys in this state.")] = (
        None
    )


class KeyUsageQuery(RequestModel):
    """The period of a usage report, and the size of its buckets."""

    from_: Annotated[Moment | None, Field(alias="from", description="By default a day before `to`.")] = None
    to: Annotated[Moment | None, Field(description="By default now.")] = None
    bucket: Annotated[
        Literal["minute", "hour", "day"], Field(description=f"A report has at most {MAX_BUCKETS:,} buckets.")
    ] = "hour"


class RevokeQuery(RequestModel):
    """A confirmation."""

    self_: Annotated[Flag, Field(alias="self", description="Required to revoke the calling key itself.")] = False


class AuditLogQuery(RequestModel):
    """A page of the audit log."""

    limit: PageSize = DEFAULT_PAGE
    after: Annotated[
        str | None, Field(pattern="^audit_[1-9][0-9]{0,17}$", description="Start after the entry with this id.")
    ] = None


class NoQuery(RequestModel):
    """No parameters."""
