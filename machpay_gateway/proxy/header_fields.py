"""Header fields by what the proxy does with each: most pass unchanged, some are read, dropped or rewritten."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from machpay_gateway.core.brand import MACHPAY, Brand
from machpay_gateway.core.decision.credential_reader import PROTOCOLS as PROTOCOLS_NAME
from machpay_gateway.core.decision.credential_reader import CredentialReader, split_protocols
from machpay_gateway.core.decision.identity_headers import is_identity_name
from machpay_gateway.core.network.cookies import sets_own_cookie, split_own_cookies
from machpay_gateway.core.network.trusted_headers import hyphenate, is_trusted_header
from machpay_gateway.web.path_reader import PathReader

_new = tuple.__new__  # half the cost of a NamedTuple's own constructor
_MAX_CACHED = 4096
_MAX_CACHED_BYTES = 256  # of a line or a name
TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"  # RFC 9110 §5.6.2
_LENGTH_VALUE = re.compile(rb"[0-9]{1,18}")  # below 2**63
# RFC 3986 §3.2.2: a name, of 255 characters at most, an IPv4 address or an IPv6 address in brackets; §3.2.3: a port.
_HOST_VALUE = re.compile(rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=%]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?")
_CREDENTIALS = CredentialReader()
_PATHS = PathReader()
_KEEP_ALIVE_ALONE = frozenset({b"keep-alive"})  # frequent, and the default of HTTP/1.1
UNKNOWN_CODING = "a transfer coding other than chunked"
_NOT_CACHED = re.compile(rb"auth|cookie|dpop|key|pass|secret|session|signature|token|request-id|traceparent|tracestate")

# What the proxy does with a field. Plain integers: looking up an enum member costs more than everything else here.
PASS, DROP, HOST, AUTHORIZATION, CONNECTION, KEEP_ALIVE, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE, TE, INVALID = (
    range(11)
)
CLIENT_ADDRESS, FORWARDED_PROTO, FORWARDED_HOST, REQUEST_ID, TRACE_PARENT, TRACE_STATE = range(11, 17)
FORWARDED_PORT, FORWARDED_PREFIX = 17, 18
COOKIE, SET_COOKIE, COST, CREDENTIAL, PROTOCOLS, REFERER = range(19, 25)
ORIGIN, PREFLIGHT_METHOD, EXPECT, CONTENT_TYPE, DATE, DPOP_PROOF = range(25, 31)  # read, and forwarded unchanged
CORS, VARY = 31, 32
_NEVER_CACHED = frozenset({AUTHORIZATION, CREDENTIAL, PROTOCOLS, REFERER})

# RFC 9110 §7.6.1: hop-by-hop headers, which describe one connection.
_HOP_BY_HOP: Mapping[bytes, int] = {
    b"connection": CONNECTION,
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"upgrade": UPGRADE,
    b"keep-alive": DROP,
    b"proxy-connection": DROP,
    b"proxy-authorization": DROP,
    b"proxy-authenticate": DROP,
}
_REQUEST_FIELDS: Mapping[bytes, int] = {
    **_HOP_BY_HOP,
    b"host": HOST,
    b"te": TE,
    b"expect": EXPECT,
    b"http2-settings": DROP,  # belongs to an upgrade to h2c, which is not supported
    b"x-request-id": REQUEST_ID,
    b"origin": ORIGIN,
    b"dpop": DPOP_PROOF,
    b"content-type": CONTENT_TYPE,
    b"cookie": COOKIE,
    b"access-control-request-method": PREFLIGHT_METHOD,
    b"x-forwarded-proto": FORWARDED_PROTO,
    b"x-forwarded-host": FORWARDED_HOST,
    b"x-forwarded-port": FORWARDED_PORT,
    b"x-forwarded-prefix": FORWARDED_PREFIX,
    b"machpay-cost": DROP,  # an upstream that returns what it gets would let callers choose their cost
}
_TRACE_FIELDS: Mapping[bytes, int] = {b"traceparent": TRACE_PARENT, b"tracestate": TRACE_STATE}
_CONTROL_PLANE_FIELDS: Mapping[bytes, int] = {**_HOP_BY_HOP, b"date": DATE}
_RESPONSE_FIELDS: Mapping[bytes, int] = {
    **_CONTROL_PLANE_FIELDS,
    b"x-request-id": DROP,
    b"set-cookie": SET_COOKIE,
    b"machpay-cost": COST,
}
# Where the gateway has CORS on, its own replace those of an upstream.
_CORS_FIELDS: Mapping[bytes, int] = {
    b"access-control-allow-origin": CORS,
    b"access-control-allow-credentials": CORS,
    b"access-control-allow-headers": CORS,
    b"access-control-allow-methods": CORS,
    b"access-control-allow-private-network": CORS,
    b"access-control-expose-headers": CORS,
    b"access-control-max-age": CORS,
    b"vary": VARY,
}


class ManagedField(NamedTuple):
    """A field that does not pass unchanged. Its value is parsed, or just stripped if its kind has no parser."""

    kind: int
    value: Any


def tokens_of(value: bytes) -> frozenset[bytes]:
    """Return the tokens of a list field (RFC 9110 §5.6.1) in lower case, without empty ones."""
    return frozenset(token for part in value.split(b",") if (token := part.strip(b" \t").lower()))


def _parse(kind: int, value: bytes) -> ManagedField | None:
    """Return the field with its parsed *value*, INVALID with the problem as value, or None if it passes unchanged."""
    parser = _PARSERS.get(kind)
    if parser is None:
        return _new(ManagedField, (kind, value))
    parsed = parser(value)
    if parsed is None:
        return None
    if isinstance(parsed, str):
        return ManagedField(INVALID, parsed)
    if kind == CONNECTION and parsed == _KEEP_ALIVE_ALONE:
        return ManagedField(KEEP_ALIVE, None)
    return ManagedField(kind, parsed)


def _parse_host(value: bytes) -> bytes | str:
    return value if _HOST_VALUE.fullmatch(value) else "a Host that is neither a name nor an address"


def _parse_length(value: bytes) -> int | str:
    return int(value) if _LENGTH_VALUE.fullmatch(value) else "an invalid Content-Length"


def _parse_coding(value: bytes) -> bytes | str:
    return value if value.lower() == b"chunked" else UNKNOWN_CODING


def _parse_protocols(value: bytes) -> bytes | None:
    return None if split_protocols(value) is None else value


def _parse_set_cookie(value: bytes) -> bool | None:
    return sets_own_cookie(value) or None


_PARSERS: Mapping[int, Callable[[bytes], object]] = {
    HOST: _parse_host,
    CONTENT_LENGTH: _parse_length,
    TRANSFER_ENCODING: _parse_coding,
    CONNECTION: tokens_of,
    TE: tokens_of,
    COOKIE: split_own_cookies,
    PROTOCOLS: _parse_protocols,
    SET_COOKIE: _parse_set_cookie,
}


class HeaderFields(dict[bytes, ManagedField | None]):
    """A cache of what to do with a field, by its whole line; None means that it passes unchanged.

    Most lines repeat, so they are cached. Long lines are not, nor those whose name suggests a secret or a unique value.
    """

    def __init__(
        self,
        managed: Mapping[bytes, int],
        *,
        passes_identity: bool = False,
        drops_trusted: bool = False,
        passed: frozenset[bytes] = frozenset(),
        brand: Brand = MACHPAY,
        credentials: CredentialReader = _CREDENTIALS,
        paths: PathReader = _PATHS,
    ) -> None:
        """Manage the fields in *managed*, by name in lower case. Identity headers are dropped unless *passes_identity*.

        With *drops_trusted*, headers that upstreams trust a proxy to set are dropped, except the names in *passed*.
        *credentials* reads the credential of a request from its fields and its query, *paths* its path.
        """
        super().__init__()
        self.via = True
        self.has_rules = False
        self.credentials = credentials
        self.paths = paths
        self.has_cors = CORS in managed.values()
        self._drops_trusted = drops_trusted
        self._identity_prefix = brand.header_prefix
        self._passed = passed
        self._managed = managed
        self._passes_identity = passes_identity
        self._kinds: dict[bytes, tuple[int, bool]] = {}  # by name: kind, and whether whole lines are cached

    def __missing__(self, line: bytes) -> ManagedField | None:
        at = line.index(b":")
        kind, is_cacheable = self._kinds.get(line[:at]) or self._classify(line[:at])
        field = None if not kind else _parse(kind, line[at + 1 :].strip(b" \t"))  # RFC 9112 §5.1
        if is_cacheable and len(line) <= _MAX_CACHED_BYTES:
            if len(self) >= _MAX_CACHED:
                self.clear()  # an attacker's made-up lines filled it; the real ones are back within a few requests
            self[line] = field
        return field

    def _classify(self, spelling: bytes) -> tuple[int, bool]:
        """Return the kind of the field with this *spelling* of its name, and whether its lines may be cached."""
        name = spelling.lower()
        kind = self._kind_of(name)
        entry = kind, kind not in _NEVER_CACHED and not _NOT_CACHED.search(name)
        if len(spelling) <= _MAX_CACHED_BYTES:
            if len(self._kinds) >= _MAX_CACHED:
                self._kinds.clear()
            self._kinds[spelling] = entry
        return entry

    def _kind_of(self, name: bytes) -> int:
        if self._passes_identity:
            return self._managed.get(name, PASS)
        text = name.decode("latin-1")
        if is_identity_name(text, self._identity_prefix):
            return DROP
        if (kind := self._managed.get(name)) is not None:
            return kind
        if name in self._passed:
            return PASS
        # CGI maps several spellings to one name, so this may be an alternative spelling of a managed field.
        plain = hyphenate(text).encode("ascii")
        if plain in self._managed or plain.startswith(b"x-forwarded-"):
            return DROP
        return DROP if self._drops_trusted and is_trusted_header(text) else PASS


def request_fields(
    client_address_header: bytes,
    *,
    traced: bool = False,
    pass_headers: Iterable[str] = (),
    brand: Brand = MACHPAY,
    credentials: CredentialReader = _CREDENTIALS,
    paths: PathReader = _PATHS,
) -> HeaderFields:
    """Return the rules for request headers; *client_address_header* (lower case) is honored from trusted proxies only.

    *pass_headers* (lower case) are forwarded although upstreams may trust them. When requests are *traced*, the proxy
    replaces the trace context. *credentials* says which headers hold a credential, and *paths* reads paths.
    """
    trace_fields = _TRACE_FIELDS if traced else {}
    managed = {
        **_REQUEST_FIELDS,
        **trace_fields,
        **_credential_fields(credentials),
        client_address_header: CLIENT_ADDRESS,
    }
    passed = frozenset(name.encode() for name in pass_headers)
    for name in passed & {b"x-forwarded-port", b"x-forwarded-prefix"}:  # of every caller, not of trusted proxies only
        del managed[name]
    return HeaderFields(managed, drops_trusted=True, passed=passed, brand=brand, credentials=credentials, paths=paths)


def _credential_fields(credentials: CredentialReader) -> Mapping[bytes, int]:
    kinds = {b"authorization": AUTHORIZATION, PROTOCOLS_NAME: PROTOCOLS}
    fields = {name: kinds.get(name, CREDENTIAL) for name in credentials.headers}
    return fields if credentials.query is None else fields | {b"referer": REFERER}


def response_fields(*, with_cors: bool = False, via: bool = True, has_rules: bool = False) -> HeaderFields:
    """Return the rules for the headers of an upstream's response, of a gateway that has CORS on or off.

    *via* is whether the gateway adds itself to Via, *has_rules* whether a route has rules for the headers.
    """
    fields = HeaderFields({**_RESPONSE_FIELDS, **_CORS_FIELDS} if with_cors else _RESPONSE_FIELDS)
    fields.via, fields.has_rules = via, has_rules
    return fields


def control_plane_fields() -> HeaderFields:
    """Return the rules for the headers of a response from the gateway's own control plane."""
    return HeaderFields(_CONTROL_PLANE_FIELDS, passes_identity=True)


def may_be_secret(name: bytes) -> bool:
    """Return whether the values of fields with this *name*, in lower case, may be secret, or unique to a request."""
    return _NOT_CACHED.search(name) is not None


def lines_without(lines: Iterable[bytes], names: frozenset[bytes]) -> list[bytes]:
    """Return the header *lines* except those with one of these *names* (lower case)."""
    return [line for line in lines if line.partition(b":")[0].lower() not in names]
