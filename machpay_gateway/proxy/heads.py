"""Parsed heads of requests and responses. Equal bytes give equal values, so many messages may share one value."""

import re
from typing import Any, NamedTuple

from machpay_gateway.core.decision.credential_reader import (
    combine,
    split_protocols,
    split_query,
    without_credential,
)
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.proxy.header_fields import (
    AUTHORIZATION,
    CLIENT_ADDRESS,
    CONNECTION,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    COOKIE,
    CORS,
    COST,
    CREDENTIAL,
    DATE,
    DPOP_PROOF,
    DROP,
    FORWARDED_HOST,
    FORWARDED_PORT,
    FORWARDED_PREFIX,
    FORWARDED_PROTO,
    HOST,
    INVALID,
    KEEP_ALIVE,
    ORIGIN,
    PREFLIGHT_METHOD,
    PROTOCOLS,
    REFERER,
    REQUEST_ID,
    TE,
    TOKEN,
    TRACE_PARENT,
    TRACE_STATE,
    TRANSFER_ENCODING,
    UNKNOWN_CODING,
    UPGRADE,
    VARY,
    HeaderFields,
    lines_without,
)
from machpay_gateway.proxy.target import parse_target
from machpay_gateway.web.path_reader import PathReader

PSEUDONYM = b"machpay"  # in Via (RFC 9110 §7.6.3), so that no host name leaks
_VIA = (b"Via: 1.0 " + PSEUDONYM + b"\r\n", b"Via: 1.1 " + PSEUDONYM + b"\r\n")
_PROTOCOL = re.compile(TOKEN + rb"(?:/" + TOKEN + rb")?")  # RFC 9110 §7.8
_AFTER_GRPC = (b"", b"+", b";")  # not application/grpc-web, which is another protocol
_NO_OPTIONS: frozenset[bytes] = frozenset()
_CONNECTION_OPTIONS = frozenset({b"close", b"keep-alive", b"upgrade", b"te"})
# HTTP itself, in another version or within TLS: such a tunnel would bypass the gate.
_UPGRADES_NOT_OFFERED = (b"h2", b"http", b"tls")


class Fault(NamedTuple):
    """Why a message is refused. *detail* is for the log."""

    reason: Reason
    detail: str


def invalid(detail: str) -> Fault:
    """Return the fault of a malformed message."""
    return Fault(Reason.INVALID_MESSAGE, detail)


MALFORMED = invalid("a malformed head")


class Head:
    """What heads of requests and responses have in common."""

    minor: bool  # HTTP/1.1, not 1.0
    length: int | None = None
    chunked = False
    closes = False  # the connection, after this message
    connection: frozenset[bytes] | None = None  # options of Connection, if there is one
    _keeps_alive = False

    def _read_framing(self, kind: int, value: Any) -> str | None:  # noqa: ANN401 - whatever the field's parser returns
        """Take the *value* of Content-Length or Transfer-Encoding, or return what is wrong with it."""
        if self.length is not None or self.chunked:
            return "two fields that define the length of the body"
        if kind == CONTENT_LENGTH:
            self.length = value
        elif self.minor:
            self.chunked = True
        else:
            return "a Transfer-Encoding in HTTP/1.0"  # RFC 9112 §6.1
        return None

    def _apply_connection(self, lines: list[bytes]) -> list[bytes]:
        """Set whether the connection closes; return *lines* without those that Connection names (RFC 9110 §7.6.1)."""
        connection = self.connection or _NO_OPTIONS
        self.closes = b"close" in connection or not (self.minor or self._keeps_alive)
        hop_by_hop = connection - _CONNECTION_OPTIONS
        return lines_without(lines, hop_by_hop) if hop_by_hop else lines


class SetAside(NamedTuple):
    """The start of a request whose credential is elsewhere than in Authorization alone; such heads are not cached.

    *as_came* has everything, for the control plane. *with_headers* has the headers that hold credentials, for an
    upstream that gets them; neither a query nor a subprotocol is ever forwarded with one.
    """

    as_came: bytes
    with_headers: bytes


