"""Strict framing around llhttp: what is one message, and where it ends.

llhttp accepts what other servers read differently, and two servers that disagree on where a request ends allow request
smuggling (CWE-444). So a head must match a grammar without alternatives (RFC 9112 §2.2, §5), and llhttp must accept it
too. The proxy refuses anything else before it forwards a byte of it.
"""

import re
from typing import NamedTuple

import httptools

from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.proxy.header_fields import TOKEN, HeaderFields
from machpay_gateway.proxy.heads import MALFORMED, Fault, RequestHead, ResponseHead, invalid

MAX_HEAD_BYTES = 32 * 1024
MAX_LINES = 100
HEAD_END = b"\r\n\r\n"

NOT_IN_VALUES = bytes({*range(0x20), 0x7F} - {0x09})  # control characters except the tab (RFC 9110 §5.5)
_VALUE = rb"[^" + re.escape(NOT_IN_VALUES) + rb"]*+"
# No NUL or other control character, no line break but CR LF, no space before a colon, no line folding.
FIELD_LINES = rb"((?:" + TOKEN + rb":" + _VALUE + rb"\r\n)*+)"
# Methods are case-sensitive (RFC 9110 §9.1), but frameworks uppercase them: `get` would be routed as GET.
_REQUEST_LINE = rb"([!#$%&'*+\-.^_`|~0-9A-Z]{1,32}+) ([!\"$-~]++) HTTP/1\.([01])\r\n"
_REQUEST = re.compile(_REQUEST_LINE + FIELD_LINES + rb"\r\n")
_REQUEST_START = re.compile(_REQUEST_LINE + rb"|[\x20-\x7e]*+\r?\Z")  # a complete first line, or the start of one
_RESPONSE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})( " + _VALUE + rb"|)\r\n" + FIELD_LINES + rb"\r\n")
# llhttp knows only some methods; others are equally valid here.
_LLHTTP_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"})
_NOT_SERVED = frozenset({b"CONNECT", b"TRACE"})


class FramedRequest(NamedTuple):
    """A request's *head*, which may be a cached one, and its credentials, which are never cached with it."""

    head: RequestHead
    authorization: tuple[bytes, ...]


def read_request(head: bytes, fields: HeaderFields) -> FramedRequest | Fault:
    """Return the parsed *head* of a request, given up to and with its empty line, or why it is refused."""
    if len(head) > MAX_HEAD_BYTES:
        return Fault(Reason.HEAD_TOO_LARGE, f"more than {MAX_HEAD_BYTES} bytes")
    match = _REQUEST.fullmatch(head)
    if match is None:
        return MALFORMED
    method, target, minor, block = match.groups()
    if block.count(b"\n") > MAX_LINES:
        return Fault(Reason.HEAD_TOO_LARGE, f"more than {MAX_LINES} lines")
    if method in _NOT_SERVED:
        return Fault(Reason.NOT_IMPLEMENTED, "an unsupported method")
    for_llhttp = head if method in _LLHTTP_METHODS else b"POST" + head[len(method) :]
    if (problem := _llhttp_error(httptools.HttpRequestParser, for_llhttp)) is not None:
        return invalid(problem)
    request = RequestHead(method, minor=minor == b"1")
    authorization = request.read(target, block, fields)
    return authorization if isinstance(authorization, Fault) else FramedRequest(request, authorization)


def read_response(head: bytes, fields: HeaderFields) -> ResponseHead | str:
    """Return the parsed *head* of an upstream's response, or what is wrong with it."""
    if len(head) > MAX_HEAD_BYTES:
        return "a head that is too large"
    match = _RESPONSE.fullmatch(head)
    if match is None:
        return MALFORMED.detail
    minor, status, reason, block = match.groups()
    if (problem := _llhttp_error(httptools.HttpResponseParser, head)) is not None:
        return problem
    response = ResponseHead(status, reason, minor=minor == b"1")
    return response.read(block, fields) or response


def incomplete_head_fault(data: bytes | bytearray) -> Fault | None:
    """Return why the beginning of a head is refused already, None when more of it may make it valid."""
    if len(data) > MAX_HEAD_BYTES:
        return Fault(Reason.HEAD_TOO_LARGE, f"more than {MAX_HEAD_BYTES} bytes")
    if data.count(b"\n") != data.count(b"\r\n"):
        return invalid("a line that does not end in CR LF")
    if not _REQUEST_START.match(data):  # TLS on a plain port or HTTP/0.9: the client waits for a response
        return invalid("a malformed first line")
    if data.count(b"\n") > MAX_LINES + 1:
        return Fault(Reason.HEAD_TOO_LARGE, f"more than {MAX_LINES} lines")
    return None


def _llhttp_error(parser: type[httptools.HttpRequestParser | httptools.HttpResponseParser], head: bytes) -> str | None:
    """Return why llhttp refuses *head*. Nothing else of its result is used: the grammar leaves it no choice."""
    try:
        parser(None).feed_data(head)
    except httptools.HttpParserUpgrade:
        return None  # it stops after the head, which is all there is
    except httptools.HttpParserError as exc:
        return str(exc)
    return None
