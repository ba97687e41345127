"""From a trusted proxy's check request to the facts of its client's request."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from starlette.types import Scope

from machpay_gateway.core.brand import Brand
from machpay_gateway.core.decision.credential_reader import combine, split_query
from machpay_gateway.core.decision.identity_headers import is_identity_name
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.network.forwarded import client_address
from machpay_gateway.forward_auth.dialect import Dialect
from machpay_gateway.web.path_reader import PathReader
from machpay_gateway.web.request_facts import Trust, accepted_request_id, peer_of, preflight_method

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")  # RFC 9110 §9.1, with a limit above any real method
# The client chooses the host: any other character could move the start of the path. A request of HTTP/1.0 has no host.
_URL = re.compile(rb"https?://((?:[A-Za-z0-9._-]{0,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?)(/.*)")


class CheckRequest(NamedTuple):
    """The client's request in a check request. *fault* says what is wrong with it; empty if nothing is.

    *host* lists X-Forwarded-Host, the Host of the check request and that of a whole URL; None where there is none.
    """

    facts: RequestFacts
    fault: str
    host: bytes | None


def check_path(scope: Scope) -> str:
    """Return the path of the check request itself, without the mount point."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def parse_check_request(  # noqa: PLR0917 - all that parsing depends on
    scope: Scope, dialect: Dialect, trust: Trust, ids: Iterator[bytes], brand: Brand, paths: PathReader
) -> CheckRequest:
    """Return the parsed check request of a trusted proxy in *scope*. Never raises for what its client sends."""
    headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
    peer = peer_of(scope)
    method, (target, url_host) = _method_in(scope, dialect, headers), _target_in(scope, dialect, headers)
    reader = trust.credentials
    authorization = reader.read(
        _values(headers, b"authorization") if reader.settings.takes_authorization else (), headers
    )
    forwarded = _values(headers, trust.header)
    request_id = _only(headers, b"x-request-id")
    name = (method or b"").decode("latin-1").upper()
    facts = RequestFacts(
        method=name,
        path=None if target is None else paths.path_in(name, target),
        authorization=authorization,
        # Without a forwarded address the client is unknown. It is not the proxy itself.
        address=client_address(peer, forwarded, trust.proxies, trust.header) if forwarded else None,
        proof=_values(headers, b"dpop"),
        request_id=(request_id and accepted_request_id(request_id, peer, trust.proxies)) or next(ids),
    )
    if not authorization and (requested := _only(headers, b"access-control-request-method")) is not None:
        origin = _only(headers, b"origin")
        # Check requests do not say whether the client's request has a body.
        facts = facts._replace(preflight_for=preflight_method(facts.method, origin, requested, has_body=False))
    if reader.query is not None and (parts := split_query(_query_in(scope, dialect, target), reader.query)) is not None:
        if dialect.target is None:
            scope["query_string"] = parts[0]  # a server writes its access log from this scope
        if facts.preflight_for is None:  # a preflight has the URL of another request
            facts = facts._replace(authorization=combine(authorization, parts[1]))
    # Some proxies keep the client's Host in the check request; none sends check requests to a host of pages.
    hosts = (*_values(headers, b"host"), *_values(headers, b"x-forwarded-host"), *url_host)
    return CheckRequest(facts, _fault(dialect, method, target, headers, brand), b",".join(hosts) or None)


def _method_in(scope: Scope, dialect: Dialect, headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    """Return the client's method, None unless there is exactly one."""
    method = scope["method"].encode() if dialect.method is None else _only(headers, dialect.method)
    return method if method is not None and _TOKEN.fullmatch(method) else None


def _target_in(
    scope: Scope, dialect: Dialect, headers: Sequence[tuple[bytes, bytes]]
) -> tuple[bytes | None, tuple[bytes, ...]]:
    """Return the client's undecoded path and query, None unless there is exactly one, and the host of a whole URL."""
    if dialect.target is None:
        raw = (scope.get("raw_path") or b"").removeprefix(scope.get("root_path", "").encode())
        ours = dialect.path.encode()
        return (raw.removeprefix(ours) if raw.startswith(ours) else None), ()
    # The path of such a check request has nothing of the client's.
    if check_path(scope) != dialect.path:
        return None, ()
    urls = () if dialect.url is None else _values(headers, dialect.url)
    if not urls:
        return _only(headers, dialect.target), ()
    match = _URL.fullmatch(urls[0])
    # A proxy overwrites the header that it sends, and passes on the other one as its client sent it.
    if match is None or len(urls) > 1 or any(value != match[2] for value in _values(headers, dialect.target)):
        return None, ()
    return match[2], (match[1],)


def _query_in(scope: Scope, dialect: Dialect, target: bytes | None) -> bytes:
    """Return the query of the client's request."""
    if dialect.target is None:
        query: bytes = scope.get("query_string", b"")
        return query
    return (target or b"").partition(b"?")[2]


def _fault(
    dialect: Dialect,
    method: bytes | None,
    target: bytes | None,
    headers: Sequence[tuple[bytes, bytes]],
    brand: Brand,
) -> str:
    """Return what is wrong, for the log and the caller; it names the header."""
    if method is None:
        return f"The proxy does not send {_spelled(dialect.method)} exactly once."
    if target is None:
        names = " or ".join(_spelled(name) for name in (dialect.target, dialect.url) if name is not None)
        return f"The proxy does not send {names or 'a path'} exactly once."
    # They would reach the upstream and impersonate a caller: forward-auth cannot remove headers from the request.
    for name, _ in headers:
        if is_identity_name(text := name.decode("latin-1"), brand.header_prefix):
            spelled = brand.header_prefix + text.title()[len(brand.header_prefix) :]
            named = spelled if spelled.lower() == text else text
            return f"Only the gateway may set the header {named:.100}: send the request without it."
    return ""


def _spelled(name: bytes | None) -> str:
    return "a method" if name is None else name.decode().title()


def _values(headers: Sequence[tuple[bytes, bytes]], wanted: bytes) -> tuple[bytes, ...]:
    # RFC 9110 §5.5: whitespace around a value is no part of it. Some servers leave what is behind it.
    return tuple(value.strip(b" \t") for name, value in headers if name == wanted)


def _only(headers: Sequence[tuple[bytes, bytes]], wanted: bytes) -> bytes | None:
    values = _values(headers, wanted)
    return values[0] if len(values) == 1 else None
