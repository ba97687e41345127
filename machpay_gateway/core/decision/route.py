"""Routes: what a method and path template require of a caller."""

import re
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields
from operator import itemgetter
from typing import Literal, get_args

from machpay_gateway.core.decision.path_rewriting import PathRewriting, parse_rewriting
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.keys.key import ENVIRONMENTS
from machpay_gateway.core.limits.rate import RouteLimit
from machpay_gateway.core.network.cors import CORS_OFF, CorsSettings
from machpay_gateway.core.network.header_rules import HeaderRules
from machpay_gateway.core.network.proxy_settings import PathChoice, ProxySettings
from machpay_gateway.core.scopes import ScopeExpression, parse_scope_expression

ClientCertificate = Literal["optional", "required"]

ANY_METHOD = "*"
_METHOD = re.compile(r"[A-Z][A-Z0-9_-]*|\*")
# Of IANA's registry, and those of caches and UPnP. A method that nobody sends is a typo: its route guards nothing.
METHODS = frozenset(
    re.findall(
        r"\S+",
        """
        GET HEAD POST PUT PATCH DELETE OPTIONS QUERY TRACE CONNECT ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT COPY LABEL
        LINK LOCK MERGE MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE ORDERPATCH PROPFIND PROPPATCH REBIND
        REPORT SEARCH UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL
        PURGE BAN M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE
        """,
    )
)
_LITERAL = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=:@]+")  # RFC 3986 §3.3 pchar, unescaped
_PARAMETER = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*(:path)?\}")
# Settings of the proxy that are fields of a route.
_OWN_OPTIONS = ("encoded_slash", "double_slash", "non_utf8_escapes", "buffer", "request_headers", "response_headers")
ONE_SEGMENT, ALL_THE_REST = PARAMETERS = ("{}", "{:path}")  # parameters in `segments`


