"""What is one message, and where it ends: the strict layer around llhttp.

llhttp forgives what other servers read in another way, and whoever makes two servers disagree on where a request ends
smuggles one past the gate (CWE-444). So a head must match a grammar without any choice (RFC 9112 §2.2, §5), and be read
by llhttp too; whatever fails either is refused before a byte of it goes on.
"""

import re
from typing import Any, NamedTuple

import httptools

from machpay_gateway.core.reason import Reason
from machpay_gateway.proxy.fields import (
    AUTHORIZATION,
    CLIENT_ADDRESS,
    CODING,
    CONNECTION,
    DROP,
    FORWARDED_HOST,
    FORWARDED_PROTO,
    HOST,
    KEEPS,
    LENGTH,
    ORIGIN,
    OTHER_CODING,
    PREFLIGHT,
    REQUEST_ID,
    TE,
    TYPE,
    UPGRADE,
    WRONG,
    Fields,
    without,
)

MAX_HEAD_BYTES = 32 * 1024
MAX_LINES = 100
HEAD_END = b"\r\n\r\n"

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
# No NUL, no other control character, no line break that is not CR LF, no space before a colon, no folded line.
FIELD_LINES = rb"((?:" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*+\r\n)*+)"
# Methods are case-sensitive (RFC 9110 §9.1), and frameworks read them in upper case: `get` would be decided as GET.
_REQUEST = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Z]{1,32}+) ([!\"$-~]++) HTTP/1\.([01])\r\n" + FIELD_LINES + rb"\r\n")
_ANSWER = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})( [\t\x20-\x7e\x80-\xff]*+|)\r\n" + FIELD_LINES + rb"\r\n")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?]+)(.*)")
# llhttp knows these and refuses others, which are as good to us.
_KNOWN_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"})
_PROTOCOL = re.compile(_TOKEN + rb"(?:/" + _TOKEN + rb")?")  # RFC 9110 §7.8
_NOTHING: frozenset[bytes] = frozenset()
_ABOUT_CONNECTIONS = frozenset({b"close", b"keep-alive", b"upgrade", b"te"})
_NOT_SERVED = frozenset({b"CONNECT", b"TRACE"})
# What would make of the upgraded connection a way around the gate: HTTP itself, in another version or within TLS.
_UPGRADES_NOT_OFFERED = (b"h2", b"http", b"tls")


class Fault(NamedTuple):
    """Why a message is refused. *detail* is for the log."""

    reason: Reason
    detail: str


class Head:
    """What both kinds of head have. *lines* are those of the fields that pass, as they came."""

    lines: list[bytes]
    minor: bool  # HTTP/1.1, not 1.0
    length: int | None = None
    chunked = False
    closes = False  # the connection, after this message
    keeps = False
    connection: frozenset[bytes] | None = None  # what is named there, if anything is

    def read_framing(self, kind: int, value: int) -> str | None:
        """Take the *value* of Content-Length or Transfer-Encoding, or say what is wrong with that."""
        if self.length is not None or self.chunked:
            return "two fields that say how long the body is"
        if kind == LENGTH:
            self.length = value
        elif self.minor:
            self.chunked = True
        else:
            return "a Transfer-Encoding in HTTP/1.0"  # RFC 9112 §6.1
        return None

    def settle_connection(self) -> None:
        """See whether this is the last message, and which fields go no further (RFC 9110 §7.6.1)."""
        connection = self.connection or _NOTHING
        self.closes = b"close" in connection or not (self.minor or self.keeps)
        if named := connection - _ABOUT_CONNECTIONS:
            self.lines = without(self.lines, named)


