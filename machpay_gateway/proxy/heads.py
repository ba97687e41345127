"""What the heads of requests and answers say: values, which the same bytes always make, so that many may share one."""

import re
from typing import Any, NamedTuple

from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.proxy.fields import (
    AUTHORIZATION,
    CLIENT_ADDRESS,
    CODING,
    CONNECTION,
    COOKIE,
    DATE,
    DROP,
    FORWARDED_HOST,
    FORWARDED_PROTO,
    HOST,
    KEEPS,
    LENGTH,
    ORIGIN,
    OTHER_CODING,
    PREFLIGHT,
    PROOF,
    REQUEST_ID,
    TE,
    TOKEN,
    TRACE_PARENT,
    TRACE_STATE,
    TYPE,
    UPGRADE,
    WRONG,
    Fields,
    without,
)
from machpay_gateway.proxy.target import read_target

PSEUDONYM = b"machpay"  # for Via (RFC 9110 §7.6.3), so that no host name is told
_VIA = (b"Via: 1.0 " + PSEUDONYM + b"\r\n", b"Via: 1.1 " + PSEUDONYM + b"\r\n")
_PROTOCOL = re.compile(TOKEN + rb"(?:/" + TOKEN + rb")?")  # RFC 9110 §7.8
_NOTHING: frozenset[bytes] = frozenset()
_ABOUT_CONNECTIONS = frozenset({b"close", b"keep-alive", b"upgrade", b"te"})
# What would make of the upgraded connection a way around the gate: HTTP itself, in another version or within TLS.
_UPGRADES_NOT_OFFERED = (b"h2", b"http", b"tls")


class Fault(NamedTuple):
    """Why a message is refused. *detail* is for the log."""

    reason: Reason
    detail: str


def invalid(detail: str) -> Fault:
    """Return the fault of a message that is not well-formed."""
    return Fault(Reason.INVALID_MESSAGE, detail)


MALFORMED = invalid("a head that is not well-formed")


class Head:
    """What both kinds of head have."""

    minor: bool  # HTTP/1.1, not 1.0
    length: int | None = None
    chunked = False
    closes = False  # the connection, after this message
    connection: frozenset[bytes] | None = None  # what is named there, if anything is
    _keeps = False

    def _read_framing(self, kind: int, value: Any) -> str | None:  # noqa: ANN401 - as the field's reader has it
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

    def _settle_connection(self, lines: list[bytes]) -> list[bytes]:
        """See whether this is the last message; return those *lines* that go further (RFC 9110 §7.6.1)."""
        connection = self.connection or _NOTHING
        self.closes = b"close" in connection or not (self.minor or self._keeps)
        named = connection - _ABOUT_CONNECTIONS
        return without(lines, named) if named else lines


