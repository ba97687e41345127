"""The policy: all routes, compiled once, and the tiers and environments they are served under."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.facts import RequestFacts
from machpay_gateway.core.key import ENVIRONMENTS
from machpay_gateway.core.quota import TIERS, Tier
from machpay_gateway.core.reason import Reason
from machpay_gateway.core.route import ALL_THE_REST, ANY_METHOD, ONE_SEGMENT, Route
from machpay_gateway.core.scopes import KNOWN_SCOPES

Unlisted = Literal["deny", "authenticated"]
PREFLIGHT = Route("OPTIONS /", public=True)
_UNLISTED = Route("* /{rest:path}")


@dataclass(slots=True)
class _Node:
    """One place in the tree of templates. Mutable while a policy compiles, never after."""

    literals: dict[str, "_Node"] = field(default_factory=dict)
    one: "_Node | None" = None
    rest: Route | None = None
    route: Route | None = None

    def add(self, route: Route) -> None:
        node = self
        for segment in route.segments:
            if segment == ALL_THE_REST:
                node.rest = node.rest or route
                return
            if segment == ONE_SEGMENT:
                node.one = node.one or _Node()
                node = node.one
            else:
                node = node.literals.setdefault(segment, _Node())
        node.route = node.route or route

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

    def match(self, path: str) -> Route | Reason | None:
        """Return the route for a canonical *path*; a trailing slash makes no difference unless it makes two."""
        segments = path.split("/")[1:]
        if segments[-1]:
            # `/a/{rest:path}` is `/a` too, for frameworks that mount something there; whatever else fits comes first.
            return self.find(segments) or self.find([*segments, ""])
        with_slash, without = self.find(segments), self.find(segments[:-1])
        is_two = with_slash and without and with_slash is not without and len(with_slash.segments) == len(segments)
        if is_two and path != "/":
            # `/a/` is `/a` to some frameworks and `/a/{rest:path}` to others: authorising either would be a guess.
            return Reason.MALFORMED_REQUEST
        return without or with_slash


class Policy:
    """Which rule holds for a request. Compiled from *routes*; raises ConfigurationError for two rules of one shape."""

    def __init__(
        self,
        routes: Iterable[Route] = (),
        *,
        tiers: Mapping[str, Tier] = TIERS,
        unlisted: Unlisted = "authenticated",
        environments: Iterable[str] = ENVIRONMENTS,
        scopes: Iterable[str] = (),
        own_routes: Iterable[Route] = (),
    ) -> None:
        """Compile *routes*. *scopes* are names that keys may hold besides the guide's and those that routes require.

        *own_routes* are of the gateway's own APIs, and are served as they are, whatever *environments* are.
        """
        served = frozenset(environments)
        self.routes = (*own_routes, *(route.within(served) for route in routes))
        self.costs: Mapping[str, int] = {route.match: route.cost for route in self.routes}
        self.tiers = dict(tiers)
        self.unlisted = unlisted
        self._unlisted_route = _UNLISTED.within(served)
        self.scopes = tuple(dict.fromkeys([*KNOWN_SCOPES, *scopes, *_required_scopes(self.routes)]))
        for mistake in mistakes_in(self.routes, self.tiers):
            raise ConfigurationError(mistake[1])
        methods = {route.method for route in self.routes} | {"HEAD", ANY_METHOD}
        self._joined: dict[tuple[int, ...], Route] = {}  # by the ids of the routes that share a path
        self._trees = {method: _tree_for(method, self.routes) for method in methods}
        # A template without parameters is the most specific there can be, so most requests are one lookup.
        self.literal: Mapping[tuple[str, str | None], Route] = {
            (method, path): rule
            for method in self._trees
            for path in {f"/{'/'.join(route.segments)}" for route in self.routes if route.is_literal}
            if isinstance(rule := self.rule(method, path), Route)
        }

    def route_for(self, facts: RequestFacts) -> Route | Reason:
        """Return the rule for the request, or the reason why there is none."""
        if facts.path is None:
            return Reason.MALFORMED_REQUEST
        rule = self.rule(facts.method, facts.path)
        if facts.preflight_for is None or (isinstance(rule, Route) and rule.method == facts.method):
            return rule
        # A preflight carries no credentials (Fetch §3.2.2), so it passes wherever the request it asks about may come,
        # unless OPTIONS is listed by itself.
        asked = self.rule(facts.preflight_for, facts.path)
        return PREFLIGHT if isinstance(asked, Route) else asked

    def rule(self, method: str, path: str) -> Route | Reason:
        """Return the most specific rule for *method* on the canonical *path*."""
        found = self._trees.get(method, self._trees[ANY_METHOD]).match(path)
        if found is not None:
            return found
        if self.unlisted == "deny":
            return Reason.ROUTE_NOT_FOUND
        # A method that nobody listed must not be a way around what the path's listed ones require: many frameworks
        # serve a view by any method unless told otherwise.
        others: dict[int, Route] = {}
        for tree in self._trees.values():
            other = tree.match(path)
            if isinstance(other, Reason):
                return other
            if other is not None:
                others[id(other)] = other
        if not others:
            return self._unlisted_route
        # Joined once: strangers may ask this with every request, and it takes 15 µs.
        together = tuple(others)
        if (joined := self._joined.get(together)) is None:
            joined = self._joined[together] = Route.all_of(tuple(others.values()))
        return joined


def mistakes_in(routes: Sequence[Route], tiers: Mapping[str, Tier]) -> Iterator[tuple[int, str]]:
    """Yield what is wrong among *routes* that are each well-formed, with the index of the later one."""
    seen: dict[tuple[str, tuple[str, ...]], Route] = {}
    for index, route in enumerate(routes):
        if (earlier := seen.setdefault((route.method, route.segments), route)) is not route:
            yield index, f"Route {route.match!r} matches the same requests as {earlier.match!r}: keep one of them"
        for name, tier in tiers.items():
            if route.cost > tier.limit:
                told = f"Route {route.match!r} costs {route.cost}, more than tier {name!r} ever has ({tier.rate})"
                yield index, f"{told}: lower the cost or raise the tier"


def _required_scopes(routes: Iterable[Route]) -> Iterator[str]:
    for route in routes:
        for names in route.requires.alternatives:
            yield from sorted(name for name in names if not name.endswith("*"))


def _tree_for(method: str, routes: Iterable[Route]) -> _Node:
    """Return the tree of what may answer *method*: its own routes first, so that they win where shapes are the same."""
    answered_by = (method, "GET", ANY_METHOD) if method == "HEAD" else (method, ANY_METHOD)
    tree = _Node()
    for name in dict.fromkeys(answered_by):
        for route in routes:
            if route.method == name:
                tree.add(route)
    return tree
