"""From an ASGI scope to the facts that a decision needs."""

import re
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from machpay_gateway.core.decision.credential_reader import (
    PROTOCOLS,
    CredentialReader,
    Field,
    combine,
    split_protocols,
    split_query,
    without_credential,
)
from machpay_gateway.core.decision.credential_settings import PROTOCOL_PREFIX
from machpay_gateway.core.decision.decision import Denied
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.keys.audit import Actor, ActorKind
from machpay_gateway.core.network.address import Allowlist, format_address_or_none, parse_address, parse_allowlist
from machpay_gateway.core.network.forwarded import UNIX_PEER, client_address, is_trusted_proxy
from machpay_gateway.core.text import contains_secret
from machpay_gateway.web.ignored_forwarding import IgnoredForwarding
from machpay_gateway.web.path import LONG, canonical_path

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._~+/=-]{1,128}")
_METHOD = re.compile(rb"[A-Z][A-Z0-9_-]{0,31}")
_PREFLIGHT_METHOD = b"access-control-request-method"
_READ = frozenset({b"dpop", b"x-request-id", b"origin", _PREFLIGHT_METHOD})
_new = tuple.__new__  # half the cost of a NamedTuple's own constructor
_LAST_DIGITS = tuple(b"%02x" % number for number in range(256))
_REPEATED = b""  # the value of a header that must not repeat, and does


@dataclass(frozen=True, slots=True)
class Trust:
    """The trusted proxies, and the one *header* (lower case) in which they name the client's address.

    *credentials* reads the credential of a request. *ignored* counts that header from other peers.
    """

    proxies: Allowlist | None = None
    header: bytes = b"x-forwarded-for"
    credentials: CredentialReader = field(default_factory=CredentialReader)
    headers: frozenset[bytes] = field(init=False)  # all that `request_facts` reads
    ignored: IgnoredForwarding = field(default_factory=IgnoredForwarding, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "headers", _READ | self.credentials.headers | {self.header})


PEER_HEADER = b"x-machpay-peer"  # the peer's address, which our own proxy adds to forward-auth requests
# For the control plane behind our own proxy, which has determined the client's address already.
BEHIND_OUR_PROXY = Trust(parse_allowlist(["0.0.0.0/0", "::/0"]))


def request_ids(entropy: bytes) -> Iterator[bytes]:
    """Yield request ids: *entropy* (8 bytes, unique to this process) and a sequence number, all in hex."""
    for number in count():
        block = b"%s%06x" % (entropy.hex().encode(), number)
        for last in _LAST_DIGITS:  # precomputed, because formatting a number for each request costs 0.2 µs
            yield block + last


def request_facts(scope: Mapping[str, Any], trust: Trust, ids: Iterator[bytes]) -> RequestFacts:
    """Return the facts of the request in an http or websocket *scope*. Never raises for what a client sends."""
    authorization: tuple[bytes, ...] = ()
    proof: tuple[bytes, ...] = ()
    forwarded: list[bytes] = []
    rare: tuple[Field, ...] = ()
    request_id = origin = preflight_for = None
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
            rare += ((name, value),)
    path = scope["path"]
    client = scope.get("client")
    peer = (client and client[0]) or _unix_peer(scope)
    if rare:  # of a preflight, or a credential in another place
        authorization = trust.credentials.read(authorization, rare)
        preflight_for = None if authorization else _preflight_for(scope, origin, rare)
    return _new(
        RequestFacts,
        (
            scope.get("method", "GET").upper(),  # as in `method_of`
            # The same as `path_of`, inlined for speed.
            (canonical_path if len(path) < LONG else canonical_path.__wrapped__)(
                path, scope.get("raw_path"), scope.get("root_path")
            ),
            authorization,
            _address_behind(peer, forwarded, trust) if forwarded else parse_address(peer),
            next(ids) if request_id is None else accepted_request_id(request_id, peer, trust.proxies) or next(ids),
            preflight_for,
            proof,
        ),
    )


def request_facts_with_query(scope: MutableMapping[str, Any], trust: Trust, ids: Iterator[bytes]) -> RequestFacts:
    """Return `request_facts` where the query may have the credential, which is then removed from *scope*.

    It is removed in place: the server writes its access log from this very scope, and the application gets a copy.
    """
    facts = request_facts(scope, trust, ids)
    name = trust.credentials.query
    if name is None:
        return facts
    scope["headers"] = [
        _without_credential(field, name) if field[0] == b"referer" else field for field in scope["headers"]
    ]
    parts = split_query(scope.get("query_string", b""), name)
    if parts is None:
        return facts
    scope["query_string"], tokens = parts
    if raw := scope.get("raw_path"):  # of some servers, with the query
        scope["raw_path"] = without_credential(raw, name) or raw
    if facts.preflight_for is not None:  # it has the URL of the request that it announces, but is without a caller
        return facts
    return facts._replace(authorization=combine(facts.authorization, tokens))


def _without_credential(field: Field, name: bytes) -> Field:
    """Return *field*, a Referer as a page's requests have it, without the credential in its query."""
    url = without_credential(field[1], name)
    return field if url is None else (field[0], url)


