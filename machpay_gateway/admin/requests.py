"""The bodies and queries of the key API. These types validate requests and generate OpenAPI's schemas.

What depends on the caller and the time comes from the `ValidationContext`. The rules are those of the services
(`core.keys.validation`), so there is no second implementation of them.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from machpay_gateway.admin.caller import Caller
from machpay_gateway.core.accounts.management import NOT_ASSIGNED_BY_KEYS
from machpay_gateway.core.errors import ConfigurationError, InputError
from machpay_gateway.core.jose.session import MAX_SECONDS
from machpay_gateway.core.keys.key import DAY_SECONDS, MAX_GRACE_SECONDS
from machpay_gateway.core.keys.validation import (
    MAX_NAME,
    MAX_NETWORKS,
    MAX_OWNER,
    MAX_PAIR_KEY,
    MAX_PAIR_VALUE,
    MAX_PAIRS,
    MAX_SCOPES,
    validate_expiry,
    validate_metadata,
    validate_name,
    validate_owner,
    validate_scopes,
)
from machpay_gateway.core.network.address import parse_network
from machpay_gateway.core.oauth.client import GRANT_TYPES, validate_client_scopes
from machpay_gateway.core.oauth.redirect_uri import MAX_URI, MAX_URIS, validate_redirect_uris
from machpay_gateway.core.scopes import DefinedScopes
from machpay_gateway.core.text import mask_secrets, parse_moment, quote_value
from machpay_gateway.core.usage.counters import MAX_BUCKETS

DEFAULT_PAGE = 20
CLIENT_ID = "^app_[0-9A-Za-z]{1,60}$"
MAX_PAGE = 100
_LONGEST_SCOPE, _LONGEST_NETWORK = 128, 64
_NUMBER = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class ValidationContext:
    """What fields are validated against. *current_scopes* are those of the record that is updated."""

    caller: Caller
    known_scopes: DefinedScopes
    now: float
    current_scopes: frozenset[str] = frozenset()


def _as_pydantic(validate: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return *validate* as a validator that raises pydantic's error."""

    def validator(value: Any) -> Any:  # noqa: ANN401 - the value of any field
        try:
            return validate(value)
        except (InputError, ConfigurationError) as exc:
            raise _field_error(mask_secrets(str(exc))) from exc

    return validator


