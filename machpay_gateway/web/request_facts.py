"""From an ASGI scope to the facts a decision needs."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.keys.audit import Actor, ActorKind
from machpay_gateway.core.network.address import Allowlist, format_address_or_none, parse_address, parse_allowlist
from machpay_gateway.core.network.forwarded import client_address
from machpay_gateway.core.text import contains_secret
from machpay_gateway.web.ignored_forwarding import IgnoredForwarding
from machpay_gateway.web.path import LONG, canonical_path

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._~+/=-]{1,128}")
_METHOD = re.compile(rb"[A-Z][A-Z0-9_-]{0,31}")
_READ = frozenset({b"authorization", b"dpop", b"x-request-id", b"origin", b"access-control-request-method"})
# The constructor of a NamedTuple is a Python function; calling what it calls is twice as fast, on every request.
_new = tuple.__new__
_LAST_DIGITS = tuple(b"%02x" % number for number in range(256))
_REPEATED = b""  # what a header that must come once is worth when it comes again


@dataclass(frozen=True, slots=True)
class Trust:
    """Which peers may say who is behind them, and in which one *header* (lower case).

    *ignored* counts what others say.
    """

    proxies: Allowlist | None = None
    header: bytes = b"x-forwarded-for"
    headers: frozenset[bytes] = field(init=False)  # all that are read of a request
    ignored: IgnoredForwarding = field(default_factory=IgnoredForwarding, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "headers", _READ | {self.header})


# For what is reached through our own proxy alone, which has done the walk and says what came of it.
PEER_HEADER = b"x-machpay-peer"  # by which it says who its peer is, where that is asked for
BEHIND_OUR_PROXY = Trust(parse_allowlist(["0.0.0.0/0", "::/0"]))


def request_ids(entropy: bytes) -> Iterator[bytes]:
    """Yield request ids without end: *entropy* (8 bytes, of this process alone) and a running number, all in hex."""
    for number in count():
        block = b"%s%06x" % (entropy.hex().encode(), number)
        for last in _LAST_DIGITS:  # a number of two parts, because formatting one for each request costs 0.2 µs
            yield block + last


def request_facts(scope: Mapping[str, Any], trust: Trust, ids: Iterator[bytes]) -> RequestFacts:
    """Return what a decision needs to know of the http or websocket *scope*. Never raises for what a client sent."""
    authorization: tuple[bytes, ...] = ()
    proof: tuple[bytes, ...] = ()
    forwarded: list[bytes] = []
    request_id = origin = preflight = None
    wanted = trust.headers
    for name, value in scope["headers"]:
        if name not in wanted:
            continue
        if name == b"authorization":
            authorization += (value,)
        elif name == trust.header:
            forwarded.append(value)
        elif name == b"x-request-id":
            request_id = value if request_id is None else _REPEATED
        elif name == b"origin":
            origin = value if origin is None else _REPEATED
        elif name == b"dpop":
            proof += (value,)
        else:
            preflight = value if preflight is None else _REPEATED
    path = scope["path"]  # read as `path_of` does, whose call would cost every request
    read_path = canonical_path if len(path) < LONG else canonical_path.__wrapped__
    client = scope.get("client")
    peer = (client[0] or "") if client else ""  # a Unix socket has no address, told as None or as ""
    # A WebSocket handshake is a GET. Some servers pass the method as it came, and frameworks read it in upper case.
    method = scope.get("method", "GET").upper()
    return _new(
        RequestFacts,
        (
            method,
            read_path(path, scope.get("raw_path"), scope.get("root_path")),
            authorization,
            _address_behind(peer, forwarded, trust) if forwarded else parse_address(peer),
            next(ids) if request_id is None else accepted_request_id(request_id, peer, trust.proxies) or next(ids),
            None
            if preflight is None or authorization
            else preflight_method(method, origin, preflight, has_body=_has_body(scope)),
            proof,
        ),
    )


def path_of(scope: Mapping[str, Any]) -> str | None:
    """Return the canonical path of the http or websocket *scope*, None when it is ambiguous."""
    path = scope["path"]
    read_path = canonical_path if len(path) < LONG else canonical_path.__wrapped__
    return read_path(path, scope.get("raw_path"), scope.get("root_path"))


def hosts_of(scope: Mapping[str, Any], trust: Trust) -> tuple[bytes | None, bytes | None]:
    """Return the Host of *scope*, and the X-Forwarded-Host if its peer is a trusted proxy; None where there is none.

    What comes more than once is one list (RFC 9110 §5.3): it names no one host, and each that it names counts.
    """
    hosts, forwarded = [], []
    for name, value in scope["headers"]:
        if name == b"host":
            hosts.append(value)
        elif name == b"x-forwarded-host":
            forwarded.append(value)
    client = scope.get("client")
    if forwarded and not (client and is_trusted_proxy(client[0] or "", trust.proxies)):
        forwarded = []
    return b",".join(hosts) or None, b",".join(forwarded) or None


def facts_of(scope: Mapping[str, Any]) -> RequestFacts:
    """Return what the middleware found of the request that it let through."""
    facts: RequestFacts = scope["machpay_facts"]
    return facts


def actor_of(kind: ActorKind, actor_id: str, facts: RequestFacts) -> Actor:
    """Return who sent the request with these *facts*, as the audit log names them."""
    return Actor(kind, actor_id, format_address_or_none(facts.address), facts.request_id.decode())


def is_trusted_proxy(peer: str, proxies: Allowlist | None) -> bool:
    """Tell whether *peer* is a trusted proxy; one that has no address is not."""
    return proxies is not None and (address := parse_address(peer)) is not None and address in proxies


def _address_behind(peer: str, forwarded: list[bytes], trust: Trust) -> int | None:
    if not is_trusted_proxy(peer, trust.proxies):
        trust.ignored.note(peer, trust.header)
    return client_address(peer, forwarded, trust.proxies, trust.header)


def accepted_request_id(value: bytes, peer: str, proxies: Allowlist | None) -> bytes | None:
    """Return the request id that a trusted *peer* gave; a stranger's would let it forge our log.

    One that holds a secret is none: ids are logged, and sent on.
    """
    is_one = is_trusted_proxy(peer, proxies) and _REQUEST_ID.fullmatch(value) and not contains_secret(value.decode())
    return value if is_one else None


def preflight_method(method: str, origin: bytes | None, asked: bytes, *, has_body: bool) -> str | None:
    """Return the method that a CORS preflight without credentials asks about, None when the request is none."""
    # Fetch §3.2.2: a preflight is an OPTIONS with one Origin and one Access-Control-Request-Method, and it carries
    # neither credentials nor a body. Anything else is a request like any other: it must not reach the application
    # without a caller.
    is_preflight = method == "OPTIONS" and origin and _METHOD.fullmatch(asked) and not has_body
    return asked.decode() if is_preflight else None


def _has_body(scope: Mapping[str, Any]) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0")
        for name, value in scope["headers"]
    )