def with_protocols(scope: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Return the websocket *scope* with its subprotocols among the headers, where some servers leave them out."""
    names = scope.get("subprotocols")
    if not names or any(name == PROTOCOLS for name, _ in scope["headers"]):
        return scope
    return dict(scope, headers=[*scope["headers"], (PROTOCOLS, ", ".join(names).encode("latin-1", "replace"))])


def without_protocols(scope: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Return the websocket *scope* for the application, without the subprotocols that hold a credential.

    So the application can neither log nor select one: the client gets a protocol of the application's.
    """
    headers: list[Field] = []
    is_found = False
    for name, value in scope["headers"]:
        parts = split_protocols(value) if name == PROTOCOLS else None
        is_found |= parts is not None
        if parts is None or parts[0]:
            headers.append((name, value if parts is None else parts[0]))
    if not is_found:
        return scope
    names = [name for name in scope.get("subprotocols", ()) if not name.startswith(PROTOCOL_PREFIX)]
    return dict(scope, headers=headers, subprotocols=names)


def path_of(scope: Mapping[str, Any]) -> str | None:
    """Return the canonical path of the http or websocket *scope*, None when it is ambiguous."""
    path = scope["path"]
    read_path = canonical_path if len(path) < LONG else canonical_path.__wrapped__
    return read_path(path, scope.get("raw_path"), scope.get("root_path"))


def hosts_of(scope: Mapping[str, Any], trust: Trust) -> tuple[bytes | None, bytes | None]:
    """Return the Host of *scope*, and the X-Forwarded-Host if its peer is a trusted proxy; None where there is none.

    Repeated fields are one list (RFC 9110 §5.3): every host in it counts, and it is not a single host.
    """
    hosts, forwarded = [], []
    for name, value in scope["headers"]:
        if name == b"host":
            hosts.append(value)
        elif name == b"x-forwarded-host":
            forwarded.append(value)
    if forwarded and not is_trusted_proxy(peer_of(scope), trust.proxies):
        forwarded = []
    return b",".join(hosts) or None, b",".join(forwarded) or None


def facts_of(scope: Mapping[str, Any]) -> RequestFacts:
    """Return the facts of a request that the middleware has passed on."""
    facts: RequestFacts = scope["machpay_facts"]
    return facts


def refuse_instead(scope: Mapping[str, Any], denied: Denied) -> None:
    """Have the middleware send the response to *denied* in place of the one that the application begins with."""
    facts = facts_of(scope)
    # Kept with the facts: the id of what is collected may be used again.
    if (refusals := scope.get("machpay_refusals")) is not None:
        refusals[id(facts)] = facts, denied


def actor_of(kind: ActorKind, actor_id: str, facts: RequestFacts) -> Actor:
    """Return the actor for the audit log of the request with these *facts*."""
    return Actor(kind, actor_id, format_address_or_none(facts.address), facts.request_id.decode())


def peer_of(scope: Mapping[str, Any]) -> str:
    """Return the address of the peer in *scope*, `unix:` of a Unix socket, and "" if it is not there."""
    client = scope.get("client")
    return (client and client[0]) or _unix_peer(scope)


def _unix_peer(scope: Mapping[str, Any]) -> str:
    """Return `unix:` if *scope* without a client's address is of a Unix socket, else "".

    A connection over TCP that the client has reset may have none either, but it has the port of the server.
    """
    server = scope.get("server")
    return "" if server and server[1] is not None else UNIX_PEER


def _address_behind(peer: str, forwarded: list[bytes], trust: Trust) -> int | None:
    if not is_trusted_proxy(peer, trust.proxies):
        trust.ignored.note(peer, trust.header)
    return client_address(peer, forwarded, trust.proxies, trust.header)


def accepted_request_id(value: bytes, peer: str, proxies: Allowlist | None) -> bytes | None:
    """Return the request id of a trusted *peer*, else None: others could forge log entries.

    An id that contains a secret is not accepted, because ids are logged and forwarded.
    """
    value = value.strip(b" \t")
    is_valid = is_trusted_proxy(peer, proxies) and _REQUEST_ID.fullmatch(value) and not contains_secret(value.decode())
    return value if is_valid else None


def preflight_method(method: str, origin: bytes | None, requested: bytes, *, has_body: bool) -> str | None:
    """Return the *requested* method if the request is a CORS preflight without credentials, else None."""
    # Fetch §3.2.2: a preflight is an OPTIONS with one Origin and one Access-Control-Request-Method, without credentials
    # and without a body. Anything else needs a caller before it may reach the application.
    requested = requested.strip(b" \t")
    is_preflight = method == "OPTIONS" and origin and _METHOD.fullmatch(requested) and not has_body
    return requested.decode() if is_preflight else None


def method_of(scope: Mapping[str, Any]) -> str:
    """Return the method of *scope* in upper case. A WebSocket handshake is a GET.

    Some servers pass the method unchanged, and frameworks uppercase it.
    """
    method: str = scope.get("method", "GET")
    return method.upper()


def _preflight_for(scope: Mapping[str, Any], origin: bytes | None, fields: tuple[Field, ...]) -> str | None:
    requested = [value for name, value in fields if name == _PREFLIGHT_METHOD]
    if len(requested) != 1:
        return None
    return preflight_method(method_of(scope), origin, requested[0], has_body=_has_body(scope))


def _has_body(scope: Mapping[str, Any]) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0")
        for name, value in scope["headers"]
    )
