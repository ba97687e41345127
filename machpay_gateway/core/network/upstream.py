"""Upstreams: where requests are forwarded to."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.network.upstream_options import UpstreamOptions

# Unambiguous URLs only: no user and password, path, query, backslash or space in which a parser could see another host.
_ORIGIN = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?)"
    r"(?::(?P<port>[0-9]{1,5}))?/?"
)


_PORTS = {"http": 80, "https": 443}


_MAX_PORT = 65535


class Origin(NamedTuple):
    """The address of an upstream server."""

    scheme: str
    host: str  # an IPv6 address without its brackets
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse_origin(url: str) -> Origin:
    """Return the origin of *url*. Raises ConfigurationError for a URL with more than scheme, host and port.

    A path in it would make the forwarded path differ from the authorized one.
    """
    match = _ORIGIN.fullmatch(url)
    port = int(match["port"] or _PORTS[match["scheme"]]) if match else 0
    if match is None or not 0 < port <= _MAX_PORT:
        raise ConfigurationError("is not an address such as http://127.0.0.1:9000: no path, no user and password")
    return Origin(match["scheme"], match["host"].strip("[]"), port)


@dataclass(frozen=True, slots=True)
class Upstream:
    """The upstream of one environment: any of its *origins* can serve a request."""

    origins: tuple[Origin, ...]
    options: UpstreamOptions = field(default_factory=UpstreamOptions)

    @classmethod
    def of(cls, urls: str | Sequence[str], options: UpstreamOptions | None = None) -> "Upstream":
        """Return the upstream of one URL or several. Raises ConfigurationError."""
        origins = tuple(parse_origin(url) for url in ([urls] if isinstance(urls, str) else urls))
        return cls(origins, options or UpstreamOptions())
