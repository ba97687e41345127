"""Header blocks as heads of HTTP/1.1 and back, so that all rules for heads are written once.

A block is checked for what HTTP/1.1 does not know (RFC 9113 §8.2, §8.3); everything else is up to the rules for heads.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from functools import lru_cache
from http import HTTPStatus
from secrets import token_bytes
from time import time
from typing import NamedTuple

from hpack import NeverIndexedHeaderTuple

from machpay_gateway.proxy.framing import NOT_IN_VALUES
from machpay_gateway.proxy.header_fields import may_be_secret
from machpay_gateway.proxy.heads import ResponseHead
from machpay_gateway.proxy.responses import OwnResponse, date_line

Fields = list[tuple[bytes, bytes]]

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")  # RFC 9113 §8.2: in lower case
_NOT_IN_LINE = bytes(range(0x21)) + b"\x7f"  # a request line is split at spaces
_REQUEST_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority", b":protocol"})
_CONNECTION_SPECIFIC = frozenset({b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"})
_SCHEMES = frozenset({b"http", b"https"})
_WITH_CONTENT = frozenset({b"POST", b"PUT", b"PATCH"})  # some servers require a length of them (RFC 9110 §8.6)
_HANDSHAKE = frozenset({b"sec-websocket-accept", b"connection", b"upgrade"})
_STATUS = re.compile(rb"[1-9][0-9]{2}")
_REASONS = {int(status): status.phrase.encode() for status in HTTPStatus}
_NO_CONTENT = 204
_OK = b"200"


class RequestBlock(NamedTuple):
    """A request's header block as the *head* of HTTP/1.1.

    *length* is the one that the content must have, None if none is given. *is_tunnel* says that the request is the
    handshake of a WebSocket (RFC 8441).
    """

    head: bytes
    length: int | None
    is_tunnel: bool


def read_request_block(block: Iterable[tuple[bytes, bytes]], *, is_whole: bool) -> RequestBlock | str:
    """Return the request of *block*, or what is malformed in it. *is_whole* says that no content follows."""
    pseudo, fields = _split(block)
    if (target := _target(pseudo)) is None:
        return "pseudo-header fields that are invalid, or do not fit together"
    if (lines := _lines(fields)) is None:
        return "a field that HTTP/2 does not allow"
    method, authority = pseudo[b":method"], pseudo.get(b":authority")
    if authority is not None:
        if any(name == b"host" and value.lower() != authority.lower() for name, value in fields):
            return "a Host that is not the authority"
        lines = [b"host: " + authority, *(line for line in lines if not line.startswith(b"host:"))]
    lengths = [value for name, value in fields if name == b"content-length"]
    length = int(lengths[0]) if len(lengths) == 1 and lengths[0].isdigit() else None
    if is_whole and length:
        return "a length without content"
    is_tunnel = b":protocol" in pseudo
    if is_tunnel and (is_whole or lengths):
        return "a WebSocket with content, or without its direction"
    if is_tunnel:
        method, lines = b"GET", _as_handshake(lines)
    elif not lengths:
        lines += _framing(method, is_whole=is_whole)
    head = b"\r\n".join((b"%b %b HTTP/1.1" % (method, target), *lines, b"", b""))
    return RequestBlock(head, length, is_tunnel)


def _split(block: Iterable[tuple[bytes, bytes]]) -> tuple[Mapping[bytes, bytes], Fields]:
    """Return the pseudo-header fields of *block*, none if one of them is invalid, and its other fields."""
    pseudo: dict[bytes, bytes] = {}
    fields: Fields = []
    for name, value in block:
        if name[:1] != b":":
            fields.append((name, value))
        elif fields or name in pseudo or name not in _REQUEST_PSEUDO:
            return {}, []  # repeated, unknown or out of place
        elif not value or value.translate(None, _NOT_IN_LINE) != value:
            return {}, []
        else:
            pseudo[name] = value
    return pseudo, fields


def _target(pseudo: Mapping[bytes, bytes]) -> bytes | None:
    """Return the target of the request with these fields, None if they do not fit together (RFC 9113 §8.3.1, §8.5)."""
    method, path, protocol = pseudo.get(b":method"), pseudo.get(b":path"), pseudo.get(b":protocol")
    if method == b"CONNECT" and protocol is None:
        return None if path is not None or b":scheme" in pseudo else pseudo.get(b":authority")
    if method is None or path is None or pseudo.get(b":scheme") not in _SCHEMES:
        return None
    if protocol is not None and (method, protocol) != (b"CONNECT", b"websocket"):
        return None
    return path if path[:1] == b"/" or (method, path) == (b"OPTIONS", b"*") else None


def _framing(method: bytes, *, is_whole: bool) -> list[bytes]:
    if not is_whole:
        return [b"transfer-encoding: chunked"]
    return [b"content-length: 0"] if method in _WITH_CONTENT else []


def _as_handshake(lines: list[bytes]) -> list[bytes]:
    """Return the *lines* of a handshake of HTTP/1.1 (RFC 6455 §4.1) for one of HTTP/2 (RFC 8441 §5)."""
    key = b"sec-websocket-key: " + b64encode(token_bytes(16))
    others = [line for line in lines if not line.startswith(b"sec-websocket-key:")]
    return [*others, b"connection: Upgrade", b"upgrade: websocket", key]


def read_trailer_block(block: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return the trailers in *block* as lines that end in CR LF, None if they are malformed."""
    lines = _lines(block)
    return None if lines is None else b"".join(line + b"\r\n" for line in lines)