class RequestHead(Head):
    """A request's head without its credentials. What must come once is worth nothing, b"", when it comes again.

    *start* and *framing* are lines as the upstream gets them: what the client says, and how the body comes.
    """

    path: str | None = None  # that is decided by
    start = b""
    framing = b""
    forwarded: tuple[bytes, ...] = ()
    proof: tuple[bytes, ...] = ()
    own_cookies: tuple[bytes, ...] = ()  # those of the gateway, for nobody but its control plane
    host: bytes | None = None
    forwarded_host: bytes | None = None
    forwarded_proto: bytes | None = None
    request_id: bytes | None = None
    trace_parent: bytes | None = None
    trace_states: tuple[bytes, ...] = ()
    origin: bytes | None = None
    asked_method: bytes | None = None
    upgrade: bytes | None = None
    _has_type = False
    _takes_trailers = False

    def __init__(self, method: bytes, *, minor: bool) -> None:
        self.minor = minor
        self.method = method
        self.name = method.decode("ascii")  # of the method

    @property
    def has_body(self) -> bool:
        """Whether a body follows."""
        return self.chunked or bool(self.length)

    def read(self, target: bytes, block: bytes, fields: Fields) -> tuple[bytes, ...] | Fault:
        """Read the *target* and the lines of fields in *block*; return the credentials, or what is wrong."""
        lines: list[bytes] = []
        authorization: tuple[bytes, ...] = ()
        for line in block.split(b"\r\n")[:-1]:
            field = fields[line]
            if field is None:
                lines.append(line)
                continue
            kind, value = field
            if kind == AUTHORIZATION:
                authorization += (value,)
            elif kind == COOKIE:
                others, ours = value
                self.own_cookies += (ours,)
                if others:
                    lines.append(line[: line.index(b":")] + b": " + others)
            elif kind != DROP:
                if kind >= ORIGIN:
                    lines.append(line)
                if (fault := self._note(kind, value)) is not None:
                    return fault
        return self._settle(target, lines) or authorization

    def _settle(self, target: bytes, lines: list[bytes]) -> Fault | None:
        """See what all the lines together mean; *lines* are those that pass."""
        if self.connection or not self.minor:
            lines = self._settle_connection(lines)
        if self.upgrade is not None:
            self._settle_upgrade()
        if self.host is None and self.minor:
            return invalid("no Host")  # RFC 9112 §3.2: a request of HTTP/1.1 without it is answered 400
        where = read_target(target, self.host)
        if where is None:
            return invalid("a target of another form or host")
        self.path = where.path
        self.start = b"\r\n".join((b"%b %b HTTP/1.1" % (self.method, where.sent_on), *lines, b""))
        self.framing = self._framing_lines()
        return None

    # A branch for each kind, with the value that the kind's reader has.
    def _note(self, kind: int, value: Any) -> Fault | None:  # noqa: ANN401, C901, PLR0912
        if kind == HOST:
            if self.host is not None:
                return invalid("two Host fields")
            self.host = value
        elif kind == LENGTH or kind == CODING:  # noqa: SIM109, PLR1714 - cheaper than a tuple
            return None if (mistake := self._read_framing(kind, value)) is None else invalid(mistake)
        elif kind == KEEPS:
            self._keeps = True
        elif kind == CONNECTION:
            self.connection = value | (self.connection or _NOTHING)
        elif kind == PROOF:
            self.proof += (value,)
        elif kind == TYPE:
            if self._has_type:
                # RFC 9110 §8.3: some take the first and some the last, which is a way around a filter.
                return invalid("two Content-Type fields")
            self._has_type = True
        elif kind == WRONG:
            # RFC 9112 §6.1: a coding that is not understood is 501.
            return Fault(Reason.NOT_IMPLEMENTED if value == OTHER_CODING else Reason.INVALID_MESSAGE, value)
        elif kind == CLIENT_ADDRESS:
            self.forwarded += (value,)
        elif kind == REQUEST_ID:
            self.request_id = value if self.request_id is None else b""
        elif kind == TRACE_PARENT:
            self.trace_parent = value if self.trace_parent is None else b""
        elif kind == TRACE_STATE:
            self.trace_states += (value,)
        elif kind == UPGRADE:
            self.upgrade = value if self.upgrade is None else b""
        elif kind == TE:
            self._takes_trailers |= b"trailers" in value
        elif kind == FORWARDED_PROTO:
            self.forwarded_proto = value if self.forwarded_proto is None else b""
        elif kind == FORWARDED_HOST:
            # One list (RFC 9110 §5.3): it names no one host, and each that it names counts.
            self.forwarded_host = value if self.forwarded_host is None else self.forwarded_host + b"," + value
        elif kind == ORIGIN:
            self.origin = value if self.origin is None else b""
        elif kind == PREFLIGHT:
            self.asked_method = value if self.asked_method is None else b""
        return None

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

    def _framing_lines(self) -> bytes:
        lines = b""
        if self.length is not None:
            lines = b"Content-Length: %d\r\n" % self.length
        elif self.chunked:
            lines = b"Transfer-Encoding: chunked\r\n"
        if self.upgrade is not None:
            lines += b"Connection: Upgrade\r\nUpgrade: %b\r\n" % self.upgrade
        elif self._takes_trailers:
            lines += b"Connection: TE\r\nTE: trailers\r\n"
        return lines


class AnswerHead(Head):
    """The head of an upstream's answer. *start* is what the client gets of it, *via* that it came through us."""

    upgrade: bytes | None = None
    start = b""
    is_dated = False

    def __init__(self, status: bytes, reason: bytes, *, minor: bool) -> None:
        self.minor = minor
        self.status = int(status)
        self.via = _VIA[minor]
        self._status_line = b"HTTP/1.1 " + status + (reason or b" ")

    def read(self, block: bytes, fields: Fields) -> str | None:  # noqa: C901 - one branch for each kind
        """Read the lines of fields in *block*; return what is wrong with them."""
        lines: list[bytes] = []
        for line in block.split(b"\r\n")[:-1]:
            field = fields[line]
            if field is None:
                lines.append(line)
                continue
            kind, value = field
            if kind == LENGTH or kind == CODING:  # noqa: SIM109, PLR1714 - cheaper than a tuple
                if (mistake := self._read_framing(kind, value)) is not None:
                    return mistake
            elif kind == KEEPS:
                self._keeps = True
            elif kind == CONNECTION:
                self.connection = value | (self.connection or _NOTHING)
            elif kind == DATE:
                lines.append(line)
                self.is_dated = True
            elif kind == UPGRADE:
                self.upgrade = value
            elif kind == WRONG:
                return str(value)
        if self.connection or not self.minor:
            lines = self._settle_connection(lines)
        self.start = b"\r\n".join((self._status_line, *lines, b""))
        return None
