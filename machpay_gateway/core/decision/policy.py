"""The policy: all routes, compiled once, and the tiers and environments they are served under."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from machpay_gateway.core.decision.path_readings import LiteralPaths, fold, folded_paths, without_extension
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.decision.route import ALL_THE_REST, ANY_METHOD, ONE_SEGMENT, PARAMETERS, Route
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.keys.key import ENVIRONMENTS
from machpay_gateway.core.limits.rate import TIERS, Tier
from machpay_gateway.core.scopes import KNOWN_SCOPES

Unlisted = Literal["deny", "authenticated"]
PREFLIGHT = Route("OPTIONS /", public=True)
_UNLISTED = Route("* /{rest:path}")
_MOST_REMEMBERED = 1024
_LONG = 256  # characters of method and path, from which on they are not remembered: that must not fill the memory


@dataclass(slots=True)
class _Node:
    """One place in the tree of templates. Mutable while a policy compiles, never after."""

    literals: dict[str, "_Node"] = field(default_factory=dict)
    one: "_Node | None" = None
    rest: Route | None = None
    route: Route | None = None

    def add(self, route: Route, segments: Iterable[str]) -> None:
        """Put *route* at *segments*, together with what is there already."""
        node = self
        for segment in segments:
            if segment == ALL_THE_REST:
                node.rest = _together(node.rest, route)
                return
            if segment == ONE_SEGMENT:
                node.one = node.one or _Node()
                node = node.one
            else:
                node = node.literals.setdefault(segment, _Node())
        node.route = _together(node.route, route)

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
        """Return the route for the *segments* of a canonical path.

        A slash at its end, an empty segment, makes no difference unless it makes two.
        """
        if segments[-1]:
            # `/a/{rest:path}` is `/a` too, for frameworks that mount something there; whatever else fits comes first.
            return self.find(segments) or self.find([*segments, ""])
        with_slash, without = self.find(segments), self.find(segments[:-1])
        is_two = with_slash and without and with_slash is not without and len(with_slash.segments) == len(segments)
        if is_two and len(segments) > 1:
            # `/a/` is `/a` to some frameworks and `/a/{rest:path}` to others: authorising either would be a guess.
            return Reason.MALFORMED_REQUEST
        return without or with_slash


@dataclass(frozen=True, slots=True)
class _Tree:
    """What may answer one method: by paths *as_written*, and by what other servers make of them, *folded*."""

    as_written: _Node
    folded: _Node

    def otherwise(self, path: str, found: Route | None) -> Iterator[Route]:
        """Yield the routes that some server may take *path* for; *found* is the one that it is listed under."""
        for segments in folded_paths(path):
            yield from self._at(segments, has_slash=path.endswith("/"))
            # What is listed with an extension is no other thing with one.
            if (found is None or not found.is_literal) and (stem := without_extension(segments)):
                yield from (route for route in self._at(stem) if route.ends_in_literal)

    def _at(self, segments: Sequence[str], *, has_slash: bool = False) -> Iterator[Route]:
        route, below = self.folded.find(segments), self.folded.find([*segments, ""])
        if route is not None:
            yield route
        if below is not None and (route is None or has_slash):
            yield below


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
        for mistake in find_route_mistakes(self.routes, self.tiers):
            raise ConfigurationError(mistake[1])
        methods = {route.method for route in self.routes} | {"HEAD", ANY_METHOD}
        self._joined: dict[tuple[object, ...], Route] = {}  # by the ids of the routes that share a path
        self._remembered: dict[tuple[str, str], Route | Reason] = {}  # by method and path
        self._trees = {method: _tree_for(method, self.routes) for method in methods}
        self._literals = LiteralPaths(segment for route in self.routes for segment in route.literals)
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
        """Return the most specific rule for *method* on the canonical *path*.

        Where another server may read *path* as one that is listed otherwise, the rules of all readings hold together.
        """
        # Ids and names of files come again. Finding a rule takes 2 µs, and 6 to 20 where it takes a closer look.
        if (rule := self._remembered.get((method, path))) is None:
            rule = self._find(method, path)
            if len(method) + len(path) < _LONG:
                if len(self._remembered) >= _MOST_REMEMBERED:
                    self._remembered.clear()  # of what somebody made up; the others are back at once
                self._remembered[method, path] = rule
        return rule

    def _find(self, method: str, path: str) -> Route | Reason:
        tree = self._trees.get(method) or self._trees[ANY_METHOD]
        segments = path.split("/")[1:]
        found = tree.as_written.match(segments)
        if isinstance(found, Reason):
            return found
        if self._literals.are_spelled_in(path, segments):
            return found or self._unlisted(path, is_read_alike=True)
        return self._read_closer(tree, path, found)

    def has_other_interpretations(self, method: str, path: str) -> bool:
        """Tell whether some server may read *path* as one that is listed otherwise."""
        tree = self._trees.get(method) or self._trees[ANY_METHOD]
        found = tree.as_written.match(path.split("/")[1:])
        return not isinstance(found, Reason) and any(route is not found for route in tree.otherwise(path, found))

    def _read_closer(self, tree: _Tree, path: str, found: Route | None) -> Route | Reason:
        """Return the rule for a *path* that is listed as *found* and that some server may read otherwise."""
        if found is None and self.unlisted == "deny":
            return Reason.ROUTE_NOT_FOUND
        others = {id(route): route for route in tree.otherwise(path, found) if route is not found}
        if found is not None:
            return self._strictest({id(found): found, **others}, may_be_public=True) if others else found
        if not others:
            return self._unlisted(path, is_read_alike=False)
        # The listed ones first: what comes of a preflight depends on whether their method is listed by itself.
        others[id(self._unlisted_route)] = self._unlisted_route
        return self._strictest(others, may_be_public=True)

    def _unlisted(self, path: str, *, is_read_alike: bool) -> Route | Reason:
        """Return the rule for a method that is not listed on *path*."""
        if self.unlisted == "deny":
            return Reason.ROUTE_NOT_FOUND
        # A method that nobody listed must not be a way around what the path's listed ones require: many frameworks
        # serve a view by any method unless told otherwise.
        segments = path.split("/")[1:]
        others: dict[int, Route] = {}
        for tree in self._trees.values():
            other = tree.as_written.match(segments)
            if isinstance(other, Reason):
                return other
            if other is not None:
                others[id(other)] = other
            if not is_read_alike:
                others.update((id(route), route) for route in tree.otherwise(path, other))
        return self._strictest(others, may_be_public=False) if others else self._unlisted_route

    def _strictest(self, routes: Mapping[int, Route], *, may_be_public: bool) -> Route:
        """Return what lets in only whom every one of *routes* would, by their ids."""
        # Joined once: strangers may ask this with every request, and it takes 15 µs.
        together = (*routes, may_be_public)
        if (joined := self._joined.get(together)) is None:
            if len(self._joined) >= _MOST_REMEMBERED:
                self._joined.clear()
            joined = self._joined[together] = Route.all_of(tuple(routes.values()), may_be_public=may_be_public)
        return joined


def find_route_mistakes(routes: Sequence[Route], tiers: Mapping[str, Tier]) -> Iterator[tuple[int, str]]:
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


def _tree_for(method: str, routes: Iterable[Route]) -> _Tree:
    """Return the tree of what may answer *method*: its own routes first, so that they win where shapes are the same."""
    answered_by = (method, "GET", ANY_METHOD) if method == "HEAD" else (method, ANY_METHOD)
    winners: dict[tuple[str, ...], Route] = {}
    for name in dict.fromkeys(answered_by):
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


def _together(there: Route | None, route: Route) -> Route:
    """Return the rule for two templates that some server cannot tell apart."""
    return route if there is None else Route.all_of((there, route), may_be_public=True)
