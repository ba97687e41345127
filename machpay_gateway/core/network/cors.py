"""CORS (Fetch §3.2): which origins' scripts may call, and the headers that say so. One value for each `cors` table."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from machpay_gateway.core.errors import ConfigurationError

Headers = list[tuple[bytes, bytes]]

ANY = "*"
# Of the gateway's own responses. Scripts see only a few others without being told (Fetch §2.2.2).
EXPOSED = (
    "RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-Id", "WWW-Authenticate", "ETag", "Location",
    "Idempotent-Replayed", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset",
)  # fmt: skip
_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    r"(?P<host>(?:\*\.)?[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*|\[[0-9a-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?"
)
_LABELS = re.compile(rb"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_METHOD = re.compile(r"[A-Z][A-Z0-9_-]{0,31}|\*")
_REQUESTED = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, \t-]{1,4096}")
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_MAX_AGE = 86_400  # Firefox caps it here, Chromium at two hours


@dataclass(frozen=True, slots=True)
class CorsSettings:
    """What scripts of other origins may do.

    *origins* are exact (`https://app.example.com`), all subdomains of one (`https://*.example.com`), or `*`; without
    any, CORS is off. *methods* and *headers* are those of requests, `*` for all. Browsers cache a preflight's response
    for *max_age_seconds*. *expose_headers* are headers of responses that scripts may read besides `EXPOSED`.
    *allow_credentials* lets browsers send cookies. Raises ConfigurationError.
    """

    origins: Sequence[str]
    methods: Sequence[str] = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
    headers: Sequence[str] = (ANY,)
    max_age_seconds: int = 600
    expose_headers: Sequence[str] = ()
    allow_credentials: bool = False
    allows_any: bool = field(init=False, repr=False)
    _exact: frozenset[bytes] = field(init=False, repr=False)
    _subdomains: tuple[tuple[bytes, bytes], ...] = field(init=False, repr=False)  # what is before and after them
    _exposed: tuple[bytes, bytes] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        origins = tuple(_validate_origin(text) for text in _texts("origins", self.origins))
        object.__setattr__(self, "origins", origins)
        object.__setattr__(self, "methods", _validated("methods", self.methods, _METHOD, "a method, as GET is"))
        object.__setattr__(self, "headers", _validated("headers", self.headers, _TOKEN, "the name of a header"))
        exposed = _validated("expose_headers", self.expose_headers, _TOKEN, "the name of a header")
        object.__setattr__(self, "expose_headers", exposed)
        if type(self.max_age_seconds) is not int or not 0 <= self.max_age_seconds <= _MAX_AGE:
            raise ConfigurationError(
                f"max_age_seconds is a whole number of seconds up to {_MAX_AGE}, not {self.max_age_seconds!r}"
            )
        if type(self.allow_credentials) is not bool:
            raise ConfigurationError(f"allow_credentials is true or false, not {self.allow_credentials!r}")
        if self.allow_credentials and ANY in origins:
            raise ConfigurationError(
                "allow_credentials would let every page act with its visitors' cookies: list the origins instead of *"
            )
        parts = [origin.encode().partition(b"*") for origin in origins]
        object.__setattr__(self, "allows_any", ANY in origins)
        object.__setattr__(self, "_exact", frozenset(before for before, wildcard, _ in parts if not wildcard))
        object.__setattr__(self, "_subdomains", tuple((before, after) for before, wildcard, after in parts if wildcard))
        names = ", ".join(dict.fromkeys((*EXPOSED, *exposed))).encode()
        object.__setattr__(self, "_exposed", (b"access-control-expose-headers", names))

    def response_headers(self, origin: bytes | None) -> Headers:
        """Return the headers of a response to a request of *origin*, None for a request without one."""
        allowed = self._allowed(origin)
        return [] if allowed is None else [*allowed, self._exposed]

    def preflight_headers(self, origin: bytes, method: bytes, headers: bytes | None) -> Headers:
        """Return the headers of the response to a preflight that requests *method* and *headers*.

        Without permission for *origin*, the browser does not send the request. It compares the others itself.
        """
        vary = [] if self.allows_any else [b"Origin"]
        vary += [b"Access-Control-Request-Method", b"Access-Control-Request-Headers"]
        fields: Headers = [(b"vary", b", ".join(vary))]
        allowed = self._allowed(origin)
        if allowed is None:
            return fields
        methods = method if ANY in self.methods else ", ".join(self.methods).encode()
        fields += [*allowed, (b"access-control-allow-methods", methods)]
        if ANY not in self.headers:
            fields.append((b"access-control-allow-headers", ", ".join(self.headers).encode()))
        elif headers is not None and _REQUESTED.fullmatch(headers):
            # Fetch §3.2.3: a `*` would not allow Authorization.
            fields.append((b"access-control-allow-headers", headers))
        fields.append((b"access-control-max-age", b"%d" % self.max_age_seconds))
        return fields

    def _allowed(self, origin: bytes | None) -> Headers | None:
        if origin is None or not (self.allows_any or self._allows(origin)):
            return None
        fields: Headers = [(b"access-control-allow-origin", b"*" if self.allows_any else origin)]
        if self.allow_credentials:
            fields.append((b"access-control-allow-credentials", b"true"))
        return fields

    def _allows(self, origin: bytes) -> bool:
        if origin in self._exact:
            return True
        return any(
            origin.startswith(before)
            and origin.endswith(after)
            and _LABELS.fullmatch(origin, len(before), len(origin) - len(after))
            for before, after in self._subdomains
        )


def merge_vary(values: Sequence[bytes]) -> bytes:
    """Return the one value of Vary for a response that has these *values*, and depends on the origin."""
    names = [name for value in values for part in value.split(b",") if (name := part.strip(b" \t"))]
    if not any(name.lower() in {b"origin", b"*"} for name in names):
        names.append(b"Origin")
    return b", ".join(names)


def _texts(name: str, setting: object) -> tuple[str, ...]:
    items = [part.strip() for part in setting.split(",") if part.strip()] if isinstance(setting, str) else setting
    if not isinstance(items, Sequence) or not all(isinstance(item, str) for item in items):
        raise ConfigurationError(f"{name} is a list of texts, not {setting!r}")
    return tuple(items)


def _validated(name: str, setting: object, pattern: re.Pattern[str], kind: str) -> tuple[str, ...]:
    items = _texts(name, setting)
    for item in items:
        if not pattern.fullmatch(item):
            raise ConfigurationError(f"{name}: {item!r} is not {kind}")
    return items


def _validate_origin(text: str) -> str:
    """Return *text* as browsers send it in Origin (RFC 6454 §6.2). Raises ConfigurationError with the way out."""
    origin = text.lower()
    if origin == ANY:
        return origin
    if origin == "null":
        raise ConfigurationError("origins: 'null' is the origin of any sandboxed frame and local file: name your own")
    if "://" not in origin:
        raise ConfigurationError(f"origins: {text!r} lacks a scheme: write https://{text}")
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        raise ConfigurationError(f"origins: {text!r} is not an origin: {_way_out(origin)}")
    if match["port"] == _DEFAULT_PORTS.get(match["scheme"], "none"):
        raise ConfigurationError(f"origins: {text!r}: browsers leave out the default port: drop :{match['port']}")
    host = match["host"]
    if host.startswith("*.") and "." not in host[2:] and host[2:] != "localhost":
        raise ConfigurationError(f"origins: {text!r} would allow every site below {host[2:]}: name a domain of yours")
    return origin


def _way_out(origin: str) -> str:
    scheme, _, rest = origin.partition("://")
    base = f"{scheme}://{re.split('[/?#]', rest)[0].rpartition('@')[2]}"
    if base != origin and _ORIGIN.fullmatch(base):
        return f"drop all but scheme, host and port: {base}"
    if not origin.isascii():
        return "write the host in its ASCII form (xn--…), as browsers send it"
    return "write it as in https://app.example.com, or https://*.example.com for all subdomains"


# For pages, whose forms act with a session's cookie; no setting opens them (RFC 9700 §2.6).
CORS_OFF = CorsSettings(())
# For endpoints that apps in browsers call, whoever made them: they use no cookies.
CORS_FOR_ALL = CorsSettings((ANY,))