class RequestHead(Head):
    """A request's head. A field that must come once is worth nothing, b"", when it comes again."""

    path = b""  # as it is forwarded
    query = b""
    authorization: tuple[bytes, ...] = ()
    forwarded: tuple[bytes, ...] = ()
    host: bytes | None = None
    forwarded_host: bytes | None = None
    forwarded_proto: bytes | None = None
    request_id: bytes | None = None
    origin: bytes | None = None
    asked_method: bytes | None = None
    upgrade: bytes | None = None
    has_type = False
    takes_trailers = False

    def __init__(self, method: bytes, raw: bytes, *, minor: bool) -> None:
        self.minor = minor
        self.method = method
        self.raw = raw  # all of it

    @property
    def has_body(self) -> bool:
        """Whether a body follows."""
        return self.chunked or bool(self.length)

    def read(self, block: bytes, fields: Fields) -> Fault | None:  # noqa: C901, PLR0912 - one branch for each kind
        """Read the lines of fields in *block*; return what is wrong with them."""
        lines = self.lines = []
        for line in block.split(b"\r\n")[:-1]:
            field = fields[line]
            if field is None:
                lines.append(line)
                continue
            kind, value = field
            if kind == HOST:
                if self.host is not None:
                    return _invalid("two Host fields")
                self.host = value
            elif kind == AUTHORIZATION:
                self.authorization += (value,)
            elif kind == LENGTH or kind == CODING:  # noqa: SIM109, PLR1714 - cheaper than a tuple
                if (mistake := self.read_framing(kind, value)) is not None:
                    return _invalid(mistake)
            elif kind == KEEPS:
                self.keeps = True
            elif kind == CONNECTION:
                self.connection = value | (self.connection or _NOTHING)
            elif kind >= ORIGIN:
                lines.append(line)
                if kind == TYPE and self.has_type:
                    # RFC 9110 §8.3: some take the first and some the last, which is a way around a filter.
                    return _invalid("two Content-Type fields")
                self._note(kind, value)
            elif kind == WRONG:
                return _wrong(value)
            elif kind != DROP:
                self._note(kind, value)
        if self.connection or not self.minor:
            self.settle_connection()
        if self.upgrade is not None:
            self._settle_upgrade()
        # RFC 9112 §3.2: a request of HTTP/1.1 without Host is answered 400.
        return _invalid("no Host") if self.host is None and self.minor else None

    def _note(self, kind: int, value: Any) -> None:  # noqa: ANN401 - as the field's reader has it
        if kind == TYPE:
            self.has_type = True
        elif kind == CLIENT_ADDRESS:
            self.forwarded += (value,)
        elif kind == REQUEST_ID:
            self.request_id = value if self.request_id is None else b""
        elif kind == UPGRADE:
            self.upgrade = value if self.upgrade is None else b""
        elif kind == TE:
            self.takes_trailers |= b"trailers" in value
        elif kind == FORWARDED_PROTO:
            self.forwarded_proto = value if self.forwarded_proto is None else b""
        elif kind == FORWARDED_HOST:
            self.forwarded_host = value if self.forwarded_host is None else b""
        elif kind == ORIGIN:
            self.origin = value if self.origin is None else b""
        elif kind == PREFLIGHT:
            self.asked_method = value if self.asked_method is None else b""

    def _settle_upgrade(self) -> None:
        upgrade = self.upgrade or b""
        is_asked = (
            b"upgrade" in (self.connection or _NOTHING)
            and self.minor
            and not self.has_body
            and _PROTOCOL.fullmatch(upgrade)
        )
        if not is_asked or upgrade.lower().startswith(_UPGRADES_NOT_OFFERED):
            self.upgrade = None  # a server may ignore an upgrade (RFC 9110 §7.8)

    def take_target(self, target: bytes) -> Fault | None:
        """Take the request's *target*, in origin-form or of this very host in absolute-form (RFC 9112 §3.2)."""
        if target[:1] != b"/" and target != b"*":
            match = _ABSOLUTE.fullmatch(target)
            if match is None or self.host is None or match[1].lower() != self.host.lower():
                return _invalid("a target of another form or host")
            target = match[2] if match[2][:1] == b"/" else b"/" + match[2]
        self.path, mark, query = target.partition(b"?")
        self.query = mark + query
        return None


class AnswerHead(Head):
    """The head of an upstream's answer. *status_line* begins with the status."""

    upgrade: bytes | None = None

    def __init__(self, status: bytes, reason: bytes, *, minor: bool) -> None:
        self.minor = minor
        self.status = int(status)
        self.status_line = status + (reason or b" ")

    def read(self, block: bytes, fields: Fields) -> str | None:
        """Read the lines of fields in *block*; return what is wrong with them."""
        lines = self.lines = []
        for line in block.split(b"\r\n")[:-1]:
            field = fields[line]
            if field is None:
                lines.append(line)
                continue
            kind, value = field
            if kind == LENGTH or kind == CODING:  # noqa: SIM109, PLR1714 - cheaper than a tuple
                if (mistake := self.read_framing(kind, value)) is not None:
                    return mistake
            elif kind == KEEPS:
                self.keeps = True
            elif kind == CONNECTION:
                self.connection = value | (self.connection or _NOTHING)
            elif kind == UPGRADE:
                self.upgrade = value
            elif kind == WRONG:
                return str(value)
        if self.connection or not self.minor:
            self.settle_connection()
        return None


def read_request(head: bytes, fields: Fields) -> RequestHead | Fault:
    """Return what the *head* of a request says, up to and with its empty line, or why it is refused."""
    if len(head) > MAX_HEAD_BYTES:
        return Fault(Reason.HEAD_TOO_LARGE, f"more than {MAX_HEAD_BYTES} bytes")
    match = _REQUEST.fullmatch(head)
    if match is None:
        return _invalid("a head that is not well-formed")
    method, target, minor, block = match.groups()
    if block.count(b"\n") > MAX_LINES:
        return Fault(Reason.HEAD_TOO_LARGE, f"more than {MAX_LINES} lines")
    if method in _NOT_SERVED:
        return Fault(Reason.NOT_IMPLEMENTED, "a method that is not served")
    known = head if method in _KNOWN_METHODS else b"POST" + head[len(method) :]
    if (mistake := _mistake_by_llhttp(httptools.HttpRequestParser, known)) is not None:
        return _invalid(mistake)
    request = RequestHead(method, head, minor=minor == b"1")
    return request.read(block, fields) or request.take_target(target) or request


def read_answer(head: bytes, fields: Fields) -> AnswerHead | str:
    """Return what the *head* of an upstream's answer says, or what is wrong with it."""
    match = _ANSWER.fullmatch(head)
    if match is None:
        return "a head that is not well-formed"
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
        return _invalid("a line that does not end in CR LF")
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


def _wrong(mistake: str) -> Fault:
    # RFC 9112 §6.1: a coding that is not understood is 501.
    return Fault(Reason.NOT_IMPLEMENTED if mistake == OTHER_CODING else Reason.INVALID_MESSAGE, mistake)


def _invalid(detail: str) -> Fault:
    return Fault(Reason.INVALID_MESSAGE, detail)
