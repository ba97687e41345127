"""How a request is carried to its upstream: where that is, how long each step may take, how much may be sent."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

from machpay_gateway.core.believed_headers import checked_pass_headers
from machpay_gateway.core.errors import ConfigurationError

# One reading only: no user and password, path, query, backslash or space that another parser could see a host in.
_ORIGIN = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?)"
    r"(?::(?P<port>[0-9]{1,5}))?/?"
)
_PORTS = {"http": 80, "https": 443}
_MAX_PORT = 65535


class Origin(NamedTuple):
    """A server that requests are carried to."""

    scheme: str
    host: str  # an IPv6 address without its brackets
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse_origin(url: str) -> Origin:
    """Return the origin that *url* names. Raises ConfigurationError for one that has anything but host and port.

    A path of its own would make what is forwarded differ from what was authorised.
    """
    match = _ORIGIN.fullmatch(url)
    port = int(match["port"] or _PORTS[match["scheme"]]) if match else 0
    if match is None or not 0 < port <= _MAX_PORT:
        raise ConfigurationError("is not an address such as http://127.0.0.1:9000: no path, no user and password")
    return Origin(match["scheme"], match["host"].strip("[]"), port)


@dataclass(frozen=True, slots=True)
class Carriage:
    """What holds for carrying one request. Times are in seconds, 0 meaning that there is no limit.

    *connect_seconds* is for a connection to an upstream, *first_byte_seconds* from the whole request being sent to the
    head of its answer, *idle_seconds* without a byte either way, *total_seconds* for all of it. *max_body_bytes* is
    of the request's body. *forward_credentials* hands on the caller's Authorization. *pass_headers* are those that
    upstreams believe and that are handed on all the same. Raises ConfigurationError.
    """

    connect_seconds: float = 5.0
    first_byte_seconds: float = 60.0
    idle_seconds: float = 60.0
    total_seconds: float = 0.0
    max_body_bytes: int = 100 * 1024 * 1024
    forward_credentials: bool = False
    pass_headers: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("connect_seconds", "first_byte_seconds", "idle_seconds", "total_seconds"):
            value = getattr(self, name)
            if type(value) not in {int, float} or not 0 <= value < float("inf"):
                raise ConfigurationError(f"{name} is a number of seconds, 0 for no limit, not {value!r}")
        if type(self.max_body_bytes) is not int or self.max_body_bytes < 0:
            raise ConfigurationError(
                f"max_body_bytes is a number of bytes, 0 for no limit, not {self.max_body_bytes!r}"
            )
        if type(self.forward_credentials) is not bool:  # "false" must not hand credentials on
            raise ConfigurationError(f"forward_credentials is true or false, not {self.forward_credentials!r}")
        object.__setattr__(self, "pass_headers", checked_pass_headers(self.pass_headers))

    def with_changes(self, changes: Mapping[str, object]) -> "Carriage":
        """Return this with *changes*, as a route asks for. Raises ConfigurationError for an unknown one."""
        # Which headers pass is found once for each name, before it is known which route a request is for.
        if "pass_headers" in changes:
            raise ConfigurationError("pass_headers holds for all routes: set it under [proxy]")
        known = [field.name for field in fields(self) if field.name != "pass_headers"]
        for name in changes:
            if name not in known:
                raise ConfigurationError(f"{name!r} is not a setting here; known: {', '.join(known)}")
        return replace(self, **changes)  # type: ignore[arg-type]  # checked by __post_init__


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where the requests of one environment go: any of *origins*, which are the same to callers."""

    origins: tuple[Origin, ...]

    @classmethod
    def of(cls, urls: str | Sequence[str]) -> "Upstream":
        """Return the upstream of one URL or several. Raises ConfigurationError."""
        return cls(tuple(parse_origin(url) for url in ([urls] if isinstance(urls, str) else urls)))
