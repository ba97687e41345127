"""The policy: all routes, compiled once, with their tiers and environments."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from machpay_gateway.core.decision.path_readings import LiteralPaths, fold, folded_paths, without_extension
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.decision.request_limits import anonymous_request
from machpay_gateway.core.decision.route import ALL_THE_REST, ANY_METHOD, ONE_SEGMENT, PARAMETERS, Route
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.keys.key import ENVIRONMENTS
from machpay_gateway.core.limits.admission import AdmissionRequest
from machpay_gateway.core.limits.rate import TIERS, AnonymousLimits, Quota, Rate, Tier, describe_limit
from machpay_gateway.core.scopes import KNOWN_SCOPES, ScopeExpression

Unlisted = Literal["deny", "authenticated"]
PREFLIGHT = Route("OPTIONS /", public=True)
_UNLISTED = Route("* /{rest:path}")
_CACHE_SIZE = 1024
_LONG = 256  # characters of method and path; longer ones are not cached, which bounds the memory


class ApplicationRequirement(NamedTuple):
    """What the application's own route at *path* requires beyond the policy."""

    path: str
    requires: ScopeExpression


class ApplicationRoutes(Protocol):
    """The routes of a guarded application."""

    def requirement(self, method: str, path: str) -> ApplicationRequirement | None:
        """Return what the route for *method* and the canonical *path* requires, None for nothing."""


@dataclass(slots=True)
class _Node:
    """A node in the tree of templates. Mutable while a policy compiles, never after."""

    literals: dict[str, "_Node"] = field(default_factory=dict)
    one: "_Node | None" = None
    rest: Route | None = None
    route: Route | None = None

    def add(self, route: Route, segments: Iterable[str]) -> None:
        """Insert *route* at *segments*, joined with any route there."""
        node = self
        for segment in segments:
            if segment == ALL_THE_REST:
                node.rest = _joined(node.rest, route)
                return
            if segment == ONE_SEGMENT:
                node.one = node.one or _Node()
                node = node.one
            else:
                node = node.literals.setdefault(segment, _Node())
        node.route = _joined(node.route, route)

    def find(self, segments: Sequence[str], at: int = 0) -> Route | None:
        # A literal beats a parameter beats the rest, from left to right. Each node is visited at most once.
        if at == len(segments):
            return self.route
        segment = segments[at]
        if (node := self.literals.get(segment)) and (route := node.find(segments, at + 1)):
            return route
        if self.one and segment and (route := self.one.find(segments, at + 1)):
            return route
        return self.rest

    def match(self, segments: Sequence[str]) -> Route | Reason | None:
        """Return the route for the *segments* of a canonical path, or the reason to refuse an ambiguous one.

        A trailing slash, which is an empty last segment, only matters where it selects one of two routes.
        """
        if segments[-1]:
            # `/a/{rest:path}` matches `/a` too, for frameworks that mount an application there; other matches win.
            return self.find(segments) or self.find([*segments, ""])
        with_slash, without = self.find(segments), self.find(segments[:-1])
        is_two = with_slash and without and with_slash is not without and len(with_slash.segments) == len(segments)
        if is_two and len(segments) > 1:
            # `/a/` is `/a` to some frameworks and `/a/{rest:path}` to others: authorizing either would be a guess.
            return Reason.MALFORMED_REQUEST
        return without or with_slash


@dataclass(frozen=True, slots=True)
class _Tree:
    """The routes of one method, by templates *as_written* and *folded* (see `path_readings`)."""

    as_written: _Node
    folded: _Node

    def interpretations(self, path: str, match: Route | None) -> Iterator[Route]:
        """Yield the routes that some server may match *path* to; *match* is the one as written."""
        for segments in folded_paths(path):
            yield from self._at(segments, has_slash=path.endswith("/"))
            # A path that is listed with its extension does not stand for the one without.
            if (match is None or not match.is_literal) and (stem := without_extension(segments)):
                yield from (route for route in self._at(stem) if route.ends_in_literal)

    def _at(self, segments: Sequence[str], *, has_slash: bool = False) -> Iterator[Route]:
        route, below = self.folded.find(segments), self.folded.find([*segments, ""])
        if route is not None:
            yield route
        if below is not None and (route is None or has_slash):
            yield below


