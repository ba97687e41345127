"""Hosts for pages with session cookies: the pages are served at their own host only, and upstreams never are.

A script of an upstream on the same origin could read these pages and submit their forms. Browsers separate origins by
scheme, host and port, but cookies by the host name only (RFC 6265 §8.5).
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.network.address import format_address, parse_address
from machpay_gateway.core.text import quote_value

_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_PORT = 65535
# RFC 3986 §3.2.2: a name or an IPv4 address, or an IPv6 address in brackets; §3.2.3: a port, which may be empty.
_HOST = re.compile(
    rb"(?:(?P<name>[A-Za-z0-9._~-]{1,255})|\[(?P<address>[0-9A-Fa-f:.]{2,45})\])(?::(?P<port>[0-9]{0,5}))?"
)


class Host(NamedTuple):
    """A host from a Host field: *name* in lower case without a trailing dot, *port* None when it is left out."""

    name: str
    port: int | None


class BoundPages(NamedTuple):
    """The pages at and below *paths*, which a *setting* binds to the *host* of its *url*."""

    setting: str
    url: str
    host: Host
    default_port: int
    paths: tuple[str, ...]

    def has(self, path: str) -> bool:
        """Tell whether canonical *path* belongs to these pages."""
        return any(path == page or path.startswith(f"{page}/") for page in self.paths)

    def is_at(self, host: Host | None) -> bool:
        """Tell whether *host* is that of these pages, port included."""
        if host is None or host.name != self.host.name:
            return False
        return (self.default_port if host.port is None else host.port) == self.host.port


class PageHosts(NamedTuple):
    """All *pages* that are bound to hosts."""

    pages: tuple[BoundPages, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """All paths that pages are at or below."""
        return tuple(path for pages in self.pages for path in pages.paths)

    def pages_at(self, path: str) -> BoundPages | None:
        """Return the pages that canonical *path* belongs to."""
        return next((pages for pages in self.pages if pages.has(path)), None)

    def reserved_by(self, hosts: bytes | None) -> BoundPages | None:
        """Return the pages that one of *hosts* is reserved for, on any port; *hosts* is the value of a header field."""
        for text in (hosts or b"").split(b","):
            host = parse_host(text.strip(b" \t"))
            if host is not None and (pages := self._pages_by_host_name(host.name)) is not None:
                return pages
        return None

    def refusal(
        self, path: str, host: bytes | None, forwarded_host: bytes | None = None, *, is_ours: bool
    ) -> str | None:
        """Return why *path* is not served at this host, None when it is.

        *host* is the request's Host, *forwarded_host* the X-Forwarded-Host of a trusted proxy. *is_ours* is True for a
        path that the gateway serves itself: except for the pages, these need no cookie and are served on every host.
        """
        pages = self.pages_at(path)
        if pages is not None:
            is_forwarded = forwarded_host is not None and parse_host(forwarded_host) is not None
            reached_at = forwarded_host if is_forwarded else host
            return None if pages.is_at(parse_host(reached_at or b"")) else _elsewhere(pages, reached_at)
        if is_ours:
            return None
        for named in (host, forwarded_host):
            if (reserving := self.reserved_by(named)) is not None:
                return _reserved(reserving, named)
        return None

    def refusal_to_forward(self, path: str, host: bytes | None) -> str | None:
        """Return why another proxy may not forward a request to its upstream, None when it may."""
        pages = self.pages_at(path)
        if pages is not None:
            return (
                f"the pages of {pages.setting} are served by the gateway: have the proxy send all requests for "
                f"{pages.url} to it, without forward authentication"
            )
        reserving = self.reserved_by(host)
        return None if reserving is None else _reserved(reserving, host)

    def _pages_by_host_name(self, name: str) -> BoundPages | None:
        return next((pages for pages in self.pages if pages.host.name == name), None)


def bound_pages(setting: str, url: str, paths: tuple[str, ...]) -> BoundPages:
    """Return the pages at *paths* that a *setting* binds to the host of its *url*.

    Raises ConfigurationError for a host that no Host field can name.
    """
    default_port = _DEFAULT_PORTS[urlsplit(url).scheme]
    host = parse_host(_netloc(url))
    if host is None:
        raise ConfigurationError(f"{setting} {url!r}: no request can name that host")
    port = default_port if host.port is None else host.port
    return BoundPages(setting, url, Host(host.name, port), default_port, paths)


def page_hosts(pages: Iterable[BoundPages]) -> PageHosts | None:
    """Return the hosts of *pages*; None without any."""
    bound = tuple(pages)
    return PageHosts(bound) if bound else None


def shared_hosts(hosts: PageHosts | None, api_url: str | None, audience: str | None) -> Iterator[str]:
    """Yield a warning for each page host that is also configured as the API's host: the API is not served there.

    *api_url* is `console.api_url`, *audience* is `oauth.audience`; None for a setting that is not there.
    """
    if hosts is None:
        return
    shared: dict[str, list[str]] = {}
    for setting, url in (("console.api_url", api_url), ("oauth.audience", audience)):
        if url is not None and (pages := hosts.reserved_by(_netloc(url))) is not None:
            shared.setdefault(pages.host.name, []).append(setting)
    for name, settings in shared.items():
        bound = [pages.setting for pages in hosts.pages if pages.host.name == name]
        yield (
            f"{' and '.join(bound)} and {' and '.join(settings)} name the same host, {name}: only the pages and the "
            f"gateway's own API are served there, and no upstream or application; give the pages a host of their own, "
            f"such as console.example.com, or set {' and '.join(settings)} to the URL of the API"
        )


def parse_host(text: bytes) -> Host | None:
    """Return the host in *text*, the value of a Host field; None when it is malformed."""
    match = _HOST.fullmatch(text)
    if match is None or int(match["port"] or 0) > _MAX_PORT:
        return None
    port = int(match["port"]) if match["port"] else None
    # One spelling for each address: browsers shorten IPv6 addresses.
    position = parse_address(match["address"].decode()) if match["address"] else None
    if match["address"]:
        return None if position is None else Host(format_address(position), port)
    name = match["name"].decode().lower().rstrip(".")
    return Host(name, port) if name else None


def _netloc(url: str) -> bytes:
    return urlsplit(url).netloc.encode()


def _quoted_host(host: bytes | None) -> str:
    return "a request without Host" if host is None else quote_value(host.decode("latin-1"))


def _elsewhere(pages: BoundPages, host: bytes | None) -> str:
    return (
        f"the pages of {pages.setting} are served at {pages.url} only, not at {_quoted_host(host)}; if users reach "
        f"them there, set {pages.setting} to that URL, and have the proxy in front pass on Host or X-Forwarded-Host"
    )


def _reserved(pages: BoundPages, host: bytes | None) -> str:
    return (
        f"{_quoted_host(host)} is the host of {pages.setting}, where no upstream or application is served; give "
        f"{pages.setting} a host of its own, such as console.example.com"
    )
