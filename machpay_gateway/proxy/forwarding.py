"""What an upstream is sent of a request: its own lines, and what we say of where it comes from and who is calling."""

import re
from functools import lru_cache

from machpay_gateway.core.decision.identity_headers import identity_fields
from machpay_gateway.core.decision.principal import Anonymous, Principal
from machpay_gateway.core.jose.assertion import HEADER as ASSERTION_HEADER
from machpay_gateway.core.network.address import format_address
from machpay_gateway.proxy.fields import without
from machpay_gateway.proxy.heads import PSEUDONYM, RequestHead
from machpay_gateway.web.incoming import PEER_FIELD

_VERSIONS = (b"1.0", b"1.1")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HOSTS = re.compile(rb"(?:[A-Za-z0-9.-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_ASSERTION = ASSERTION_HEADER.encode()
_OF_CONNECTIONS = frozenset({b"connection", b"keep-alive", b"upgrade", b"expect", PEER_FIELD})
_OF_TRACES = frozenset({b"traceparent", b"tracestate"})
# Where the request ends and for whom it is, even if Connection names them: a body would be read as requests.
_NEVER_NAMED = frozenset({b"content-length", b"transfer-encoding", b"host"})
_SCHEMES = frozenset({b"http", b"https"})


class Hop:
    """Where a request came from: the *walk* from the client to our peer, and by which *scheme* and *host*."""

    __slots__ = ("host", "scheme", "walk")

    def __init__(self, walk: tuple[int | None, ...], scheme: bytes, host: bytes | None) -> None:
        """Take what is seen on the connection: *scheme*, and the request's *host*."""
        self.walk = walk
        self.scheme = scheme
        self.host = host

    def believe(self, request: RequestHead) -> None:
        """Take the word of a trusted peer for the scheme and host by which it was reached."""
        if request.forwarded_proto in _SCHEMES:
            self.scheme = request.forwarded_proto or self.scheme
        if request.forwarded_host and _HOSTS.fullmatch(request.forwarded_host):
            self.host = request.forwarded_host


def upstream_head(
    request: RequestHead,
    hop: Hop,
    principal: Principal | Anonymous | None,
    request_id: bytes,
    *,
    authorization: tuple[bytes, ...] = (),
    assertion: bytes = b"",
    trace: bytes = b"",
) -> bytes:
    """Return the head of *request* as the upstream gets it, with the caller's *authorization* if that goes on.

    An *assertion* is a signed word about the caller, *trace* lines that say of which trace the request is a part.
    """
    said = said_by_us(principal, hop.walk, hop.scheme, request.host, hop.host, request.minor)
    end = b"\r\n" + trace + request.framing
    if assertion:
        end += b"%b: %b\r\n" % (_ASSERTION, assertion)
    for value in authorization:
        end += b"Authorization: %b\r\n" % value
    return b"".join((request.start, said, b"\r\nX-Request-Id: ", request_id, end, b"\r\n"))


def with_cookies(head: bytes, cookies: tuple[bytes, ...]) -> bytes:
    """Return *head* with the gateway's own *cookies*, which are for its control plane alone."""
    lines = b"".join(b"Cookie: %b\r\n" % value for value in cookies)
    return head[:-2] + lines + b"\r\n" if lines else head


def verbatim_head(raw: bytes, request: RequestHead, peer: str, trace: bytes = b"") -> bytes:
    """Return the *raw* head of *request*, less what concerns its connection, with the address of our *peer*.

    Lines of a *trace* take the place of those that the request has.
    """
    first, *lines = raw[:-4].split(b"\r\n")
    ended = _OF_CONNECTIONS | ((request.connection or frozenset()) - _NEVER_NAMED)
    kept = without(lines, ended | _OF_TRACES if trace else ended)
    return b"\r\n".join((first, *kept, PEER_FIELD + b": " + peer.encode(), trace + b"\r\n"))


@lru_cache(maxsize=4096)  # by the principal itself, which is a new one whenever its record has changed
def said_by_us(  # noqa: PLR0917 - what is remembered is found by position at least cost
    principal: Principal | Anonymous | None,
    walk: tuple[int | None, ...],
    scheme: bytes,
    host: bytes | None,
    told_host: bytes | None,
    minor: int,
) -> bytes:
    """Return the header lines that we write, without the last line's end: Host, who is behind whom, and who calls.

    *host* is the request's own, *told_host* that of the request that the client has made to whoever is in front of us.
    """
    hops = [None if address is None else format_address(address) for address in walk]
    # RFC 9112 §3.2: Host is in every request, and says nothing where the client, of HTTP/1.0, has named none.
    lines = [b"Host: " + (host or b"")]
    lines.append(b"X-Forwarded-For: " + ", ".join(hop or "unknown" for hop in hops).encode())
    lines.append(b"X-Forwarded-Proto: " + scheme)
    first = f"for={_node(hops[0])};proto={scheme.decode()}"
    if told_host is not None:
        lines.append(b"X-Forwarded-Host: " + told_host)
        first += f";host={_quoted(told_host.decode('latin-1'))}"
    lines.append(b"Forwarded: " + ", ".join([first, *(f"for={_node(hop)}" for hop in hops[1:])]).encode("latin-1"))
    lines.append(b"Via: " + _VERSIONS[minor] + b" " + PSEUDONYM)
    if isinstance(principal, Principal):
        lines += (f"{name}: {value}".encode() for name, value in identity_fields(principal))
    return b"\r\n".join(lines)


def _node(hop: str | None) -> str:
    # RFC 7239 §6: an IPv6 address stands in brackets, and so in quotes.
    if hop is None:
        return "unknown"
    return f'"[{hop}]"' if ":" in hop else hop


def _quoted(value: str) -> str:
    return value if _TOKEN.fullmatch(value) else f'"{value}"'
