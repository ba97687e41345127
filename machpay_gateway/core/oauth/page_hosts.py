"""Hosts of the pages that know users by a cookie: these are answered there alone, and nothing of an upstream is.

A script of an upstream could read these pages and submit their forms if it came from the same host. Browsers keep
origins apart, ports included; cookies they keep apart by the host's name alone (RFC 6265 §8.5).
"""

import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.network.address import format_address, parse_address
from machpay_gateway.core.oauth.settings import PAGE_PATHS, OAuthSettings
from machpay_gateway.core.text import quoted

CONSOLE_PATH = "/console"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_PORT = 65535
# RFC 3986 §3.2.2: a name or an IPv4 address, or an IPv6 address in brackets; §3.2.3: a port, which may be empty.
_HOST = re.compile(
    rb"(?:(?P<name>[A-Za-z0-9._~-]{1,255})|\[(?P<address>[0-9A-Fa-f:.]{2,45})\])(?::(?P<port>[0-9]{0,5}))?"
)


class Host(NamedTuple):
    """A host as a request names it: *name* in lower case without a dot at its end, *port* None for the default one."""

    name: str
    port: int | None


class BoundPages(NamedTuple):
    """The pages that a *setting* binds to the *host* of its *url*: those at *paths*, and all that is below them."""

    setting: str
    url: str
    host: Host
    default_port: int
    paths: tuple[str, ...]

    def has(self, path: str) -> bool:
        """Tell whether canonical *path* belongs to these pages."""
        return any(path == page or path.startswith(f"{page}/") for page in self.paths)

    def is_at(self, host: Host | None) -> bool:
        """Tell whether *host* is where these pages are, port included."""
        if host is None or host.name != self.host.name:
            return False
        return (self.default_port if host.port is None else host.port) == self.host.port


class PageHosts(NamedTuple):
    """All *pages* that are bound to hosts."""

    pages: tuple[BoundPages, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths that all pages are at or below."""
        return tuple(path for pages in self.pages for path in pages.paths)

    def pages_at(self, path: str) -> BoundPages | None:
        """Return the pages that canonical *path* belongs to."""
        return next((pages for pages in self.pages if pages.has(path)), None)

    def reserved_by(self, hosts: bytes | None) -> BoundPages | None:
        """Return the pages that one of *hosts*, a field's value, is reserved for, whatever the port."""
        for text in (hosts or b"").split(b","):
            host = parse_host(text.strip(b" \t"))
            if host is not None and (found := self._named(host.name)) is not None:
                return found
        return None

    def refusal(
        self, path: str, host: bytes | None, forwarded_host: bytes | None = None, *, is_ours: bool
    ) -> str | None:
        """Return why *path* is not answered at this host, None when it is.

        *host* is the request's Host, *forwarded_host* the X-Forwarded-Host of a trusted proxy. *is_ours* tells whether
        the gateway serves the path itself: what is no page of these needs no cookie, and is answered on every host.
        """
        pages = self.pages_at(path)
        if pages is not None:
            is_told = forwarded_host is not None and parse_host(forwarded_host) is not None
            reached_at = forwarded_host if is_told else host
            return None if pages.is_at(parse_host(reached_at or b"")) else _elsewhere(pages, reached_at)
        if is_ours:
            return None
        for named in (host, forwarded_host):
            if (reserving := self.reserved_by(named)) is not None:
                return _reserved(reserving, named)
        return None

    def refusal_to_carry(self, path: str, host: bytes | None) -> str | None:
        """Return why a request that another proxy carries to its upstream may not go there, None when it may."""
        pages = self.pages_at(path)
        if pages is not None:
            return f"the pages of {pages.setting} are the gateway's: have the proxy carry {pages.url} to it, unasked"
        reserving = self.reserved_by(host)
        return None if reserving is None else _reserved(reserving, host)

    def _named(self, name: str) -> BoundPages | None:
        return next((pages for pages in self.pages if pages.host.name == name), None)


def page_hosts(console_url: str | None, authority: OAuthSettings | None) -> PageHosts | None:
    """Return where the pages of a Console at *console_url* and of an *authority* are; None without either.

    Raises ConfigurationError for a host that no Host field can name.
    """
    pages = []
    if console_url is not None:
        pages.append(_pages("console.url", console_url, (CONSOLE_PATH,)))
    if authority is not None:
        paths = tuple(authority.path + path for path in PAGE_PATHS)
        pages.append(_pages("oauth.issuer", authority.issuer, paths))
    return PageHosts(tuple(pages)) if pages else None


def shared_hosts(hosts: PageHosts | None, api_url: str | None, audience: str | None) -> Iterator[str]:
    """Yield a warning for each page host that settings also name as the API's: the API is not answered there.

    *api_url* is `console.api_url`, *audience* is `oauth.audience`; None where there is none.
    """
    if hosts is None:
        return
    shared: dict[str, list[str]] = {}
    for setting, url in (("console.api_url", api_url), ("oauth.audience", audience)):
        if url is not None and (found := hosts.reserved_by(_netloc(url))) is not None:
            shared.setdefault(found.host.name, []).append(setting)
    for name, settings in shared.items():
        bound = [pages.setting for pages in hosts.pages if pages.host.name == name]
        yield (
            f"{' and '.join(bound)} and {' and '.join(settings)} name the same host, {name}: nothing but pages and the "
            f"gateway's own API is answered there, and no upstream or application; give the pages a host of their own, "
            f"such as console.example.com, or set {' and '.join(settings)} to where the API is"
        )


def parse_host(text: bytes) -> Host | None:
    """Return the host that a Host field with the value *text* names, None for one that is not well-formed."""
    match = _HOST.fullmatch(text)
    if match is None or int(match["port"] or 0) > _MAX_PORT:
        return None
    port = int(match["port"]) if match["port"] else None
    # One spelling of an address: browsers shorten IPv6 addresses.
    position = parse_address(match["address"].decode()) if match["address"] else None
    if match["address"]:
        return None if position is None else Host(format_address(position), port)
    name = match["name"].decode().lower().rstrip(".")
    return Host(name, port) if name else None


def _pages(setting: str, url: str, paths: tuple[str, ...]) -> BoundPages:
    default_port = _DEFAULT_PORTS[urlsplit(url).scheme]
    host = parse_host(_netloc(url))
    if host is None:
        raise ConfigurationError(f"{setting} {url!r}: no request can name that host")
    port = default_port if host.port is None else host.port
    return BoundPages(setting, url, Host(host.name, port), default_port, paths)


def _netloc(url: str) -> bytes:
    return urlsplit(url).netloc.encode()


def _shown(host: bytes | None) -> str:
    return "a request without Host" if host is None else quoted(host.decode("latin-1"))


def _elsewhere(pages: BoundPages, host: bytes | None) -> str:
    return (
        f"the pages of {pages.setting} are answered at {pages.url} alone, not at {_shown(host)}; if users reach them "
        f"there, set {pages.setting} to that, and have the proxy in front pass Host or X-Forwarded-Host on"
    )


def _reserved(pages: BoundPages, host: bytes | None) -> str:
    return (
        f"{_shown(host)} is the host of {pages.setting}, where no upstream or application is answered; give "
        f"{pages.setting} a host of its own, such as console.example.com"
    )