def _lines(fields: Iterable[tuple[bytes, bytes]]) -> list[bytes] | None:
    """Return *fields* as header lines, with one for all cookies (RFC 9113 §8.2.3); None if one is malformed."""
    lines: list[bytes] = []
    cookies: list[bytes] = []
    for name, value in fields:
        if not _NAME.fullmatch(name) or name in _CONNECTION_SPECIFIC:
            return None
        if value.translate(None, NOT_IN_VALUES) != value or value.strip(b" \t") != value:
            return None
        if name == b"te" and value.lower() != b"trailers":
            return None
        if name == b"cookie":
            cookies.append(value)
        else:
            lines.append(name + b": " + value)
    if cookies:
        lines.append(b"cookie: " + b"; ".join(cookies))
    return lines


def response_block(response: ResponseHead, start: bytes, added: bytes, *, is_open: bool) -> Fields:
    """Return the header block of *response*; the arguments are those of `ClientStream.begin_response`."""
    if start is response.start:
        if response.block is None:
            response.block = _block(start + response.via)
        block = response.block + _fields(added)
    else:
        block = _block(start + response.via + added)
    if not response.is_dated:
        block += _fields(date_line(int(time())))
    if not is_open and response.length is not None and response.status != _NO_CONTENT:
        block.append((b"content-length", b"%d" % response.length))
    return block


def interim_block(response: ResponseHead) -> Fields:
    """Return the header block of an interim *response*."""
    return _block(response.start)


def tunnel_block(response: ResponseHead, start: bytes, added: bytes) -> Fields:
    """Return the header block that accepts a WebSocket, as the 101 *response* does (RFC 8441 §5)."""
    _, *fields = _block(start + response.via + added)
    return [(b":status", _OK), *(field for field in fields if field[0] not in _HANDSHAKE)]


def own_block(response: OwnResponse) -> Fields:
    """Return the header block of a *response* of the gateway's own."""
    fields = [_field(name.lower(), value) for name, value in response.headers]
    return [(b":status", b"%d" % response.status), *fields, *_fields(date_line(int(time())))]


def trailer_block(lines: bytes) -> Fields:
    """Return the block of trailers in *lines*, which end in CR LF."""
    return [field for field in _fields(lines) if field[0] not in _CONNECTION_SPECIFIC]


def _block(head: bytes) -> Fields:
    """Return the block of a response's *head*: status line, and lines that end in CR LF."""
    first, _, lines = head.partition(b"\r\n")
    return [(b":status", first[9:12]), *_fields(lines)]


def _fields(lines: bytes) -> Fields:
    fields = []
    for line in lines.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon:
            fields.append(_field(name.lower(), value.strip(b" \t")))
    return fields


def _field(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Return a field, marked if a compression that others can measure would reveal it (RFC 7541 §7.1)."""
    return NeverIndexedHeaderTuple(name, value) if _is_sensitive(name) else (name, value)


@lru_cache(maxsize=1024)
def _is_sensitive(name: bytes) -> bool:
    return may_be_secret(name)


def upstream_block(head: bytes, scheme: bytes) -> tuple[Fields, int, bool]:
    """Return a request's *head* of HTTP/1.1 as a header block, its length, and whether it is chunked instead."""
    first, _, lines = head.partition(b"\r\n")
    method, target, _ = first.split(b" ")
    fields: Fields = []
    authority, length, is_chunked = b"", 0, False
    for field in _fields(lines):
        name, value = field
        if name == b"host":
            authority = value
        elif name == b"transfer-encoding":
            is_chunked = True
        elif name not in _CONNECTION_SPECIFIC:
            fields.append(field)
            if name == b"content-length":
                length = int(value)
    pseudo = [(b":method", method), (b":scheme", scheme), (b":path", target)]
    if authority:
        pseudo.append((b":authority", authority))
    return [*pseudo, *fields], length, is_chunked


def read_response_block(block: Fields) -> bytes | None:
    """Return the head of a response of HTTP/1.1 for *block*, None if that is malformed (RFC 9113 §8.3.2)."""
    if not block or block[0][0] != b":status" or not _STATUS.fullmatch(block[0][1]):
        return None
    if (lines := _lines(block[1:])) is None:
        return None
    status = block[0][1]
    return b"\r\n".join((b"HTTP/1.1 %b %b" % (status, _REASONS.get(int(status), b"")), *lines, b"", b""))
