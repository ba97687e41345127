"""Header fields by what a proxy does with them: most pass as they came, some are ours to read, drop or write anew."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from machpay_gateway.core.decision.identity_headers import is_identity_name
from machpay_gateway.core.network.cookies import sets_ours, without_ours
from machpay_gateway.core.network.trusted_headers import hyphened, is_believed

_new = tuple.__new__  # half the cost of a NamedTuple's own constructor
_MOST_REMEMBERED = 4096
_LONGEST_REMEMBERED = 256  # bytes
TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"  # RFC 9110 §5.6.2
_LENGTH = re.compile(rb"[0-9]{1,18}")  # below 2**63
# RFC 3986 §3.2.2: a name, of 255 characters at most, an IPv4 address or an IPv6 address in brackets; §3.2.3: a port.
_HOST = re.compile(rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=%]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?")
_KEEP_ALIVE = frozenset({b"keep-alive"})  # which says nothing in HTTP/1.1, and is said all the time
OTHER_CODING = "another transfer coding than chunked"
_FORGOTTEN = re.compile(rb"auth|cookie|dpop|key|pass|secret|session|signature|token|request-id|traceparent|tracestate")


# What is done with a field. Plain numbers, because a member of an enum takes longer to look up than all else here.
PASS, DROP, HOST, AUTHORIZATION, CONNECTION, KEEPS, LENGTH, CODING, UPGRADE, TE, WRONG = range(11)
CLIENT_ADDRESS, FORWARDED_PROTO, FORWARDED_HOST, REQUEST_ID, TRACE_PARENT, TRACE_STATE = range(11, 17)
COOKIE, SET_COOKIE = 17, 18
ORIGIN, PREFLIGHT, EXPECT, TYPE, DATE, PROOF = range(19, 25)  # read, and passed on all the same

# RFC 9110 §7.6.1: what concerns one connection alone.
_HOP_BY_HOP: Mapping[bytes, int] = {
    b"connection": CONNECTION,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"upgrade": UPGRADE,
    b"keep-alive": DROP,
    b"proxy-connection": DROP,
    b"proxy-authorization": DROP,
    b"proxy-authenticate": DROP,
}
_OF_REQUESTS: Mapping[bytes, int] = {
    **_HOP_BY_HOP,
    b"host": HOST,
    b"authorization": AUTHORIZATION,
    b"te": TE,
    b"expect": EXPECT,
    b"http2-settings": DROP,  # of an upgrade to h2c, which is not offered
    b"x-request-id": REQUEST_ID,
    b"origin": ORIGIN,
    b"dpop": PROOF,
    b"content-type": TYPE,
    b"cookie": COOKIE,
    b"access-control-request-method": PREFLIGHT,
    b"x-forwarded-proto": FORWARDED_PROTO,
    b"x-forwarded-host": FORWARDED_HOST,
}
_OF_TRACES: Mapping[bytes, int] = {b"traceparent": TRACE_PARENT, b"tracestate": TRACE_STATE}
_OF_OUR_ANSWERS: Mapping[bytes, int] = {**_HOP_BY_HOP, b"date": DATE}
_OF_ANSWERS: Mapping[bytes, int] = {**_OF_OUR_ANSWERS, b"x-request-id": DROP, b"set-cookie": SET_COOKIE}


class Managed(NamedTuple):
    """A field that does not just pass, with its value as its reader has it, else without the blanks around it."""

    kind: int
    value: Any


def tokens_of(value: bytes) -> frozenset[bytes]:
    """Return the tokens that a list field names (RFC 9110 §5.6.1), in lower case; empty ones say nothing."""
    return frozenset(token for part in value.split(b",") if (token := part.strip(b" \t").lower()))


def _read(kind: int, value: bytes) -> Managed | None:
    """Return a field with its *value* read, WRONG with what is wrong with it, or None if it passes as it came."""
    reader = _READERS.get(kind)
    if reader is None:
        return _new(Managed, (kind, value))
    read = reader(value)
    if read is None:
        return None
    if isinstance(read, str):
        return Managed(WRONG, read)
    return Managed(KEEPS, None) if kind == CONNECTION and read == _KEEP_ALIVE else Managed(kind, read)


def _host(value: bytes) -> bytes | str:
    return value if _HOST.fullmatch(value) else "a Host that is no name and no address"


def _length(value: bytes) -> int | str:
    return int(value) if _LENGTH.fullmatch(value) else "a Content-Length that is no length"


def _coding(value: bytes) -> bytes | str:
    return value if value.lower() == b"chunked" else OTHER_CODING


def _set_cookie(value: bytes) -> bool | None:
    return sets_ours(value) or None


_READERS: Mapping[int, Callable[[bytes], object]] = {
    HOST: _host,
    LENGTH: _length,
    CODING: _coding,
    CONNECTION: tokens_of,
    TE: tokens_of,
    COOKIE: without_ours,
    SET_COOKIE: _set_cookie,
}


class Fields(dict[bytes, Managed | None]):
    """What is done with a field, by its whole line: None passes. Most lines are seen again and again.

    So they are remembered, but for long ones and those whose name says that the value is a secret or never the same.
    """

    def __init__(
        self,
        managed: Mapping[bytes, int],
        *,
        passes_ours: bool = False,
        drops_believed: bool = False,
        passed: frozenset[bytes] = frozenset(),
    ) -> None:
        """Know the fields in *managed*, by their names in lower case. Ours are dropped unless it *passes_ours*.

        Where it *drops_believed*, what upstreams believe of a proxy is dropped but for the names in *passed*.
        """
        super().__init__()
        self._drops_believed = drops_believed
        self._passed = passed
        self._managed = managed
        self._passes_ours = passes_ours
        self._names: dict[bytes, tuple[int, bool]] = {}  # kind, and whether whole lines are remembered

    def __missing__(self, line: bytes) -> Managed | None:
        at = line.index(b":")
        kind, is_remembered = self._names.get(line[:at]) or self._learnt(line[:at])
        field = None if not kind else _read(kind, line[at + 1 :].strip(b" \t"))  # RFC 9112 §5.1
        if is_remembered and len(line) <= _LONGEST_REMEMBERED:
            if len(self) >= _MOST_REMEMBERED:
                self.clear()  # of what somebody made up; the others are back at once
            self[line] = field
        return field

    def _learnt(self, written: bytes) -> tuple[int, bool]:
        name = written.lower()
        known = self._kind_of(name), not _FORGOTTEN.search(name)
        if len(written) <= _LONGEST_REMEMBERED:
            if len(self._names) >= _MOST_REMEMBERED:
                self._names.clear()
            self._names[written] = known
        return known

    def _kind_of(self, name: bytes) -> int:
        if self._passes_ours:
            return self._managed.get(name, PASS)
        text = name.decode("latin-1")
        if is_identity_name(text):
            return DROP
        if (kind := self._managed.get(name)) is not None:
            return kind
        if name in self._passed:
            return PASS
        # CGI cannot tell some names from others, so that this may be a managed field by another way of writing it.
        plain = hyphened(text).encode("ascii")
        if plain in self._managed or plain.startswith(b"x-forwarded-"):
            return DROP
        return DROP if self._drops_believed and is_believed(text) else PASS


def request_fields(client_address_header: bytes, *, traced: bool = False, pass_headers: Iterable[str] = ()) -> Fields:
    """Return what is done with a request's fields; *client_address_header* (lower case) is believed from some peers.

    *pass_headers* (lower case) go on, though upstreams may believe them. Where requests are *traced*, we say of which
    trace they are a part.
    """
    of_traces = _OF_TRACES if traced else {}
    managed = {**_OF_REQUESTS, **of_traces, client_address_header: CLIENT_ADDRESS}
    return Fields(managed, drops_believed=True, passed=frozenset(name.encode() for name in pass_headers))


def answer_fields() -> Fields:
    """Return what is done with an answer's fields."""
    return Fields(_OF_ANSWERS)


def control_plane_fields() -> Fields:
    """Return what is done with the fields of an answer of our own control plane."""
    return Fields(_OF_OUR_ANSWERS, passes_ours=True)


def without(lines: Iterable[bytes], names: frozenset[bytes]) -> list[bytes]:
    """Return the *lines* of fields but those of these *names* in lower case."""
    return [line for line in lines if line.partition(b":")[0].lower() not in names]
