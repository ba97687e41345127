"""What the key API is sent: bodies and queries, as types that validate and that OpenAPI's schemas are made of."""

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
    """Something a caller sent: every field as it is meant, none that is not known."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class NoFields(RequestModel):
    """Nothing at all, or an empty object."""


class NewKey(RequestModel):
    """A key to create."""

    name: Name
    scopes: ScopeList
    environment: Environment | None = Field(
        default=None, description="`live` or `test`; the environment of the key that asks when left out."
    )
    allowed_ips: NetworkList | None = None
    expires_at: LaterMoment | None = Field(default=None, description="When the key stops working; null: never.")
    metadata: Metadata | None = None


class KeyChange(RequestModel):
    """What to change of a key: settings that are left out stay as they are."""

    # To leave these two out is not to say null: `model_fields_set` tells which were sent.
    name: Name = Field(default_factory=str)
    scopes: ScopeList = Field(default_factory=list)
    allowed_ips: NetworkList | None = None
    expires_at: LaterMoment | None = Field(default=None, description="When the key stops working; null: never.")
    metadata: Metadata | None = None


class Rotation(RequestModel):
    """How to rotate."""

    grace_seconds: Annotated[
        int,
        Field(
            ge=0,
            le=MAX_GRACE_SECONDS,
            description="How long the current secret still works, never past the key's own expiry; 0 ends it at once.",
        ),
    ] = DAY_SECONDS


class NewSession(RequestModel):
    """A session to make."""

    scopes: HeldScopes | None = Field(default=None, description="The key's own when left out.")
    ttl_seconds: Annotated[
        int, Field(ge=1, le=MAX_SECONDS, description="How long it works; never longer than its key.")
    ] = MAX_SECONDS


class NewClient(RequestModel):
    """An app to make known."""

    name: AppName
    scopes: AppScopes
    redirect_uris: RedirectUris | None = None
    grant_types: GrantTypes | None = Field(
        default=None, description="`authorization_code` and `refresh_token` when left out."
    )
    environment: Environment | None = Field(
        default=None, description="`live` or `test`; the environment of the key that asks when left out."
    )
    public: Annotated[bool, Field(description="In a browser or on users' machines: it has no secret.")] = False
    require_pkce: Annotated[bool, Field(description="Whether PKCE is required; it always is of a public one.")] = True
    dpop_bound: Annotated[bool, Field(description="Whether it gets tokens that are bound to a key, and no others.")] = (
        False
    )


class ClientChange(RequestModel):
    """What to change of an app: settings that are left out stay as they are."""

    # As in KeyChange: `model_fields_set` tells which were sent.
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


class ClientSelection(RequestModel):
    """Which apps, and how many at once."""

    limit: PageSize = DEFAULT_PAGE
    after: Annotated[str | None, Field(pattern=CLIENT_ID, description="Go on after the app with this id.")] = None
    environment: Annotated[Literal["live", "test"] | None, Field(description="Only apps for this traffic.")] = None


class GrantSelection(RequestModel):
    """Which grants, and how many at once."""

    limit: PageSize = DEFAULT_PAGE
    after: Annotated[
        str | None, Field(pattern="^grant_[0-9A-Za-z]{1,58}$", description="Go on after the grant with this id.")
    ] = None
    client_id: Annotated[str | None, Field(pattern=CLIENT_ID, description="Only those of this app.")] = None


class KeySelection(RequestModel):
    """Which keys, and how many at once."""

    limit: PageSize = DEFAULT_PAGE
    after: Annotated[
        str | None, Field(pattern="^key_[0-9A-Za-z]{1,60}$", description="Go on after the key with this id.")
    ] = None
    environment: Annotated[Literal["live", "test"] | None, Field(description="Only keys for this traffic.")] = None
    status: Annotated[Literal["active", "expired", "revoked"] | None, Field(description="Only keys in this state.")] = (
        None
    )


class UsageQuery(RequestModel):
    """Which time to report on, and how finely."""

    from_: Annotated[Moment | None, Field(alias="from", description="A day before `to` when left out.")] = None
    to: Annotated[Moment | None, Field(description="Now when left out.")] = None
    bucket: Annotated[
        Literal["minute", "hour", "day"], Field(description=f"At most {MAX_BUCKETS:,} of them are told at once.")
    ] = "hour"


class Revocation(RequestModel):
    """Whether it is meant."""

    self_: Annotated[
        Flag, Field(alias="self", description="Needed for the key that asks, which would lock itself out.")
    ] = False


class EntrySelection(RequestModel):
    """Which entries of the audit log, and how many at once."""

    limit: PageSize = DEFAULT_PAGE
    after: Annotated[
        str | None, Field(pattern="^audit_[1-9][0-9]{0,17}$", description="Go on after the entry with this id.")
    ] = None


class NoQuery(RequestModel):
    """No parameters."""
