"""Settings of the reverse proxy: timeouts, the size of bodies, and the headers that are forwarded."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.network.header_rules import HeaderRules, parse_header_rules
from machpay_gateway.core.network.trusted_headers import validate_pass_headers

HEAD_BYTES = 1024, 256 * 1024  # the least and the most: a head is searched for its end with each packet
_FOR_ALL_ROUTES = {
    "pass_headers": "whether a header passes is decided before the route is known",
    "max_response_head_bytes": "responses of an upstream are read by one reader",
}
_FOR_SERVICES = {"via": "responses of a service are read by one reader"}
_HOST = re.compile(r"(?:[A-Za-z0-9\-._~]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
CLIENT_HOST, UPSTREAM_HOST = "client", "upstream"
ALLOW = "allow"
PathChoice = Literal["refuse", "allow"]
_PATH_CHOICES = ("encoded_slash", "double_slash", "non_utf8_escapes")


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """Settings for forwarding a request. Times are in seconds; 0 is no limit.

    *connect_seconds* limits connecting to an upstream, *first_byte_seconds* the time from the end of the request to the
    head of the response, *idle_seconds* the time without a byte in either direction, *total_seconds* the whole request.
    *tunnel_idle_seconds* is what *idle_seconds* is, for an upgraded connection.
    *max_body_bytes* limits the request's body. *forward_credentials* forwards the caller's Authorization.
    *pass_headers* are headers that upstreams trust and that are forwarded nevertheless. The head of an upstream's
    response has at most *max_response_head_bytes*.
    Paths with an *encoded_slash* (`%2F`), a *double_slash* or *non_utf8_escapes* (`%E9`) are refused or allowed: they
    are forwarded as they came, and an encoded slash is matched as part of a segment. With *buffer*, a request's body
    is complete before any of it is forwarded, and then has a length.
    *host* is the Host that the upstream gets: that of the `client`, the name of the `upstream`, or another name, which
    TLS uses too. With *via*, the gateway adds itself to Via. *request_headers* and *response_headers* are rules, as a
    table with `set`, `add` and `remove`. Raises ConfigurationError.
    """

    connect_seconds: float = 5.0
    first_byte_seconds: float = 60.0
    idle_seconds: float = 60.0
    tunnel_idle_seconds: float = 0.0
    total_seconds: float = 0.0
    max_body_bytes: int = 100 * 1024 * 1024
    forward_credentials: bool = False
    pass_headers: Sequence[str] = ()
    max_response_head_bytes: int = 32 * 1024
    encoded_slash: PathChoice = "refuse"
    double_slash: PathChoice = "refuse"
    non_utf8_escapes: PathChoice = "refuse"
    buffer: bool = False
    host: str = CLIENT_HOST
    via: bool = True
    request_headers: HeaderRules | Mapping[str, object] | None = None
    response_headers: HeaderRules | Mapping[str, object] | None = None
    request_rules: HeaderRules | None = field(init=False, repr=False, default=None)
    response_rules: HeaderRules | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        for name in ("connect_seconds", "first_byte_seconds", "idle_seconds", "tunnel_idle_seconds", "total_seconds"):
            value = getattr(self, name)
            if type(value) not in {int, float} or not 0 <= value < float("inf"):
                raise ConfigurationError(f"{name} is a number of seconds, 0 for no limit, not {value!r}")
        if type(self.max_body_bytes) is not int or self.max_body_bytes < 0:
            raise ConfigurationError(
                f"max_body_bytes is a number of bytes, 0 for no limit, not {self.max_body_bytes!r}"
            )
        value, (least, most) = self.max_response_head_bytes, HEAD_BYTES
        if type(value) is not int or not least <= value <= most:
            raise ConfigurationError(f"max_response_head_bytes is a number from {least} to {most}, not {value!r}")
        for name in ("forward_credentials", "buffer", "via"):
            if type(getattr(self, name)) is not bool:  # "false" must not forward credentials
                raise ConfigurationError(f"{name} is true or false, not {getattr(self, name)!r}")
        if self.buffer and not self.max_body_bytes:
            raise ConfigurationError("buffer needs max_body_bytes: without a limit, one request could fill the disk")
        object.__setattr__(self, "request_rules", _parse_rules("request_headers", self.request_headers))
        object.__setattr__(self, "response_rules", _parse_rules("response_headers", self.response_headers))
        self._check_choices()
        object.__setattr__(self, "pass_headers", validate_pass_headers(self.pass_headers))

    def _check_choices(self) -> None:
        if not _HOST.fullmatch(str(self.host)):
            raise ConfigurationError(f'host is "client", "upstream" or the name of a host, not {self.host!r}')
        for name in _PATH_CHOICES:
            if (choice := getattr(self, name)) not in {"refuse", ALLOW}:
                raise ConfigurationError(f'{name} is "refuse" or "allow", not {choice!r}')

    @property
    def fixed_host(self) -> str | None:
        """The name that is the Host of all requests, without a port; None unless there is one."""
        if self.host in {CLIENT_HOST, UPSTREAM_HOST}:
            return None
        return self.host.rpartition("]")[0].strip("[") or self.host.partition(":")[0]

    def with_changes(self, changes: Mapping[str, object], *, of_service: bool = False) -> "ProxySettings":
        """Return these settings with the *changes* of a route, or *of_service*; rules for headers follow the others.

        Raises ConfigurationError for an unknown name.
        """
        for name in () if of_service else _FOR_SERVICES.keys() & changes.keys():
            raise ConfigurationError(
                f"{name} holds for all routes of a service ({_FOR_SERVICES[name]}): set it there, or under [proxy]"
            )
        for name in changes:
            if name in _FOR_ALL_ROUTES:
                raise ConfigurationError(f"{name} holds for all routes ({_FOR_ALL_ROUTES[name]}): set it under [proxy]")
        names = option_names()
        for name in changes:
            if name not in names:
                raise ConfigurationError(f"{name!r} is not a setting here; known: {', '.join(names)}")
        rules = {
            name: earlier.then(_parse_rules(name, changes[name]) or HeaderRules())
            for name, earlier in (("request_headers", self.request_rules), ("response_headers", self.response_rules))
            if name in changes and earlier is not None
        }
        return replace(self, **{**changes, **rules})  # type: ignore[arg-type]  # checked by __post_init__


def option_names() -> list[str]:
    """Return the names of the settings that a service or a route may override."""
    return [field.name for field in fields(ProxySettings) if field.init and field.name not in _FOR_ALL_ROUTES]


def _parse_rules(name: str, rules: object) -> HeaderRules | None:
    if rules is None:
        return None
    try:
        return parse_header_rules(rules, of_responses=name == "response_headers")
    except ConfigurationError as exc:
        raise ConfigurationError(f"{name}: {exc}") from exc
