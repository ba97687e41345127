"""Upstreams: where requests are forwarded to."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.network.upstream_options import UpstreamOptions

# Unambiguous URLs only: no user and password, query, backslash or space in which a parser could see another host.
_ORIGIN = re.compile(
    r"(?P<scheme>https?|h2c?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?)"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<path>(?:/[A-Za-z0-9\-._~!$&'()*+,;=:@]+)*)/?"
)
_UNIX_PATH = re.compile(r"unix:(?P<path>/(?:[^/\0:]+/)*[^/\0:]+)")  # a colon would end the path in other proxies
_PORTS = {"http": 80, "https": 443, "h2c": 80, "h2": 443}
_WITH_TLS = frozenset({"https", "h2"})
_HTTP2 = frozenset({"h2", "h2c"})
_MAX_PORT = 65535
_MAX_WEIGHT = 1000
UNIX = "unix"
MAX_PATH_BYTES = 107  # sockaddr_un has 108, of which one ends the path


class Origin(NamedTuple):
    """The address of an upstream server, and its *weight*: its share of the requests.

    The scheme is `http` or `https`, and for a server that speaks HTTP/2 `h2c` or, over TLS, `h2`.
    One at a Unix socket has the scheme `unix`, its path as host, and no port. Another one may have a *path*, as
    `/base`, that comes before the paths of requests.
    """

    scheme: str
    host: str  # an IPv6 address without its brackets
    port: int
    weight: int = 1
    path: str = ""

    @property
    def has_tls(self) -> bool:
        """Whether connections use TLS."""
        return self.scheme in _WITH_TLS

    @property
    def is_http2(self) -> bool:
        """Whether the server speaks HTTP/2."""
        return self.scheme in _HTTP2

    @property
    def authority(self) -> str:
        """The host, and the port unless it is the scheme's own, as in Host (RFC 9110 §7.2)."""
        if self.scheme == UNIX:
            return "localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        if self.scheme == UNIX:
            return f"{UNIX}:{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse_origin(url: object) -> Origin:
    """Return the origin of *url*. Raises ConfigurationError for a URL with more than scheme, host, port and path."""
    if not isinstance(url, str):
        raise ConfigurationError("is not text")
    if (unix := _UNIX_PATH.fullmatch(url)) and len(unix["path"].encode()) <= MAX_PATH_BYTES:
        return Origin(UNIX, unix["path"], 0)
    match = _ORIGIN.fullmatch(url)
    port = int(match["port"] or _PORTS[match["scheme"]]) if match else 0
    if match is None or not 0 < port <= _MAX_PORT or not {".", ".."}.isdisjoint(match["path"].split("/")):
        raise ConfigurationError("is not an address such as http://127.0.0.1:9000: no user and password, no query")
    return Origin(match["scheme"], match["host"].strip("[]"), port, path=match["path"])


def parse_server(server: object) -> Origin:
    """Return the origin of *server*: its URL, or a table with `url` and `weight`. Raises ConfigurationError."""
    if not isinstance(server, Mapping):
        return parse_origin(server)
    if unknown := sorted(map(str, server.keys() - {"url", "weight"})):
        raise ConfigurationError(f"{unknown[0]!r} is not a setting of a server; known: url, weight")
    weight = server.get("weight", 1)
    if type(weight) is not int or not 1 <= weight <= _MAX_WEIGHT:
        raise ConfigurationError(f"weight is a whole number from 1 to {_MAX_WEIGHT}, not {weight!r}")
    return parse_origin(server.get("url"))._replace(weight=weight)


@dataclass(frozen=True, slots=True)
class Upstream:
    """The upstream of one environment: any of its *origins* can serve a request. Raises ConfigurationError."""

    origins: tuple[Origin, ...]
    options: UpstreamOptions = field(default_factory=UpstreamOptions)

    def __post_init__(self) -> None:
        if len({origin.path for origin in self.origins}) > 1:
            raise ConfigurationError("names servers with different paths: any of them gets the same request")

    @property
    def path(self) -> str:
        """The path of the addresses, which is the same for all."""
        return self.origins[0].path if self.origins else ""

    @classmethod
    def of(cls, servers: str | Sequence[object], options: UpstreamOptions | None = None) -> "Upstream":
        """Return the upstream of one URL, or of several servers. Raises ConfigurationError."""
        origins = tuple(parse_server(server) for server in ([servers] if isinstance(servers, str) else servers))
        return cls(origins, options or UpstreamOptions())