class RequestHead(Head):
    """A request's head without its credentials. A field that must not repeat has the value b"" when it does.

    *start* and *framing* are lines for the upstream: the client's own, and those that frame the body.
    """

    set_aside: SetAside | None = None

    path: str | None = None  # which the decision uses
    is_server_wide = False  # a request about the server, `*`, and not about a path (RFC 9110 §9.3.7)
    start = b""
    framing = b""
    forwarded: tuple[bytes, ...] = ()
    proof: tuple[bytes, ...] = ()
    own_cookies: tuple[bytes, ...] = ()  # the gateway's own, forwarded only to its control plane
    host: bytes | None = None
    forwarded_host: bytes | None = None
    forwarded_proto: bytes | None = None
    forwarded_port: bytes | None = None
    forwarded_prefix: bytes | None = None
    request_id: bytes | None = None
    trace_parent: bytes | None = None
    trace_states: tuple[bytes, ...] = ()
    origin: bytes | None = None
    preflight_method: bytes | None = None
    upgrade: bytes | None = None
    is_grpc = False
    _has_type = False
    _accepts_trailers = False

    def __init__(self, method: bytes, *, minor: bool) -> None:
        self.minor = minor
        self.method = method
        self.name = method.decode("ascii")  # of the method

    @property
    def has_body(self) -> bool:
        """Whether a body follows."""
        return self.chunked or bool(self.length)

    def read(  # noqa: C901 - one branch for each kind
        self, target: bytes, block: bytes, fields: HeaderFields
    ) -> tuple[bytes, ...] | Fault:
        """Parse the *target* and the header lines in *block*; return the credentials, or why the head is refused."""
        lines: list[bytes] = []
        authorization: tuple[bytes, ...] = ()
        elsewhere: list[tuple[bytes, int]] = []  # lines that hold credentials, and their kinds
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
            elif CREDENTIAL <= kind <= REFERER:
                elsewhere.append((line, kind))
            elif kind != DROP:
                if kind >= ORIGIN:
                    lines.append(line)
                if (fault := self._take(kind, value)) is not None:
                    return fault
        query = fields.credentials.query
        if elsewhere or (query is not None and b"?" in target):
            return self._read_elsewhere(target, lines, authorization, elsewhere, fields)
        return self._complete(target, lines, fields.paths) or authorization

    def _read_elsewhere(
        self,
        target: bytes,
        lines: list[bytes],
        authorization: tuple[bytes, ...],
        elsewhere: list[tuple[bytes, int]],
        fields: HeaderFields,
    ) -> tuple[bytes, ...] | Fault:
        """Complete the head, and set aside what holds the credential in *elsewhere* and in the query of *target*."""
        credentials, paths = fields.credentials, fields.paths
        path, mark, query = target.partition(b"?")
        parts = None if credentials.query is None else split_query(query, credentials.query)
        if not elsewhere and parts is None:
            return self._complete(target, lines, paths) or authorization
        headers = [b"Authorization: " + value for value in authorization]
        others: list[bytes] = []
        public = list(lines)
        for line, kind in elsewhere:
            if kind == CREDENTIAL:
                headers.append(line)
            else:
                others.append(line)
                public += _without_secret(line, kind, credentials.query)
        values = credentials.read(authorization, [_field(line) for line, kind in elsewhere if kind != REFERER])
        if parts is not None:
            query, tokens = parts
            if self.preflight_method is None or values:  # a preflight has the URL of the request that it announces
                values = combine(values, tokens)
        if (fault := self._complete(target, [*lines, *headers, *others], paths)) is not None:
            return fault
        as_came = self.start
        target = path + mark + query if query else path
        public = self._apply_connection(public)
        self._start(target, [*public, *headers], paths)
        with_headers = self.start
        self._start(target, public, paths)
        self.set_aside = SetAside(as_came, with_headers)
        return values

    def _complete(self, target: bytes, lines: list[bytes], paths: PathReader) -> Fault | None:
        """Combine what all fields say; *lines* are those that pass."""
        if self.connection or not self.minor:
            lines = self._apply_connection(lines)
        if self.upgrade is not None:
            self._check_upgrade()
        if self.host is None and self.minor:
            return invalid("no Host")  # RFC 9112 §3.2: HTTP/1.1 requires it; the status is 400
        if not self._start(target, lines, paths):
            return invalid("a target of another form or host")
        self.framing = self._framing_lines()
        return None

    def _start(self, target: bytes, lines: list[bytes], paths: PathReader) -> bool:
        """Set the path and the start; return whether *target* is of a form that is served."""
        self.is_server_wide = target == b"*" and self.method == b"OPTIONS"
        where = parse_target(target, self.name, self.host, paths)
        if where is None:
            return False
        self.path = where.path
        self.start = b"\r\n".join((b"%b %b HTTP/1.1" % (self.method, where.forwarded), *lines, b""))
        return True

    # One branch for each kind, with the value that the kind's parser returns.
    def _take(self, kind: int, value: Any) -> Fault | None:  # noqa: ANN401, C901, PLR0912
        if kind == HOST:
            if self.host is not None:
                return invalid("two Host fields")
            self.host = value
        elif kind == CONTENT_LENGTH or kind == TRANSFER_ENCODING:  # noqa: SIM109, PLR1714 - cheaper than a tuple
            return None if (problem := self._read_framing(kind, value)) is None else invalid(problem)
        elif kind == KEEP_ALIVE:
            self._keeps_alive = True
        elif kind == CONNECTION:
            self.connection = value | (self.connection or _NO_OPTIONS)
        elif kind == DPOP_PROOF:
            self.proof += (value,)
        elif kind == CONTENT_TYPE:
            is_grpc = value.startswith(b"application/grpc") and value[16:17] in _AFTER_GRPC
            self.is_grpc = is_grpc and self.method == b"POST"  # all calls are
            if self._has_type:
                # RFC 9110 §8.3: some servers use the first and some the last, which bypasses a filter.
                return invalid("two Content-Type fields")
            self._has_type = True
        elif kind == INVALID:
            # RFC 9112 §6.1: an unknown transfer coding is a 501.
            return Fault(Reason.NOT_IMPLEMENTED if value == UNKNOWN_CODING else Reason.INVALID_MESSAGE, value)
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
            self._accepts_trailers |= b"trailers" in value
        elif kind == FORWARDED_PROTO:
            self.forwarded_proto = value if self.forwarded_proto is None else b""
        elif kind == FORWARDED_HOST:
            # Repeated fields are one list (RFC 9110 §5.3): every host in it counts, and it is not a single host.
            self.forwarded_host = value if self.forwarded_host is None else self.forwarded_host + b"," + value
        elif kind == FORWARDED_PORT:
            self.forwarded_port = value if self.forwarded_port is None else b""
        elif kind == FORWARDED_PREFIX:
            self.forwarded_prefix = value if self.forwarded_prefix is None else b""
        elif kind == ORIGIN:
            self.origin = value if self.origin is None else b""
        elif kind == PREFLIGHT_METHOD:
            self.preflight_method = value if self.preflight_method is None else b""
        return None

    def _check_upgrade(self) -> None:
        """Ignore the upgrade unless it is valid and may be forwarded: a server may ignore one (RFC 9110 §7.8)."""
        upgrade = self.upgrade or b""
        is_valid = (
            b"upgrade" in (self.connection or _NO_OPTIONS)
            and self.minor
            and not self.has_body
            and _PROTOCOL.fullmatch(upgrade)
        )
        if not is_valid or upgrade.lower().startswith(_UPGRADES_NOT_OFFERED):
            self.upgrade = None

    def _framing_lines(self) -> bytes:
        lines = b""
        if self.length is not None:
            lines = b"Content-Length: %d\r\n" % self.length
        elif self.chunked:
            lines = b"Transfer-Encoding: chunked\r\n"
        if self.upgrade is not None:
            lines += b"Connection: Upgrade\r\nUpgrade: %b\r\n" % self.upgrade
        elif self._accepts_trailers:
            lines += b"Connection: TE\r\nTE: trailers\r\n"
        return lines


