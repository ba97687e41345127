"""gRPC over HTTP/2: refusals as statuses that its clients read, and the deadline of a call.

The protocol: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import quote

import orjson

from machpay_gateway.proxy.responses import OwnResponse

_OK, _UNKNOWN, _INVALID_ARGUMENT, _DEADLINE_EXCEEDED = 0, 2, 3, 4
_PERMISSION_DENIED, _RESOURCE_EXHAUSTED, _UNIMPLEMENTED, _INTERNAL, _UNAVAILABLE, _UNAUTHENTICATED = (
    7,
    8,
    12,
    13,
    14,
    16,
)
_STATUSES: Mapping[int, int] = {
    400: _INVALID_ARGUMENT,
    401: _UNAUTHENTICATED,
    403: _PERMISSION_DENIED,
    404: _UNIMPLEMENTED,
    405: _UNIMPLEMENTED,
    408: _DEADLINE_EXCEEDED,
    413: _RESOURCE_EXHAUSTED,
    429: _RESOURCE_EXHAUSTED,
    431: _RESOURCE_EXHAUSTED,
    500: _INTERNAL,
    501: _UNIMPLEMENTED,
    502: _UNAVAILABLE,
    503: _UNAVAILABLE,
    504: _DEADLINE_EXCEEDED,
}
_OF_PROBLEM = frozenset({b"content-type", b"content-length", b"cache-control"})
_TIMEOUT = re.compile(rb"\r\ngrpc-timeout:[ \t]*([0-9]{1,8})([HMSmun])[ \t]*\r\n", re.IGNORECASE)
_UNITS: Mapping[bytes, float] = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


def grpc_response(refusal: OwnResponse) -> OwnResponse:
    """Return *refusal* as a response that consists of trailers only, with its status and what its headers say."""
    message = quote(str(orjson.loads(refusal.body)["detail"]), safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")
    headers = [(name, value) for name, value in refusal.headers if name.lower() not in _OF_PROBLEM]
    for name, value in refusal.headers:
        if name.lower() == b"retry-after" and value.isdigit():
            headers.append((b"grpc-retry-pushback-ms", b"%d000" % int(value)))
    status = b"%d" % _STATUSES.get(refusal.status, _UNKNOWN)
    fields = [(b"content-type", b"application/grpc"), (b"grpc-status", status), (b"grpc-message", message.encode())]
    return OwnResponse(HTTPStatus.OK, b"OK", [*fields, *headers], b"")


def grpc_timeout(start: bytes) -> float:
    """Return the seconds that the lines in *start* give a call, 0 without a limit."""
    match = _TIMEOUT.search(start)
    return 0.0 if match is None else int(match[1]) * _UNITS[match[2]]
