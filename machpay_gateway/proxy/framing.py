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
from machpay_gateway.web.path_reader import escape_non_ascii

HEAD_END = b"\r\n\r\n"

NOT_IN_VALUES = bytes({*range(0x20), 0x7F} - {0x09})  # control characters except the tab (RFC 9110 §5.5)
_VALUE = rb"[^" + re.escape(NOT_IN_VALUES) + rb"]*+"
# No NUL or other control character, no line break but CR LF, no space before a colon, no line folding.
FIELD_LINES = rb"((?:" + TOKEN + rb":" + _VALUE + rb"\r\n)*+)"
# Methods are case-sensitive (RFC 9110 §9.1), but frameworks uppercase them: `get` would be routed as GET.
_REQUEST_LINE = rb"([!#$%&'*+\-.^_`|~0-9A-Z]{1,32}+) ([!\"$-~\x80-\xff]++) HTTP/1\.([01])\r\n"
_REQUEST = re.compile(_REQUEST_LINE + FIELD_LINES + rb"\r\n")
# A complete first line, or the start of one.
_REQUEST_START = re.compile(_REQUEST_LINE + rb"|(?:[\x20-\x7e][\x20-\x7e\x80-\xff]*+)?+\r?\Z")
_RESPONSE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})( " + _VALUE + rb"|)\r\n" + FIELD_LINES + rb"\r\n")
# llhttp knows only some methods; others are equally valid here.
_LLHTTP_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"})
_NOT_SERVED = frozenset({b"CONNECT", b"TRACE"})


class HeadLimits(NamedTuple):
    """How much a head may have: *max_bytes* with its empty line, and so many header lines."""

    max_bytes: int
    max_lines: int

    def fault(self, head: bytes | bytearray, lines: int) -> Fault | None:
        """Return why *head*, with so many header *lines*, is too large, None if it is not."""
        if len(head) > self.max_bytes:
            return Fault(Reason.HEAD_TOO_LARGE, f"more than {self.max_bytes} bytes")
        if lines > self.max_lines:
            return Fault(Reason.HEAD_TOO_LARGE, f"more than {self.max_lines} lines")
        return None


class FramedRequest(NamedTuple):
    """A request's *head*, which may be a cached one, and its credentials, which are never cached with it."""

    head: RequestHead
    authorization: tuple[bytes, ...]


def read_request(head: bytes, fields: HeaderFields, limits: HeadLimits) -> FramedRequest | Fault:
    """Return the parsed *head* of a request, given up to and with its empty line, or why it is refused."""
    if (fault := limits.fault(head, 0)) is not None:
        return fault
    match = _REQUEST.fullmatch(head)
    if match is None:
        return MALFORMED
    method, target, minor, block = match.groups()
    if (fault := limits.fault(head, block.count(b"\n"))) is not None:
        return fault
    if method in _NOT_SERVED:
        return Fault(Reason.NOT_IMPLEMENTED, "an unsupported method")
    for_llhttp = head if method in _LLHTTP_METHODS else b"POST" + head[len(method) :]
    if not target.isascii():  # clients send raw UTF-8, which is no part of a URL
        target, came = escape_non_ascii(target), target
        for_llhttp = for_llhttp.replace(came, target, 1)
    if (problem := _llhttp_error(httptools.HttpRequestParser, for_llhttp)) is not None:
        return invalid(problem)
    request = RequestHead(method, minor=minor == b"1")
    authorization = request.read(target, block, fields)
    return authorization if isinstance(authorization, Fault) else FramedRequest(request, authorization)


def read_response(head: bytes, fields: HeaderFields, limits: HeadLimits) -> ResponseHead | str:
    """Return the parsed *head* of an upstream's response, or what is wrong with it."""
    if (fault := limits.fault(head, head.count(b"\n") - 2)) is not None:
        return f"a head of {fault.detail}"
    match = _RESPONSE.fullmatch(head)
    if match is None:
        return MALFORMED.detail
    minor, status, reason, block = match.groups()
    if (problem := _llhttp_error(httptools.HttpResponseParser, head)) is not None:
        return problem
    response = ResponseHead(status, reason, minor=minor == b"1")
    return response.read(block, fields) or response


def incomplete_head_fault(data: bytes | bytearray, limits: HeadLimits) -> Fault | None:
    """Return why the beginning of a head is refused already, None when more of it may make it valid."""
    if len(data) > limits.max_bytes:
        return limits.fault(data, 0)
    lines = data.count(b"\n")
    if lines != data.count(b"\r\n"):
        return invalid("a line that does not end in CR LF")
    if not _REQUEST_START.match(data):  # TLS on a plain port or HTTP/0.9: the client waits for a response
        return invalid("a malformed first line")
    return limits.fault(data, lines - 1)


def _llhttp_error(parser: type[httptools.HttpRequestParser | httptools.HttpResponseParser], head: bytes) -> str | None:
    """Return why llhttp refuses *head*. Nothing else of its result is used: the grammar leaves it no choice."""
    try:
        parser(None).feed_data(head)
    except httptools.HttpParserUpgrade:
        return None  # it stops after the head, which is all there is
    except httptools.HttpParserError as exc:
        return str(exc)
    return None
