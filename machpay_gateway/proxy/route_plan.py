"""How the requests of one route are forwarded: where to, with which settings, and what is changed of their heads."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from machpay_gateway.core.decision.policy import PREFLIGHT
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.network.proxy_settings import CLIENT_HOST, UPSTREAM_HOST, ProxySettings
from machpay_gateway.proxy.heads import PSEUDONYM
from machpay_gateway.proxy.pool import ServerPool

if TYPE_CHECKING:
    from machpay_gateway.core.network.header_rules import HeaderRules

_VIA = re.compile(rb"\r\nVia: [12]\.[01] " + PSEUDONYM + rb"(?=\r\n)")
_PREFIX = b"\r\nX-Forwarded-Prefix: "
NO_AUTHORITY = b"\x00"  # in the place of the server's name, until a server is picked


class Destination(NamedTuple):
    """Where the requests of one service and environment go.

    *base* is the path of the servers' addresses. *authority* is their name and port as Host has them, None if they have
    several.
    """

    pool: ServerPool
    base: bytes
    authority: bytes | None


class AdaptedHead(NamedTuple):
    """The head of a request as its upstream gets it. *path* is its path, None if that is the authorized one.

    *follows_server* says that Host is `NO_AUTHORITY`, for the name of the server that is picked.
    """

    head: bytes
    path: str | None
    follows_server: bool


class RoutePlan:
    """The plan of one route, made once. *destinations* are by environment, and by `public`."""

    __slots__ = ("destinations", "host", "is_plain", "is_preflight", "options", "response_rules", "rewriting", "rules")

    def __init__(self, route: Route, options: ProxySettings, destinations: Mapping[str, Destination]) -> None:
        self.options = options
        self.destinations = destinations
        self.rewriting = route.rewriting
        self.host = options.host
        self.rules: HeaderRules | None = options.request_rules
        self.response_rules: HeaderRules | None = options.response_rules
        self.is_preflight = route is PREFLIGHT
        self.is_plain = (
            self.rewriting is None
            and self.rules is None
            and self.host == CLIENT_HOST
            and options.via
            and not self.is_preflight
            and not any(destination.base for destination in destinations.values())
        )

    def adapt(self, head: bytes, path: str | None, host: bytes | None, destination: Destination) -> AdaptedHead | None:
        """Return *head*, of a request to the decoded *path* at *host*, as an upstream at *destination* gets it.

        None if the route's template does not match the path, which is then not forwarded.
        """
        end = head.index(b"\r\n")
        (method, target, version), fields = head[:end].split(b" "), head[end:]
        raw, mark, query = target.partition(b"?")
        sent = raw
        if self.rewriting is not None:
            rewritten = None if path is None else self.rewriting.apply(path, raw)
            if rewritten is None:
                return None
            sent = rewritten
            if self.rewriting.stripped:
                fields = _with_prefix(fields, self.rewriting.prefix.encode())
        sent = destination.base + sent
        name = self._host_for(host, destination)
        if name != host:
            fields = with_authority(fields, host or b"", name)
        if not self.options.via:
            fields = _without_via(fields)
        start = b"%b %b%b%b %b%b" % (method, sent, mark, query, version, fields)
        if self.rules is not None:
            start = self.rules.apply(start[:-2]) + b"\r\n"
        return AdaptedHead(start, None if sent == raw else sent.decode("ascii"), name == NO_AUTHORITY)

    def _host_for(self, host: bytes | None, destination: Destination) -> bytes:
        if self.host not in {CLIENT_HOST, UPSTREAM_HOST}:
            return self.host.encode()
        if self.host == CLIENT_HOST and host is not None:
            return host
        return NO_AUTHORITY if destination.authority is None else destination.authority


def _without_via(fields: bytes) -> bytes:
    """Return *fields* without the gateway's own entry in Via, which comes after all that the client has sent."""
    *_, ours = _VIA.finditer(fields)
    return fields[: ours.start()] + fields[ours.end() :]


def _with_prefix(fields: bytes, prefix: bytes) -> bytes:
    """Return *fields* with *prefix* at the end of X-Forwarded-Prefix, which a trusted proxy may have begun."""
    at = fields.find(_PREFIX)
    if at < 0:
        return fields[:-2] + _PREFIX[2:] + prefix + b"\r\n\r\n"
    end = fields.index(b"\r\n", at + len(_PREFIX))
    return fields[:end] + prefix + fields[end:]


def with_authority(head: bytes, before: bytes, authority: bytes) -> bytes:
    """Return *head* with the Host *authority* in place of the one *before*."""
    return head.replace(b"\r\nHost: %b\r\n" % before, b"\r\nHost: %b\r\n" % authority, 1)
