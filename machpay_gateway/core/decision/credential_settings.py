"""The `[credentials]` table: where requests may have their credential."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from machpay_gateway.core.errors import ConfigurationError

AUTHORIZATION = "Authorization"
PROTOCOL_PREFIX = "machpay.bearer."  # of the WebSocket subprotocol that has the credential after it
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_PARAMETER = re.compile(r"[A-Za-z0-9._~-]{1,64}")
# What these say is read by the gateway, by servers or by browsers, and is forwarded, replaced or logged.
_TAKEN = re.compile(
    r"host|cookie|connection|keep-alive|te|trailer|transfer-encoding|upgrade|expect|via|date|range|vary|origin|referer|dpop"
    r"|forwarded|x-request-id|user-agent|traceparent|tracestate|(accept|content|if|proxy|sec|access-control)(-.*)?"
    r"|(x-forwarded|x-original|x-machpay|machpay)-.*"
)


@dataclass(frozen=True, slots=True)
class CredentialSettings:
    """Where requests may have their credential.

    *headers* are the headers: Authorization with a scheme (Bearer, DPoP, or Basic with the key as user name), any other
    with the key or token alone. *query* is the name of a query parameter, None for none. *subprotocol* is whether a
    WebSocket may offer the credential as a subprotocol after `PROTOCOL_PREFIX`. Raises ConfigurationError.
    """

    headers: Sequence[str] = (AUTHORIZATION,)
    query: str | None = None
    subprotocol: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "headers", _validate_headers(self.headers))
        object.__setattr__(self, "query", _validate_query(self.query))
        if type(self.subprotocol) is not bool:
            raise ConfigurationError(f"subprotocol is true or false, not {self.subprotocol!r}")
        if not self.headers and self.query is None:
            raise ConfigurationError('headers is empty, and no query is set: name a header, such as "Authorization"')

    @property
    def takes_authorization(self) -> bool:
        """Whether Authorization is one of the headers. If not, it is the application's own."""
        return AUTHORIZATION in self.headers

    @property
    def other_headers(self) -> tuple[str, ...]:
        """The headers besides Authorization, as they are spelled in the settings."""
        return tuple(name for name in self.headers if name != AUTHORIZATION)


def _validate_headers(setting: object) -> tuple[str, ...]:
    names = [part.strip() for part in setting.split(",")] if isinstance(setting, str) else setting
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ConfigurationError(f"headers is a list of header names, not {setting!r}")
    validated = tuple(_validate_header(name) for name in names if name)
    if len({name.lower() for name in validated}) < len(validated):
        raise ConfigurationError(f"headers names a header twice: {', '.join(validated)}")
    return validated


def _validate_header(name: str) -> str:
    if not _HEADER.fullmatch(name):
        raise ConfigurationError(f"headers: {name!r} is not the name of a header")
    if _TAKEN.fullmatch(name.lower()):
        raise ConfigurationError(
            f"headers: {name!r} has another meaning, and cannot hold a credential: use a header such as X-API-Key"
        )
    return AUTHORIZATION if name.lower() == AUTHORIZATION.lower() else name


def _validate_query(setting: object) -> str | None:
    if setting is None or setting == "":  # as the environment unsets it
        return None
    if not isinstance(setting, str) or not _PARAMETER.fullmatch(setting):
        raise ConfigurationError(
            f"query {setting!r} is not the name of a query parameter: use letters, digits and . _ ~ -, as in api_key"
        )
    return setting
