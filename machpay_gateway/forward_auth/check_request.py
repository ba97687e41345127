"""From a trusted proxy's question to the facts of its client's request."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from starlette.types import Scope

from machpay_gateway.core.decision.identity_headers import is_identity_name
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.network.forwarded import client_address
from machpay_gateway.forward_auth.dialect import Dialect
from machpay_gateway.web.path import path_in
from machpay_gateway.web.request_facts import Trust, accepted_request_id, preflight_method

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")  # RFC 9110 §9.1, and longer than any method is


class CheckRequest(NamedTuple):
    """What is asked about. *fault* says, for the log, why it cannot be answered; empty when it can.

    *host* is the client's, as the proxy tells it, and the one asked at: a list, or None where there is neither.
    """

    facts: RequestFacts
    fault: str
    host: bytes | None


def check_path(scope: Scope) -> str:
    """Return the path of the question itself, without the mount point."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def parse_check_request(scope: Scope, dialect: Dialect, trust: Trust, ids: Iterator[bytes]) -> CheckRequest:
    """Return what a trusted proxy asks in *scope*. Never raises for what its client sent."""
    headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
    peer = scope["client"][0]
    method, target = _method_in(scope, dialect, headers), _target_in(scope, dialect, headers)
    authorization = _values(headers, b"authorization")
    forwarded = _values(headers, trust.header)
    request_id = _only(headers, b"x-request-id")
    facts = RequestFacts(
        method=(method or b"").decode("latin-1").upper(),
        path=None if target is None else path_in(target),
        authorization=authorization,
        # A peer that does not say who is calling calls for somebody unknown, not for itself.
        address=client_address(peer, forwarded, trust.proxies, trust.header) if forwarded else None,
        proof=_values(headers, b"dpop"),
        request_id=(request_id and accepted_request_id(request_id, peer, trust.proxies)) or next(ids),
    )
    if not authorization and (asked := _only(headers, b"access-control-request-method")) is not None:
        origin = _only(headers, b"origin")
        # Nobody says here whether the request has a body.
        facts = facts._replace(preflight_for=preflight_method(facts.method, origin, asked, has_body=False))
    # With the host that is asked at, which for some is the client's: pages have one, and nobody asks there.
    host = b",".join(_values(headers, b"host") + _values(headers, b"x-forwarded-host")) or None
    return CheckRequest(facts, _fault(method, target, headers), host)


def _method_in(scope: Scope, dialect: Dialect, headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    """Return the client's method, None when it is not told once."""
    method = scope["method"].encode() if dialect.method is None else _only(headers, dialect.method)
    return method if method is not None and _TOKEN.fullmatch(method) else None


def _target_in(scope: Scope, dialect: Dialect, headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    """Return the client's path and query as it sent them, None when they are not told once."""
    if dialect.target is not None:
        # Nothing of the client's is in the path of such a question.
        return _only(headers, dialect.target) if check_path(scope) == dialect.path else None
    raw = (scope.get("raw_path") or b"").removeprefix(scope.get("root_path", "").encode())
    ours = dialect.path.encode()
    return raw.removeprefix(ours) if raw.startswith(ours) else None


def _fault(method: bytes | None, target: bytes | None, headers: Sequence[tuple[bytes, bytes]]) -> str:
    if method is None:
        return "the proxy does not tell the method once"
    if target is None:
        return "the proxy does not tell the URI once"
    # They would reach the upstream, where they say who is calling. Nothing can be taken away from a request here.
    if any(is_identity_name(name.decode("latin-1")) for name, _ in headers):
        return "the request has identity headers of its own"
    return ""


def _values(headers: Sequence[tuple[bytes, bytes]], wanted: bytes) -> tuple[bytes, ...]:
    return tuple(value for name, value in headers if name == wanted)


def _only(headers: Sequence[tuple[bytes, bytes]], wanted: bytes) -> bytes | None:
    values = _values(headers, wanted)
    return values[0] if len(values) == 1 else None