class Policy:
    """Finds the route of a request."""

    def __init__(  # noqa: PLR0913 - all that a decision depends on
        self,
        routes: Iterable[Route] = (),
        *,
        tiers: Mapping[str, Tier] = TIERS,
        unlisted: Unlisted = "authenticated",
        environments: Iterable[str] = ENVIRONMENTS,
        unlisted_environments: Iterable[str] | None = None,
        scopes: Iterable[str] = (),
        own_routes: Iterable[Route] = (),
        anonymous: AnonymousLimits | None = None,
        pages: Mapping[str, Route] | None = None,
    ) -> None:
        """Compile *routes*. *scopes* are names that keys may hold besides the default ones and those in routes.

        *own_routes* are those of the gateway's own APIs; *environments* do not narrow them; *unlisted_environments*
        are those of what no route lists, if they are fewer. *anonymous* limits callers
        of the other public routes. *pages* are public, by their paths, where no literal route is. Raises
        ConfigurationError, for example for two routes that match the same requests.
        """
        served = frozenset(environments)
        self.routes = (*own_routes, *(route.within(served) for route in routes))
        self.costs: Mapping[str, int] = {route.match: route.cost for route in self.routes}
        self.tiers = dict(tiers)
        self.anonymous = anonymous
        # They limit what is costly themselves. Preflights are few from browsers, and many behind one address.
        self._pages = pages or {}
        self._own = frozenset(route.match for route in (*own_routes, *self._pages.values()))
        self._unlimited = {PREFLIGHT.match, *self._own}
        self.unlisted = unlisted
        self._unlisted_route = _UNLISTED.within(
            served if unlisted_environments is None else frozenset(unlisted_environments)
        )
        self.scopes = tuple(dict.fromkeys([*KNOWN_SCOPES, *scopes, *_required_scopes(self.routes)]))
        for _, mistake in find_route_mistakes(self.routes, self.tiers, anonymous):
            raise ConfigurationError(mistake)
        methods = {route.method for route in self.routes} | {"HEAD", ANY_METHOD}
        self._strictest_routes: dict[tuple[object, ...], Route] = {}  # by the ids of the routes that were joined
        self._rules: dict[tuple[str, str], Route | Reason] = {}  # a cache, by method and path
        self._trees = {method: _tree_for(method, self.routes) for method in methods}
        self._literals = LiteralPaths(segment for route in self.routes for segment in route.literals)
        self._application: ApplicationRoutes | None = None
        self.literal: Mapping[tuple[str, str | None], Route] = self._literal_rules()

    def for_application(self, application: ApplicationRoutes) -> "Policy":
        """Return this policy in front of *application*: a request needs what both require."""
        policy = copy(self)
        policy._application = application  # noqa: SLF001 - of the same class
        policy._strictest_routes, policy._rules = {}, {}  # noqa: SLF001 - as above
        policy.literal = policy._literal_rules()  # noqa: SLF001 - as above
        return policy

    def _literal_rules(self) -> Mapping[tuple[str, str | None], Route]:
        # A template without parameters is the most specific one, so most requests need one look-up only.
        rules: dict[tuple[str, str | None], Route] = {
            (method, path): rule
            for route in self.routes
            if route.is_literal
            for path in (f"/{'/'.join(route.segments)}",)
            for method in self._methods_of(route)
            if isinstance(rule := self.rule(method, path), Route)
        }
        for path, page in self._pages.items():
            for method in self._methods_of(page):
                rules.setdefault((method, path), page)
        return rules

    def _methods_of(self, route: Route) -> Iterable[str]:
        if route.method == ANY_METHOD:
            return self._trees
        return ("GET", "HEAD") if route.method == "GET" else (route.method,)

    def route_for(self, facts: RequestFacts) -> Route | Reason:
        """Return the route of the request, or the reason to refuse it."""
        if facts.path is None:
            return Reason.MALFORMED_REQUEST
        rule = self.rule(facts.method, facts.path)
        if facts.preflight_for is None or (isinstance(rule, Route) and rule.method == facts.method):
            return rule
        # A preflight has no credentials (Fetch §3.2.2), so it passes where the announced request has a route, unless
        # OPTIONS is listed itself.
        actual = self.rule(facts.preflight_for, facts.path)
        return PREFLIGHT if isinstance(actual, Route) else actual

    def rule(self, method: str, path: str) -> Route | Reason:
        """Return the most specific route for *method* on the canonical *path*.

        Where another server may interpret *path* as one of another route, the caller must satisfy all of these routes.
        """
        # Paths repeat. Finding a route takes 2 µs, and 6 to 20 µs with all interpretations.
        if (rule := self._rules.get((method, path))) is None:
            rule = self._find(method, path)
            if self._application is not None and isinstance(rule, Route):
                rule = self._with_application(self._application, rule, method, path)
            if len(method) + len(path) < _LONG:
                if len(self._rules) >= _CACHE_SIZE:
                    self._rules.clear()  # invented paths may have filled it; real ones are back soon
                self._rules[method, path] = rule
        return rule

    def is_listed(self, method: str, path: str) -> bool:
        """Tell whether a route matches *method* and the canonical *path* as they are written."""
        tree = self._trees.get(method) or self._trees[ANY_METHOD]
        return isinstance(tree.as_written.match(path.split("/")[1:]), Route)

    def anonymous_request(self, route: Route, address: int | None) -> AdmissionRequest | None:
        """Return what a caller of the public *route* asks of the limiter, None without a limit."""
        limits = None if route.match in self._unlimited else self.anonymous
        return anonymous_request(route, limits, address) if limits is not None or route.limits else None

    def _find(self, method: str, path: str) -> Route | Reason:
        tree = self._trees.get(method) or self._trees[ANY_METHOD]
        segments = path.split("/")[1:]
        match = tree.as_written.match(segments)
        if isinstance(match, Reason):
            return match
        if self._literals.are_spelled_in(path, segments):
            return match or self._unlisted(path, has_one_interpretation=True)
        return self._strictest_interpretation(tree, path, match)

    def _with_application(self, application: ApplicationRoutes, rule: Route, method: str, path: str) -> Route:
        """Return *rule* with what the *application* requires of the request.

        The application refuses callers of public routes itself: they have no credential here.
        """
        if rule.public or rule.match in self._own or (more := application.requirement(method, path)) is None:
            return rule
        together = (rule.match, more)
        if (joined := self._strictest_routes.get(together)) is None:
            joined = self._strictest_routes[together] = rule.requiring(more.requires, f"{method} {more.path}")
        return joined

    def has_other_interpretations(self, method: str, path: str) -> bool:
        """Tell whether some server may match *path* to another route."""
        tree = self._trees.get(method) or self._trees[ANY_METHOD]
        match = tree.as_written.match(path.split("/")[1:])
        return not isinstance(match, Reason) and any(route is not match for route in tree.interpretations(path, match))

    def _strictest_interpretation(self, tree: _Tree, path: str, match: Route | None) -> Route | Reason:
        """Return the route of a *path* that is *match* as written, and that some server may match to others."""
        if match is None and self.unlisted == "deny":
            return Reason.ROUTE_NOT_FOUND
        others = {id(route): route for route in tree.interpretations(path, match) if route is not match}
        if match is not None:
            return self._strictest({id(match): match, **others}, may_be_public=True) if others else match
        if not others:
            return self._unlisted(path, has_one_interpretation=False)
        # The listed routes come first: the joined one has their method, which matters for preflights.
        others[id(self._unlisted_route)] = self._unlisted_route
        return self._strictest(others, may_be_public=True)

    def _unlisted(self, path: str, *, has_one_interpretation: bool) -> Route | Reason:
        """Return the route for a method that is not listed on *path*."""
        if self.unlisted == "deny":
            return Reason.ROUTE_NOT_FOUND
        # An unlisted method must not bypass what the listed methods of the path require: many frameworks serve a view
        # for every method unless configured not to.
        segments = path.split("/")[1:]
        others: dict[int, Route] = {}
        for tree in self._trees.values():
            other = tree.as_written.match(segments)
            if isinstance(other, Reason):
                return other
            if other is not None:
                others[id(other)] = other
            if not has_one_interpretation:
                others.update((id(route), route) for route in tree.interpretations(path, other))
        return self._strictest(others, may_be_public=False) if others else self._unlisted_route

    def _strictest(self, routes: Mapping[int, Route], *, may_be_public: bool) -> Route:
        """Return a route that admits a caller only if all *routes* do; they are given by their ids."""
        # Cached, because it takes 15 µs and unauthenticated callers can cause it with every request.
        together = (*routes, may_be_public)
        if (joined := self._strictest_routes.get(together)) is None:
            if len(self._strictest_routes) >= _CACHE_SIZE:
                self._strictest_routes.clear()
            joined = self._strictest_routes[together] = Route.all_of(
                tuple(routes.values()), may_be_public=may_be_public
            )
        return joined