def _field_error(reason: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{reason}", {"reason": reason})


def _none_as_empty(kind: Callable[[], Any]) -> Callable[[Any], Any]:
    return lambda value: kind() if value is None else value


def _validate_key_scope(name: str, info: "ValidationInfo[ValidationContext]") -> str:
    context = info.context
    _as_pydantic(lambda one: validate_scopes([one], context.known_scopes))(name)
    if context.caller.may_assign(name, context.current_scopes):
        return name
    if name in NOT_ASSIGNED_BY_KEYS:
        raise _field_error(f"{quote_value(name)} can only be assigned by an operator: `machpay-gateway keys create`.")
    raise _field_error(
        f"{quote_value(name)} is not held by the calling key: a key can only pass on scopes that it has."
    )


def _validate_app_scope(name: str, info: "ValidationInfo[ValidationContext]") -> str:
    context = info.context
    _as_pydantic(lambda one: validate_client_scopes([one], context.known_scopes))(name)
    if not context.caller.may_assign(name, context.current_scopes):
        raise _field_error(
            f"{quote_value(name)} is not held by the calling key: an app can only get scopes that it has."
        )
    return name


def _validate_session_scope(name: str, info: "ValidationInfo[ValidationContext]") -> str:
    if name not in info.context.caller.principal.scopes:
        raise _field_error(
            f"{quote_value(name)} is not held by the calling key: a session has at most its key's scopes."
        )
    return name


def _validate_unique(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise _field_error("One is given twice: leave one out.")
    return names


def _validate_key_scopes(names: list[str], info: "ValidationInfo[ValidationContext]") -> list[str]:
    _as_pydantic(lambda all_: validate_scopes(all_, info.context.known_scopes))(names)
    return names


def _validate_environment(environment: str, info: "ValidationInfo[ValidationContext]") -> str:
    only = info.context.caller.environment
    if only not in (None, environment):
        raise _field_error(f"A test key can only create test objects, not {environment} ones.")
    return environment


def _parse_moment(value: object) -> float:
    # A number would be taken as seconds, even if it was meant in milliseconds.
    if not isinstance(value, str):
        raise _field_error("Input should be a moment as text, as in 2030-01-31T00:00:00Z")
    return parse_moment(value)


def _validate_later(moment: float, info: "ValidationInfo[ValidationContext]") -> float:
    _as_pydantic(lambda at: validate_expiry(at, info.context.now))(moment)
    return moment


def _parse_digits(text: str) -> int:
    # Queries hold text, and pydantic accepts more than digits as a number.
    if not _NUMBER.fullmatch(text):
        raise _field_error("Input should be a number in digits")
    return int(text)


def _parse_flag(text: str) -> bool:
    if text not in {"true", "false"}:
        raise _field_error("Input should be true or false")
    return text == "true"


Name = Annotated[
    str,
    Field(min_length=1, max_length=MAX_NAME, description="The display name of the key."),
    AfterValidator(_as_pydantic(validate_name)),
]
Owner = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_OWNER,
        description="Whom within the account the key is for. Keys with the same owner share the limits by owner.",
    ),
    AfterValidator(_as_pydantic(validate_owner)),
]
Scope = Annotated[str, Field(min_length=1, max_length=_LONGEST_SCOPE), AfterValidator(_validate_key_scope)]
ScopeList = Annotated[
    list[Scope],
    Field(
        max_length=MAX_SCOPES,
        json_schema_extra={"uniqueItems": True},
        description="What the key may do: scopes that the caller holds, or wildcards over them such as `skills:*`.",
    ),
    AfterValidator(_validate_key_scopes),
]
AppName = Annotated[
    str,
    Field(min_length=1, max_length=MAX_NAME, description="The name that users see."),
    AfterValidator(_as_pydantic(validate_name)),
]
AppScopes = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=_LONGEST_SCOPE), AfterValidator(_validate_app_scope)]],
    Field(
        max_length=MAX_SCOPES,
        json_schema_extra={"uniqueItems": True},
        description="The scopes that the app may request: those that the caller holds, without wildcards.",
    ),
    AfterValidator(_validate_unique),
]
RedirectUris = Annotated[
    list[
        Annotated[
            str,
            Field(min_length=1, max_length=MAX_URI),
            AfterValidator(_as_pydantic(lambda uri: validate_redirect_uris([uri])[0])),
        ]
    ],
    Field(max_length=MAX_URIS, description="Where users are redirected to. Compared byte by byte."),
]
GrantTypes = Annotated[
    list[Literal["authorization_code", "refresh_token", "client_credentials"]],
    Field(max_length=len(GRANT_TYPES), json_schema_extra={"uniqueItems": True}, description="How it may get tokens."),
    AfterValidator(_validate_unique),
]
HeldScopes = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=_LONGEST_SCOPE), AfterValidator(_validate_session_scope)]],
    Field(max_length=MAX_SCOPES, json_schema_extra={"uniqueItems": True}, description="Scopes that the caller holds."),
    AfterValidator(_validate_unique),
]
Network = Annotated[
    str,
    Field(min_length=1, max_length=_LONGEST_NETWORK),
    AfterValidator(_as_pydantic(lambda text: parse_network(text)[0])),
]
NetworkList = Annotated[
    list[Network],
    Field(
        max_length=MAX_NETWORKS,
        description="Addresses and networks (CIDR) that the key can be used from. Empty: anywhere.",
    ),
]
Environment = Annotated[Literal["live", "test"], AfterValidator(_validate_environment)]
Moment = Annotated[
    float,
    BeforeValidator(_as_pydantic(_parse_moment)),
    WithJsonSchema({"type": "string", "format": "date-time", "maxLength": 35}),
]
LaterMoment = Annotated[Moment, AfterValidator(_validate_later)]
PairName = Annotated[str, Field(min_length=1, max_length=MAX_PAIR_KEY)]
PairValue = Annotated[str, Field(max_length=MAX_PAIR_VALUE)]
Metadata = Annotated[
    dict[PairName, PairValue],
    Field(max_length=MAX_PAIRS, description="Your own pairs, stored as they are: no secrets."),
    AfterValidator(_as_pydantic(validate_metadata)),
]
# For queries, where every value is text.
PageSize = Annotated[int, Field(ge=1, le=MAX_PAGE, description="The size of the page."), BeforeValidator(_parse_digits)]
Flag = Annotated[bool, BeforeValidator(_parse_flag)]


class RequestModel(BaseModel):
    """A body or a query. Types are not coerced, and unknown fields are refused."""

    # Validators are built when they are first used: building all of them takes a twentieth of the start of a worker.
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, defer_build=True)

    def given(self) -> dict[str, Any]:
        """Return the fields that were sent. Those of keys are named like the arguments of `services.keys`."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class NoFields(RequestModel):
    """No body, or an empty object."""


class NewKey(RequestModel):
    """A key to create."""

    name: Name
    owner: Owner | None = None
    scopes: ScopeList
    environment: Environment | None = Field(
        default=None, description="`live` or `test`; by default the environment of the calling key."
    )
    allowed_ips: Annotated[NetworkList | None, AfterValidator(_none_as_empty(list))] = None
    expires_at: LaterMoment | None = Field(default=None, description="When the key expires; null: never.")
    metadata: Annotated[Metadata | None, AfterValidator(_none_as_empty(dict))] = None


class KeyChange(RequestModel):
    """The settings of a key to change. Those that are left out stay as they are."""

    # These two can be left out but not null. `model_fields_set` tells which fields were sent.
    name: Name = Field(default_factory=str)
    scopes: ScopeList = Field(default_factory=list)
    owner: Owner | None = None
    allowed_ips: Annotated[NetworkList | None, AfterValidator(_none_as_empty(list))] = None
    expires_at: LaterMoment | None = Field(default=None, description="When the key expires; null: never.")
    metadata: Annotated[Metadata | None, AfterValidator(_none_as_empty(dict))] = None


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
