"""The head of a request as its upstream gets it: the client's lines, where it comes from, and who the caller is."""

import re
from functools import lru_cache
from typing import NamedTuple

from machpay_gateway.core.brand import Brand
from machpay_gateway.core.decision.identity_headers import identity_fields
from machpay_gateway.core.decision.principal import Anonymous, Principal
from machpay_gateway.core.network.address import format_address
from machpay_gateway.proxy.header_fields import lines_without
from machpay_gateway.proxy.heads import PSEUDONYM, RequestHead
from machpay_gateway.telemetry.own_requests import OWN_REQUEST_HEADER
from machpay_gateway.web.request_facts import PEER_HEADER

_VERSIONS = (b"1.0", b"1.1", b"2.0")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HOST = re.compile(rb"(?:[A-Za-z0-9.-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_PORT = re.compile(rb"[0-9]{1,5}")
_PREFIX = re.compile(rb"/[A-Za-z0-9\-._~!$&'()*+,;=:@%/]{0,1024}")  # RFC 3986 §3.3, undecoded
_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"upgrade", b"expect", PEER_HEADER, OWN_REQUEST_HEADER})
_TRACE_CONTEXT = frozenset({b"traceparent", b"tracestate"})
# They frame the request and route it. Connection must not remove them: a body would be read as requests.
_NEVER_HOP_BY_HOP = frozenset({b"content-length", b"transfer-encoding", b"host"})
_SCHEMES = frozenset({b"http", b"https"})
_new = tuple.__new__  # half the cost of a NamedTuple's own constructor

Hops = tuple[int | None, ...]  # addresses from the client to our peer; None is one that cannot be parsed


class ForwardedInfo(NamedTuple):
    """The content of Forwarded (RFC 7239): *hops* from the client up to our peer, and its *scheme* and *host*.

    *more* are lines of our peer's that are passed on: the client's port, and the prefix that was stripped of its path.
    """

    hops: Hops
    scheme: bytes
    host: bytes | None
    more: bytes = b""


def forwarded_info(request: RequestHead, hops: Hops, scheme: bytes, *, is_trusted: bool) -> ForwardedInfo:
    """Return where *request* comes from; X-Forwarded-Proto, -Host, -Port and -Prefix count if the peer *is_trusted*."""
    host, more = request.host, b""
    if is_trusted:
        if request.forwarded_proto in _SCHEMES:
            scheme = request.forwarded_proto or scheme
        if request.forwarded_host and _HOST.fullmatch(request.forwarded_host):
            host = request.forwarded_host
        if request.forwarded_port and _PORT.fullmatch(request.forwarded_port):
            more = b"\r\nX-Forwarded-Port: " + request.forwarded_port
        if request.forwarded_prefix and _PREFIX.fullmatch(request.forwarded_prefix):
            more += b"\r\nX-Forwarded-Prefix: " + request.forwarded_prefix
    return _new(ForwardedInfo, (hops, scheme, host, more))


def upstream_head(  # noqa: PLR0913 - all that it depends on
    request: RequestHead,
    forwarded: ForwardedInfo,
    principal: Principal | Anonymous | None,
    request_id: bytes,
    brand: Brand,
    *,
    authorization: tuple[bytes, ...] = (),
    assertion: bytes = b"",
    lines: bytes = b"",
    is_http2: bool = False,
) -> bytes:
    """Return the head of *request* for the upstream, with the caller's *authorization* if that is forwarded.

    *assertion* is a signed statement about the caller, *lines* are those of the trace context
    and of the client's certificate. *is_http2* says that the request came over HTTP/2.
    """
    hops, scheme, host, more = forwarded
    version = 2 if is_http2 else request.minor
    added = gateway_lines(principal, hops, scheme, request.host, host, version, brand.header_prefix)
    end = b"\r\n" + lines + request.framing
    if assertion:
        end += b"%b: %b\r\n" % (brand.assertion_header.encode(), assertion)
    for value in authorization:
        end += b"Authorization: %b\r\n" % value
    return b"".join((request.start, added, more, b"\r\nX-Request-Id: ", request_id, end, b"\r\n"))


def control_plane_head(head: bytes, cookies: tuple[bytes, ...], own_request: bytes) -> bytes:
    """Return *head* with what only the gateway's control plane may get: its *cookies*, and the name *own_request*."""
    lines = b"".join(b"Cookie: %b\r\n" % value for value in cookies)
    return b"%b%b%b: %b\r\n\r\n" % (head[:-2], lines, OWN_REQUEST_HEADER, own_request)


def verbatim_head(raw: bytes, request: RequestHead, peer: str, trace: bytes = b"") -> bytes:
    """Return the *raw* head of *request* without hop-by-hop headers, with the address of our *peer* added.

    *trace*, if any, replaces the trace context of the request.
    """
    first, *lines = raw[:-4].split(b"\r\n")
    dropped = _HOP_BY_HOP | ((request.connection or frozenset()) - _NEVER_HOP_BY_HOP)
    end_to_end = lines_without(lines, dropped | _TRACE_CONTEXT if trace else dropped)
    return b"\r\n".join((first, *end_to_end, PEER_HEADER + b": " + peer.encode(), trace + b"\r\n"))


@lru_cache(maxsize=4096)  # a changed record makes a new principal, so this needs no invalidation
def gateway_lines(  # noqa: PLR0917 - a cache is cheapest with positional arguments
    principal: Principal | Anonymous | None,
    hops: Hops,
    scheme: bytes,
    host: bytes | None,
    client_host: bytes | None,
    version: int,
    prefix: str,
) -> bytes:
    """Return the header lines that the gateway writes, without the last CR LF: Host, forwarding and identity headers.

    *host* is the request's own, *client_host* the one that the client requested from a proxy in front of us. The names
    of identity headers begin with *prefix*.
    """
    addresses = [None if address is None else format_address(address) for address in hops]
    # RFC 9112 §3.2: every request has a Host; it is empty if a client of HTTP/1.0 has sent none.
    lines = [b"Host: " + (host or b"")]
    lines.append(b"X-Forwarded-For: " + ", ".join(address or "unknown" for address in addresses).encode())
    lines.append(b"X-Forwarded-Proto: " + scheme)
    first = f"for={_node(addresses[0])};proto={scheme.decode()}"
    if client_host is not None:
        lines.append(b"X-Forwarded-Host: " + client_host)
        first += f";host={_quoted(client_host.decode('latin-1'))}"
    elements = [first, *(f"for={_node(address)}" for address in addresses[1:])]
    lines.append(b"Forwarded: " + ", ".join(elements).encode("latin-1"))
    lines.append(b"Via: " + _VERSIONS[version] + b" " + PSEUDONYM)
    if isinstance(principal, Principal):
        lines += (f"{name}: {value}".encode() for name, value in identity_fields(principal, prefix))
    return b"\r\n".join(lines)


def _node(address: str | None) -> str:
    # RFC 7239 §6: an IPv6 address is in brackets, and therefore quoted.
    if address is None:
        return "unknown"
    return f'"[{address}]"' if ":" in address else address


def _quoted(value: str) -> str:
    return value if _TOKEN.fullmatch(value) else f'"{value}"'