@dataclass(frozen=True, slots=True)
class Route:
    """A rule: `Route("POST /v1/skills/execute", scopes="skills:execute", cost=1)`.

    *match* is a method (or `*`) and a path template: `{id}` is one segment, a final `{rest:path}` is all that follows,
    which may be nothing (`/a` for `/a/{rest:path}`) if no other route matches. A trailing slash makes no difference.
    HEAD uses the GET route unless a HEAD route is listed. `/a/` is refused where both `/a` and `/a/{rest:path}` are
    listed: frameworks disagree on which of the two it is.
    *scopes* is an expression (`"a b"` all, `"a | b"` any) or a list of names, all required. *cost* is in units of the
    window; 0 counts for concurrency only. *limit* applies beside those of tiers: a `RouteLimit`, or its table. A
    *public* route needs no credential. *environments* are those whose credentials are accepted. *proxy* overrides
    settings of the reverse proxy for this route, by the names of `ProxySettings`; *encoded_slash*, *double_slash*,
    *non_utf8_escapes*, *buffer*, *request_headers* and *response_headers* are some of these. The proxy forwards to the
    upstreams of *service*, or to the default ones. It removes *strip_prefix* from the path and puts *add_prefix* before
    it, or makes it of *rewrite*, a template with parameters of *match*. *cors* replaces the `cors` of the settings for
    this route: a `CorsSettings`, or its table. *client_certificate* is whether `machpay-gateway serve`
    requires one of the connection. Raises ConfigurationError.
    """

    match: str
    scopes: str | Sequence[str] = ""
    cost: int = 1
    public: bool = False
    environments: Collection[str] = frozenset(ENVIRONMENTS)
    limit: RouteLimit | Mapping[str, object] | None = None
    proxy: Mapping[str, object] = field(default_factory=dict, hash=False)
    encoded_slash: PathChoice | None = None
    double_slash: PathChoice | None = None
    non_utf8_escapes: PathChoice | None = None
    buffer: bool | None = None
    request_headers: HeaderRules | Mapping[str, object] | None = field(default=None, hash=False, repr=False)
    response_headers: HeaderRules | Mapping[str, object] | None = field(default=None, hash=False, repr=False)
    service: str | None = None
    strip_prefix: str | None = None
    add_prefix: str | None = None
    rewrite: str | None = None
    cors: CorsSettings | Mapping[str, object] | None = None
    client_certificate: ClientCertificate = "optional"
    method: str = field(init=False, repr=False)
    segments: tuple[str, ...] = field(init=False, repr=False)
    requires: ScopeExpression = field(init=False, repr=False)
    limits: tuple[tuple[str, RouteLimit], ...] = field(init=False, repr=False)  # by `match`
    rewriting: PathRewriting | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.match, str):  # TOML and untyped callers may pass any type
            raise ConfigurationError(f"Route {self.match!r} is not a text such as 'GET /v1/skills'")
        method, segments = _parse_match(self.match)
        requires = parse_scope_expression(self.scopes)
        if type(self.cost) is not int or self.cost < 0:
            raise ConfigurationError(
                f"Route {self.match!r}: cost {self.cost!r} is not a number of units: use 0 or more"
            )
        if type(self.public) is not bool:  # "false" must not open a route
            raise ConfigurationError(f"Route {self.match!r}: public is true or false, not {self.public!r}")
        if self.public and requires.alternatives:
            raise ConfigurationError(f"Route {self.match!r} is public and requires {requires}: drop one of the two")
        object.__setattr__(self, "proxy", self._proxy_changes())
        if self.service is not None and not (self.service and type(self.service) is str):
            raise ConfigurationError(f"Route {self.match!r}: service {self.service!r} is not the name of a service")
        try:
            rewriting = parse_rewriting(self.match, self.strip_prefix, self.add_prefix, self.rewrite)
        except ConfigurationError as exc:
            raise ConfigurationError(f"Route {self.match!r}: {exc}") from exc
        object.__setattr__(self, "rewriting", rewriting)
        if self.client_certificate not in get_args(ClientCertificate):
            raise ConfigurationError(
                f"Route {self.match!r}: client_certificate {self.client_certificate!r} is not optional or required"
            )
        object.__setattr__(self, "cors", _parse_cors(self.match, self.cors))
        limit = _parse_limit(self.match, self.limit, public=self.public)
        object.__setattr__(self, "limit", limit)
        object.__setattr__(self, "limits", () if limit is None else ((self.match, limit),))
        object.__setattr__(self, "method", method)
        object.__setattr__(self, "segments", segments)
        object.__setattr__(self, "requires", requires)
        object.__setattr__(self, "environments", _validate_environments(self.match, self.environments))

    def _proxy_changes(self) -> Mapping[str, object]:
        """Return *proxy* with the settings of the proxy that are fields of the route."""
        _check_proxy(self.match, self.proxy)
        own = {name: value for name in _OWN_OPTIONS if (value := getattr(self, name)) is not None}
        try:
            ProxySettings().with_changes(own)
        except ConfigurationError as exc:
            raise ConfigurationError(f"Route {self.match!r}: {exc}") from exc
        return {**self.proxy, **own}

    def __hash__(self) -> int:
        # Routes are keys of caches on the request path: hashing every field takes longer than what the cache saves.
        return hash(self.match)

    @property
    def is_literal(self) -> bool:
        """Whether the template has no parameters."""
        return not any(parameter in self.segments for parameter in PARAMETERS)

    @property
    def literals(self) -> tuple[str, ...]:
        """The segments that are no parameters."""
        return tuple(segment for segment in self.segments if segment not in PARAMETERS)

    @property
    def ends_in_literal(self) -> bool:
        """Whether the last segment is no parameter."""
        return self.segments[-1:] != () and self.segments[-1] not in PARAMETERS

    def within(self, served: frozenset[str]) -> "Route":
        """Return this route for a gateway that serves these environments; without a common one it refuses everyone."""
        narrowed = copy(self)
        object.__setattr__(narrowed, "environments", served.intersection(self.environments))
        return narrowed

    def requiring(self, scopes: ScopeExpression, match: str) -> "Route":
        """Return this route, requiring *scopes* too, as a route of the application with that *match* does."""
        joined = copy(self)
        more = Route("* /")
        object.__setattr__(more, "requires", scopes)
        both = Route.all_of((self, more)).requires
        object.__setattr__(joined, "requires", both)
        object.__setattr__(joined, "match", f"{self.match} + {match}")
        return joined

    @classmethod
    def all_of(cls, routes: "Sequence[Route]", *, may_be_public: bool = False) -> "Route":
        """Return a route that admits a caller only if every one of *routes* does.

        It is public if all of them are and it *may_be_public*.
        """
        joined = copy(routes[0])
        requires = [frozenset[str]()]
        for route in routes:
            if route.requires.alternatives:
                requires = [names | more for names in requires for more in route.requires.alternatives]
        values: dict[str, object] = {
            "match": " + ".join(route.match for route in routes),
            "method": next((route.method for route in routes if route.method != ANY_METHOD), ANY_METHOD),
            "requires": ScopeExpression(tuple(requires) if requires != [frozenset()] else ()),
            "cost": max(route.cost for route in routes),
            # In one order, however they were found: their numbers are in the names of policies.
            "limits": tuple(sorted({limit for route in routes for limit in route.limits}, key=itemgetter(0))),
            "public": may_be_public and all(route.public for route in routes),
            "client_certificate": max(route.client_certificate for route in routes),  # "required" of both
            # Servers disagree on which of them it is: what they do not have in common is not allowed.
            "cors": routes[0].cors if all(route.cors == routes[0].cors for route in routes) else CORS_OFF,
            "environments": frozenset.intersection(*(frozenset(route.environments) for route in routes)),
        }
        for attribute, value in values.items():
            object.__setattr__(joined, attribute, value)
        return joined


