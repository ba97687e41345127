"""The fields of what the key API is sent: each reads itself, and tells OpenAPI its limits.

What depends on who asks, and on when, comes as the `ValidationContext`. The rules are those of the services
(`core.keys.validation`), so that no second truth can grow here.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from machpay_gateway.admin.caller import Caller
from machpay_gateway.core.accounts.management import NOT_ASSIGNED_BY_KEYS
from machpay_gateway.core.errors import ConfigurationError, InputError
from machpay_gateway.core.keys.validation import (
    MAX_NAME,
    MAX_NETWORKS,
    MAX_PAIR_KEY,
    MAX_PAIR_VALUE,
    MAX_PAIRS,
    MAX_SCOPES,
    validate_expiry,
    validate_metadata,
    validate_name,
    validate_scopes,
)
from machpay_gateway.core.network.address import parse_network
from machpay_gateway.core.oauth.client import GRANT_TYPES, checked_app_scopes
from machpay_gateway.core.oauth.redirect_uri import MAX_URI, MAX_URIS, checked_redirect_uris
from machpay_gateway.core.text import masked, parse_moment, quoted

MAX_PAGE = 100
_LONGEST_SCOPE, _LONGEST_NETWORK = 128, 64
_NUMBER = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class ValidationContext:
    """What fields are read against: the *caller*, the *known* scopes, those that are *kept* by a change, the time."""

    caller: Caller
    known: frozenset[str]
    now: float
    kept: frozenset[str] = frozenset()


def _told(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return *read*, its refusal told as pydantic has it."""

    def reading(value: Any) -> Any:  # noqa: ANN401 - any field's value
        try:
            return read(value)
        except (InputError, ConfigurationError) as exc:
            raise _refusal(masked(str(exc))) from exc

    return reading


def _refusal(reason: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{reason}", {"reason": reason})


def _grantable(name: str, info: ValidationInfo[ValidationContext]) -> str:
    readings = info.context
    _told(lambda one: validate_scopes([one], readings.known))(name)
    if readings.caller.may_assign(name, readings.kept):
        return name
    if name in NOT_ASSIGNED_BY_KEYS:
        raise _refusal(f"{quoted(name)} is given by an operator only: `machpay-gateway keys create`.")
    raise _refusal(f"{quoted(name)} is not held by the key that asks: a key gives on only what it has.")


def _for_apps(name: str, info: ValidationInfo[ValidationContext]) -> str:
    readings = info.context
    _told(lambda one: checked_app_scopes([one], readings.known))(name)
    if not readings.caller.may_assign(name, readings.kept):
        raise _refusal(f"{quoted(name)} is not held by the key that asks: an app gets only what that has.")
    return name


def _held(name: str, info: ValidationInfo[ValidationContext]) -> str:
    if name not in info.context.caller.principal.scopes:
        raise _refusal(f"{quoted(name)} is not held by the key that asks: a session has at most its key's scopes.")
    return name


def _unrepeated(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise _refusal("One is given twice: leave it out once.")
    return names


def _once(names: list[str], info: ValidationInfo[ValidationContext]) -> list[str]:
    _told(lambda all_: validate_scopes(all_, info.context.known))(names)
    return names


def _ours(environment: str, info: ValidationInfo[ValidationContext]) -> str:
    only = info.context.caller.environment
    if only not in (None, environment):
        raise _refusal(f"A test key makes only what is test, nothing that is {environment}.")
    return environment


def _moment(value: object) -> float:
    # A number would be read as a time in seconds, also one that was meant in milliseconds.
    if not isinstance(value, str):
        raise _refusal("Input should be a moment as text, as in 2030-01-31T00:00:00Z")
    return parse_moment(value)


def _later(moment: float, info: ValidationInfo[ValidationContext]) -> float:
    _told(lambda at: validate_expiry(at, info.context.now))(moment)
    return moment


def _digits(text: str) -> int:
    # In a query everything is text, and pydantic reads more than digits as a number.
    if not _NUMBER.fullmatch(text):
        raise _refusal("Input should be a number in digits")
    return int(text)


def _flag(text: str) -> bool:
    if text not in {"true", "false"}:
        raise _refusal("Input should be true or false")
    return text == "true"


Name = Annotated[
    str,
    Field(min_length=1, max_length=MAX_NAME, description="What people call the key."),
    AfterValidator(_told(validate_name)),
]
Scope = Annotated[str, Field(min_length=1, max_length=_LONGEST_SCOPE), AfterValidator(_grantable)]
ScopeList = Annotated[
    list[Scope],
    Field(
        max_length=MAX_SCOPES,
        json_schema_extra={"uniqueItems": True},
        description="What the key may do: scopes that the caller holds, or wildcards over them such as `skills:*`.",
    ),
    AfterValidator(_once),
]
AppName = Annotated[
    str,
    Field(min_length=1, max_length=MAX_NAME, description="What users are shown."),
    AfterValidator(_told(validate_name)),
]
AppScopes = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=_LONGEST_SCOPE), AfterValidator(_for_apps)]],
    Field(
        max_length=MAX_SCOPES,
        json_schema_extra={"uniqueItems": True},
        description="The most that the app may ask for: scopes that the caller holds, by name.",
    ),
    AfterValidator(_unrepeated),
]
RedirectUris = Annotated[
    list[
        Annotated[
            str,
            Field(min_length=1, max_length=MAX_URI),
            AfterValidator(_told(lambda uri: checked_redirect_uris([uri])[0])),
        ]
    ],
    Field(max_length=MAX_URIS, description="Where users are sent back to, compared byte by byte."),
]
GrantTypes = Annotated[
    list[Literal["authorization_code", "refresh_token", "client_credentials"]],
    Field(max_length=len(GRANT_TYPES), json_schema_extra={"uniqueItems": True}, description="What it may ask by."),
    AfterValidator(_unrepeated),
]
HeldScopes = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=_LONGEST_SCOPE), AfterValidator(_held)]],
    Field(max_length=MAX_SCOPES, json_schema_extra={"uniqueItems": True}, description="Scopes that the caller holds."),
    AfterValidator(_unrepeated),
]
Network = Annotated[
    str, Field(min_length=1, max_length=_LONGEST_NETWORK), AfterValidator(_told(lambda text: parse_network(text)[0]))
]
NetworkList = Annotated[
    list[Network],
    Field(
        max_length=MAX_NETWORKS,
        description="Addresses and networks in CIDR that the key may be used from; none: from anywhere.",
    ),
]
Environment = Annotated[Literal["live", "test"], AfterValidator(_ours)]
Moment = Annotated[
    float,
    BeforeValidator(_told(_moment)),
    WithJsonSchema({"type": "string", "format": "date-time", "maxLength": 35}),
]
LaterMoment = Annotated[Moment, AfterValidator(_later)]
PairName = Annotated[str, Field(min_length=1, max_length=MAX_PAIR_KEY)]
PairValue = Annotated[str, Field(max_length=MAX_PAIR_VALUE)]
Metadata = Annotated[
    dict[PairName, PairValue],
    Field(max_length=MAX_PAIRS, description="Pairs of your own, kept as they are: no secrets."),
    AfterValidator(_told(validate_metadata)),
]
# A query's own: there everything comes as text.
PageSize = Annotated[int, Field(ge=1, le=MAX_PAGE, description="How many at most."), BeforeValidator(_digits)]
Flag = Annotated[bool, BeforeValidator(_flag)]