def _field(line: bytes) -> tuple[bytes, bytes]:
    """Return the name, in lower case, and the value in a header *line*."""
    name, _, value = line.partition(b":")
    return name.lower(), value.strip(b" \t")


def _without_secret(line: bytes, kind: int, query: bytes | None) -> list[bytes]:
    """Return the *line* of subprotocols, or of a Referer, without the credential in it; none if nothing is left."""
    name, _, value = line.partition(b":")
    value = value.strip(b" \t")
    if kind == PROTOCOLS:
        protocols = split_protocols(value)
        rest = None if protocols is None else protocols[0]
    else:
        rest = None if query is None else without_credential(value, query)
    if rest is None:
        return [line]
    return [name + b": " + rest] if rest else []


class ResponseHead(Head):
    """The head of an upstream's response. *start* holds the lines that the client gets, *via* our entry in Via.

    *plain_start* is the start without headers of CORS and Vary, and *vary* holds those values. Both are set where the
    gateway has CORS on. *is_special* says that it has, that there is a *cost*, or that routes have rules for headers:
    other responses need one check.
    """

    is_special = False
    plain_start: bytes | None = None
    vary: tuple[bytes, ...] = ()
    upgrade: bytes | None = None
    cost: bytes | None = None  # that the upstream charges
    start = b""
    block: list[tuple[bytes, bytes]] | None = None  # *start* and *via* as HTTP/2 has them, once that was needed
    is_dated = False

    def __init__(self, status: bytes, reason: bytes, *, minor: bool) -> None:
        self.minor = minor
        self.status = int(status)
        self.via = _VIA[minor]
        self._status_line = b"HTTP/1.1 " + status + (reason or b" ")

    def read(self, block: bytes, fields: HeaderFields) -> str | None:  # noqa: C901, PLR0912 - one branch for each kind
        """Parse the header lines in *block*; return what is wrong with them."""
        lines: list[bytes] = []
        of_cors: list[bytes] = []
        for line in block.split(b"\r\n")[:-1]:
            field = fields[line]
            if field is None:
                lines.append(line)
                continue
            kind, value = field
            if kind == CONTENT_LENGTH or kind == TRANSFER_ENCODING:  # noqa: SIM109, PLR1714 - cheaper than a tuple
                if (problem := self._read_framing(kind, value)) is not None:
                    return problem
            elif kind == KEEP_ALIVE:
                self._keeps_alive = True
            elif kind == CONNECTION:
                self.connection = value | (self.connection or _NO_OPTIONS)
            elif kind == DATE:
                lines.append(line)
                self.is_dated = True
            elif kind == UPGRADE:
                self.upgrade = value
            elif kind == COST:
                self.cost = value if self.cost is None else b"%b, %b" % (self.cost, value)  # RFC 9110 §5.3
            elif kind == CORS or kind == VARY:  # noqa: SIM109, PLR1714 - as above
                of_cors.append(line)
                if kind == VARY:
                    self.vary += (value,)
            elif kind == INVALID:
                return str(value)
        if self.connection or not self.minor:
            lines, of_cors = self._apply_connection(lines), self._apply_connection(of_cors)
        self.start = b"\r\n".join((self._status_line, *lines, *of_cors, b""))
        if not fields.via:
            self.via = b""
        self.is_special = self.cost is not None or fields.has_cors or fields.has_rules
        if fields.has_cors:
            self.plain_start = b"\r\n".join((self._status_line, *lines, b""))
        return None