def _parse_match(match: str) -> tuple[str, tuple[str, ...]]:
    method, _, template = match.partition(" ")
    if not _METHOD.fullmatch(method):
        raise ConfigurationError(f"Route {match!r} does not start with a method: {_describe_method(method, template)}")
    if method not in METHODS and method != ANY_METHOD:
        raise ConfigurationError(
            f"Route {match!r}: {method} is not a method of HTTP; {_describe_method(method, template)}"
        )
    if not template.startswith("/"):
        raise ConfigurationError(f"Route {match!r}: the path {template!r} does not start with `/`{_meant(match)}")
    path = template[1:].removesuffix("/")
    texts = path.split("/") if path else []
    return method, tuple(_parse_segment(match, text, last=at == len(texts) - 1) for at, text in enumerate(texts))


def _describe_method(method: str, template: str) -> str:
    """Return what to write instead of a *method* that is none."""
    from difflib import get_close_matches  # noqa: PLC0415 - for mistakes only

    path = template.strip() if template.strip().startswith("/") else "/path"
    names = [name for name in re.split(r"[,|/]", method.upper()) if name]
    if len(names) > 1 and METHODS.issuperset(names):
        return f"write a route for each method, {' and '.join(f'`{name} {path}`' for name in names)}, or `* {path}`"
    if method.upper() in METHODS:
        return f"did you mean `{method.upper()} {path}`?"
    if method.upper() in {"WS", "WSS", "WEBSOCKET"}:
        return f"the handshake of a WebSocket is a GET: write `GET {path}`"
    if method.upper() not in {"ANY", "ALL"} and (close := get_close_matches(method.upper(), METHODS, n=1)):
        return f"did you mean `{close[0]} {path}`?"
    return f"write `GET {path}`, or `* {path}` for every method"


def _meant(match: str) -> str:
    """Return a hint if *match* only has other blanks than one, or lacks the slash."""
    words = match.split()
    if len(words) == 2 and "://" not in words[1]:  # noqa: PLR2004 - a method and a path
        return f": did you mean '{words[0]} /{words[1].lstrip('/')}'?"
    return ""


def _validate_environments(match: str, environments: Collection[str]) -> frozenset[str]:
    names = () if isinstance(environments, str) or not isinstance(environments, Collection) else tuple(environments)
    if not names or any(name not in ENVIRONMENTS for name in names):
        raise ConfigurationError(f"Route {match!r}: environments {environments!r} is not a list of live, test or both")
    return frozenset(names)


def _parse_limit(match: str, limit: RouteLimit | Mapping[str, object] | None, *, public: bool) -> RouteLimit | None:
    if limit is None:
        return None
    if isinstance(limit, Mapping):
        names = {"rate", "concurrency", "by", "enforce"}
        if unknown := set(limit) - names:
            raise ConfigurationError(
                f"Route {match!r}: limit: {min(unknown)!r} is not a setting here; known: {', '.join(sorted(names))}"
            )
        try:
            limit = RouteLimit(**limit)  # type: ignore[arg-type]  # it checks the values
        except ConfigurationError as exc:
            raise ConfigurationError(f"Route {match!r}: limit: {exc}") from exc
    if not isinstance(limit, RouteLimit):
        raise ConfigurationError(f"Route {match!r}: limit {limit!r} is not a table")
    if public and limit.by != "address":
        raise ConfigurationError(
            f'Route {match!r} is public, so its callers have no {limit.by}: limit it with by = "address"'
        )
    return limit


def _parse_cors(match: str, cors: CorsSettings | Mapping[str, object] | None) -> CorsSettings | None:
    if cors is None or isinstance(cors, CorsSettings):
        return cors
    names = [field.name for field in fields(CorsSettings) if field.init]
    if not isinstance(cors, Mapping):
        raise ConfigurationError(f"Route {match!r}: cors {cors!r} is not a table")
    if unknown := set(cors) - set(names):
        raise ConfigurationError(
            f"Route {match!r}: cors: {min(unknown)!r} is not a setting here; known: {', '.join(names)}"
        )
    if "origins" not in cors:
        raise ConfigurationError(f"Route {match!r}: cors lacks origins: use an empty list to turn it off")
    try:
        return CorsSettings(**cors)  # type: ignore[arg-type]  # it checks the values
    except ConfigurationError as exc:
        raise ConfigurationError(f"Route {match!r}: cors: {exc}") from exc


def _check_proxy(match: str, changes: Mapping[str, object]) -> None:
    if not isinstance(changes, Mapping):
        raise ConfigurationError(f"Route {match!r}: proxy {changes!r} is not a table")
    try:
        ProxySettings().with_changes(changes)
    except ConfigurationError as exc:
        raise ConfigurationError(f"Route {match!r}: proxy: {exc}") from exc


def _parse_segment(match: str, text: str, *, last: bool) -> str:
    if parameter := _PARAMETER.fullmatch(text):
        if not parameter[1]:
            return ONE_SEGMENT
        if last:
            return ALL_THE_REST
        raise ConfigurationError(f"Route {match!r}: {text} takes all that follows, so it must come last")
    if text in {".", ".."} or not _LITERAL.fullmatch(text):
        way_out = "a parameter is a whole segment, {id}, or {rest:path} at the end" if "{" in text else "write it plain"
        raise ConfigurationError(f"Route {match!r}: {text!r} is not a path segment; {way_out}")
    return text