def find_route_mistakes(
    routes: Sequence[Route], tiers: Mapping[str, Tier], anonymous: AnonymousLimits | None = None
) -> Iterator[tuple[int, str]]:
    """Yield the mistakes among *routes* that are each valid, with the index of the later route."""
    by_shape: dict[tuple[str, tuple[str, ...]], Route] = {}
    for index, route in enumerate(routes):
        if (earlier := by_shape.setdefault((route.method, route.segments), route)) is not route:
            yield index, f"Route {route.match!r} matches the same requests as {earlier.match!r}: keep one of them"
        limits = list(_counted_limits(tiers))
        if route.public:
            rates = () if anonymous is None or not anonymous.enforce else anonymous.limits.rates
            limits = [("[anonymous]", rate) for rate in rates]
        limits += [("the route", rate) for _, limit in route.limits if limit.enforce for rate in limit.limits.rates]
        for owner, limit in limits:
            if route.cost > limit.limit:
                problem = f"Route {route.match!r} costs {route.cost}, more than {owner} ever has"
                yield index, f"{problem} ({describe_limit(limit)}): lower the cost or raise the limit"


def _counted_limits(tiers: Mapping[str, Tier]) -> Iterator[tuple[str, Rate | Quota]]:
    """Yield each limit of units that the tiers set and enforce, after whose it is."""
    for name, tier in tiers.items():
        if not tier.enforce:
            continue
        for kind, limits in (("", tier.limits), ("account of ", tier.account_limits), ("owner of ", tier.owner_limits)):
            for limit in () if limits is None else limits.counted:
                yield f"{kind}tier {name!r}", limit


def _required_scopes(routes: Iterable[Route]) -> Iterator[str]:
    for route in routes:
        for names in route.requires.alternatives:
            yield from sorted(name for name in names if not name.endswith("*"))


def _tree_for(method: str, routes: Iterable[Route]) -> _Tree:
    """Return the tree of the routes that serve *method*; with the same segments, the more specific method wins."""
    methods = (method, "GET", ANY_METHOD) if method == "HEAD" else (method, ANY_METHOD)
    winners: dict[tuple[str, ...], Route] = {}
    for name in dict.fromkeys(methods):
        for route in routes:
            if route.method == name:
                winners.setdefault(route.segments, route)
    tree = _Tree(_Node(), _Node())
    for route in winners.values():
        tree.as_written.add(route, route.segments)
        tree.folded.add(route, _folded(route))
    return tree


def _folded(route: Route) -> Iterator[str]:
    """Yield the segments of *route* as `folded_paths` has them."""
    for segment in route.segments:
        if folded := segment if segment in PARAMETERS else fold(segment):
            yield folded


def _joined(earlier: Route | None, route: Route) -> Route:
    """Return the route for two templates that some server does not distinguish."""
    return route if earlier is None else Route.all_of((earlier, route), may_be_public=True)
