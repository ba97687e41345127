"""What is one message, and where it ends: the strict layer around llhttp.

llhttp forgives what other servers read in another way, and whoever makes two servers disagree on where a request ends
smuggles one past the gate (CWE-444). So a head must match a grammar without any choice (RFC 9112 §2.2, §5), and be read
by llhttp too; whatever fails either is refused before a byte of it goes on.
"""

import re
from typing import NamedTuple

import httptools

from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.proxy.fields import TOKEN, Fields
from machpay_gateway.proxy.heads import MALFORMED, AnswerHead, Fault, RequestHead, invalid

MAX_HEAD_BYTES = 32 * 1024
MAX_LINES = 100
HEAD_END = b"\r\n\r\n"

NOT_IN_VALUES = bytes({*range(0x20), 0x7F} - {0x09})  # control characters, but for the tab (RFC 9110 §5.5)
_VALUE = rb"[^" + re.escape(NOT_IN_VALUES) + rb"]*+"
# No NUL, no other control character, no line break that is not CR LF, no space before a colon, no folded line.
FIELD_LINES = rb"((?:" + TOKEN + rb":" + _VALUE + rb"\r\n)*+)"
# Methods are case-sensitive (RFC 9110 §9.1), and frameworks read them in upper case: `get` would be decided as GET.
_REQUEST_LINE = rb"([!#$%&'*+\-.^_`|~0-9A-Z]{1,32}+) ([!\"$-~]++) HTTP/1\.([01])\r\n"
_REQUEST = re.compile(_REQUEST_LINE + FIELD_LINES + rb"\r\n")
_BEGINNING = re.compile(_REQUEST_LINE + rb"|[\x20-\x7e]*+\r?\Z")  # with its first line whole, or not yet
_ANSWER = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})( " + _VALUE + rb"|)\r\n" + FIELD_LINES + rb"\r\n")
# llhttp knows these and refuses others, which are as good to us.
_KNOWN_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"})
_NOT_SERVED = frozenset({b"CONNECT", b"TRACE"})


class FramedRequest(NamedTuple):
    """What came: the *head*, which is often the same again, and the credentials, which are not kept with it."""

    head: RequestHead
    authorization: tuple[bytes, ...]


def read_request(head: bytes, fields: Fields) -> FramedRequest | Fault:
    """Return what the *head* of a request says, up to and with its empty line, or why it is refused."""
    if len(head) > MAX_HEAD_BYTES:
        return Fault(Reason.HEAD_TOO_LARGE, f"more than {MAX_HEAD_BYTES} bytes")
    match = _REQUEST.fullmatch(head)
    if match is None:
        return MALFORMED
    method, target, minor, block = match.groups()
    if block.count(b"\n") > MAX_LINES:
        return Fault(Reason.HEAD_TOO_LARGE, f"more than {MAX_LINES} lines")
    if method in _NOT_SERVED:
        return Fault(Reason.NOT_IMPLEMENTED, "a method that is not served")
    known = head if method in _KNOWN_METHODS else b"POST" + head[len(method) :]
    if (mistake := _mistake_by_llhttp(httptools.HttpRequestParser, known)) is not None:
        return invalid(mistake)
    request = RequestHead(method, minor=minor == b"1")
    authorization = request.read(target, block, fields)
    return authorization if isinstance(authorization, Fault) else FramedRequest(request, authorization)


def read_answer(head: bytes, fields: Fields) -> AnswerHead | str:
    """Return what the *head* of an upstream's answer says, or what is wrong with it."""
    if len(head) > MAX_HEAD_BYTES:
        return "a head that is too large"
    match = _ANSWER.fullmatch(head)
    if match is None:
        return MALFORMED.detail
    minor, status, reason, block = match.groups()
    if (mistake := _mistake_by_llhttp(httptools.HttpResponseParser, head)) is not None:
        return mistake
    answer = AnswerHead(status, reason, minor=minor == b"1")
    return answer.read(block, fields) or answer


def early_fault(data: bytes | bytearray) -> Fault | None:
    """Return why the beginning of a head can be refused before its end has come."""
    if len(data) > MAX_HEAD_BYTES:
        return Fault(Reason.HEAD_TOO_LARGE, f"more than {MAX_HEAD_BYTES} bytes")
    if data.count(b"\n") != data.count(b"\r\n"):
        return invalid("a line that does not end in CR LF")
    if not _BEGINNING.match(data):  # TLS, to whom speaks none, or HTTP/0.9: either waits for an answer
        return invalid("a first line that is not well-formed")
    if data.count(b"\n") > MAX_LINES + 1:
        return Fault(Reason.HEAD_TOO_LARGE, f"more than {MAX_LINES} lines")
    return None


def _mistake_by_llhttp(
    parser: type[httptools.HttpRequestParser | httptools.HttpResponseParser], head: bytes
) -> str | None:
    """Return what llhttp finds wrong with *head*. It is asked for nothing else: the grammar above left it no choice."""
    try:
        parser(None).feed_data(head)
    except httptools.HttpParserUpgrade:
        return None  # it stops here, and so do we
    except httptools.HttpParserError as exc:
        return str(exc)
    return None
