from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machpay_gateway.core.decision.policy import PREFLIGHT, Policy, Unlisted, find_route_mistakes
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.limits.rate import TIERS, AnonymousLimits, Tier

NOT_FOUND, MALFORMED = Reason.ROUTE_NOT_FOUND, Reason.MALFORMED_REQUEST


def facts(method: str, path: str | None, preflight_for: str | None = None) -> RequestFacts:
    return RequestFacts(method, path, (), None, b"id", preflight_for)


def policy(*matches: str, unlisted: Unlisted = "deny") -> Policy:
    return Policy([Route(match) for match in matches], unlisted=unlisted)


def found(rules: Policy, method: str, path: str | None, preflight_for: str | None = None) -> str | Reason:
    route = rules.route_for(facts(method, path, preflight_for))
    return route if isinstance(route, Reason) else route.match


SPECIFIC = policy(
    "GET /",
    "GET /v1/skills",
    "GET /v1/skills/{id}",
    "GET /v1/skills/search",
    "POST /v1/skills/{id}/run",
    "* /v1/skills/search/run",
    "GET /v1/skills/{id}/runs/{run}",
    "GET /v1/files/{rest:path}",
    "GET /v1/files/{name}/info",
    "GET /v1/files/public/{rest:path}",
    "DELETE /v1/{kind}/{id}",
    "* /v1/any",
    "HEAD /v1/any",
    "PUT /v1/any",
)


@pytest.mark.parametrize(
    "method, path, expected",
    [
        ("GET", "/", "GET /"),
        ("GET", "/v1/skills", "GET /v1/skills"),
        ("GET", "/v1/skills/", "GET /v1/skills"),  # a trailing slash makes no difference
        ("GET", "/v1/skills/search", "GET /v1/skills/search"),  # a literal beats a parameter
        ("GET", "/v1/skills/find", "GET /v1/skills/{id}"),
        ("GET", "/v1/skills/find/", "GET /v1/skills/{id}"),
        ("POST", "/v1/skills/search/run", "* /v1/skills/search/run"),  # the path decides before the method's own route
        ("POST", "/v1/skills/find/run", "POST /v1/skills/{id}/run"),
        (
            "GET",
            "/v1/skills/search/runs/7",
            "GET /v1/skills/{id}/runs/{run}",
        ),  # back out of the literal that led nowhere
        ("DELETE", "/v1/skills/search", "DELETE /v1/{kind}/{id}"),  # what other methods have is no obstacle
        ("GET", "/v1/files/a", "GET /v1/files/{rest:path}"),
        ("GET", "/v1/files/a/b/c", "GET /v1/files/{rest:path}"),
        ("GET", "/v1/files/a/info", "GET /v1/files/{name}/info"),  # a parameter beats the rest
        ("GET", "/v1/files/public/info", "GET /v1/files/public/{rest:path}"),  # from left to right
        ("GET", "/v1/files/", "GET /v1/files/{rest:path}"),  # the rest may be empty after its slash
        ("GET", "/v1/files", "GET /v1/files/{rest:path}"),  # and so may the slash, when nothing else fits
        ("GET", "/v1/any", "* /v1/any"),
        ("PATCH", "/v1/any", "* /v1/any"),
        ("PUT", "/v1/any", "PUT /v1/any"),  # the method's own beats `*` where the shape is the same
        ("HEAD", "/v1/any", "HEAD /v1/any"),
        ("HEAD", "/v1/skills", "GET /v1/skills"),  # HEAD is answered by GET
        ("POST", "/v1/skills", NOT_FOUND),
        ("OPTIONS", "/v1/skills", NOT_FOUND),
        ("GET", "/v1", NOT_FOUND),
        ("GET", "/v1/skills/a/b", NOT_FOUND),
        ("GET", "/V1/skills", NOT_FOUND),  # paths are case-sensitive
        ("GET", "/v1/skills;x=1", NOT_FOUND),
        ("get", "/v1/skills", NOT_FOUND),
        ("*", "/v1/skills", NOT_FOUND),  # a method that is called as our mark is no mark
        ("GET", "/v1/skills/{}", "GET /v1/skills/{id}"),  # nor is a segment
        ("GET", None, MALFORMED),
    ],
)
def test_the_most_specific_route_wins(method: str, path: str | None, expected: str | Reason) -> None:
    assert found(SPECIFIC, method, path) == expected


@pytest.mark.parametrize(
    "matches, path, expected",
    [
        (["GET /a", "GET /a/{rest:path}"], "/a/", MALFORMED),  # frameworks disagree on which of the two it is
        (["GET /a", "GET /a/{rest:path}"], "/a", "GET /a"),
        (["GET /a", "GET /a/{rest:path}"], "/a/b/", "GET /a/{rest:path}"),
        (["GET /a", "GET /{rest:path}"], "/a/", "GET /a"),  # a catch-all further up is only what is left over
        (["GET /a/b", "GET /{x}/{rest:path}"], "/a/b/", "GET /a/b"),
        (["GET /{id}", "GET /{id}/{rest:path}"], "/a/", MALFORMED),
        (["GET /a", "GET /a/{id}"], "/a/", "GET /a"),  # a parameter is never empty
        (["GET /a/{rest:path}"], "/a/", "GET /a/{rest:path}"),
        (["GET /{rest:path}"], "/", "GET /{rest:path}"),
        (["GET /", "GET /{rest:path}"], "/", "GET /"),
        (["GET /{rest:path}"], "/a/b/", "GET /{rest:path}"),
        (["GET /{id}"], "/", NOT_FOUND),
    ],
)
def test_a_trailing_slash_is_unambiguous_or_refused(matches: list[str], path: str, expected: str | Reason) -> None:
    assert found(policy(*matches), "GET", path) == expected


@pytest.mark.parametrize("unlisted", ["deny", "authenticated"])
@pytest.mark.parametrize("method, path", [("GET", "/new"), ("POST", "/v1/skills"), ("GET", "/"), ("get", "/v1/skills")])
def test_an_unlisted_path_is_denied_or_needs_any_credential(unlisted: Unlisted, method: str, path: str) -> None:
    rules = policy("GET /v1/skills", unlisted=unlisted)
    route = rules.route_for(facts(method, path))
    if unlisted == "deny":
        assert route is NOT_FOUND
    else:
        assert isinstance(route, Route)
        assert not route.public
        assert route.requires.alternatives == ()
        assert route.cost == 1


def test_an_ambiguous_path_is_malformed_whether_listed_or_not() -> None:
    assert found(policy(unlisted="authenticated"), "GET", None) is MALFORMED
    assert found(policy(unlisted="authenticated"), "OPTIONS", None, "GET") is MALFORMED


@pytest.mark.parametrize(
    "path, asked, expected",
    [
        ("/v1/skills", "GET", PREFLIGHT.match),
        ("/v1/skills", "HEAD", PREFLIGHT.match),
        ("/v1/any", "PATCH", PREFLIGHT.match),
        ("/v1/skills", "POST", NOT_FOUND),  # nothing may come there, so nothing may be asked
        ("/nowhere", "GET", NOT_FOUND),
        (None, "GET", MALFORMED),
    ],
)
def test_a_preflight_passes_where_the_announced_request_has_a_route(
    path: str | None, asked: str, expected: str | Reason
) -> None:
    assert found(SPECIFIC, "OPTIONS", path, asked) == expected


def test_a_preflight_does_not_bypass_a_listed_options_route() -> None:
    rules = policy("OPTIONS /v1/x", "GET /v1/x", "* /v1/y")
    assert PREFLIGHT.public
    assert found(rules, "OPTIONS", "/v1/x", "GET") == "OPTIONS /v1/x"
    assert found(rules, "OPTIONS", "/v1/x") == "OPTIONS /v1/x"
    assert rules.route_for(facts("OPTIONS", "/v1/y", "GET")) is PREFLIGHT
    assert found(rules, "OPTIONS", "/v1/y") == "* /v1/y"


@pytest.mark.parametrize(
    "listed, path, requires, environments",
    [
        ([Route("POST /x", scopes="a")], "/x", "a", {"live", "test"}),
        ([Route("POST /x", scopes="a"), Route("GET /x", scopes="b | c")], "/x", "a b | a c", {"live", "test"}),
        ([Route("POST /x", scopes="a"), Route("GET /{id}", scopes="b")], "/x", "a b", {"live", "test"}),
        ([Route("POST /x", public=True)], "/x", "", {"live", "test"}),  # a credential, and any will do
        ([Route("POST /x", environments=["live"]), Route("GET /x", scopes="b")], "/x", "b", {"live"}),
        ([Route("POST /x", scopes="a")], "/y", "", {"live", "test"}),
    ],
)
def test_an_unlisted_method_does_not_bypass_the_scopes_of_its_path(
    listed: list[Route], path: str, requires: str, environments: set[str]
) -> None:
    rule = Policy(listed, unlisted="authenticated").rule("PUT", path)
    assert isinstance(rule, Route)
    assert (rule.public, str(rule.requires), rule.environments) == (False, requires, environments)
    assert Policy(listed, unlisted="deny").rule("PUT", path) is NOT_FOUND


def test_the_route_of_an_unlisted_method_is_cached() -> None:
    rules = Policy([Route("GET /a/{id}", scopes="x"), Route("POST /a/{id}", scopes="y")], unlisted="authenticated")
    assert rules.rule("PUT", "/a/1") is rules.rule("DELETE", "/a/2")


def test_a_path_that_is_ambiguous_to_listed_methods_is_so_to_unlisted_ones() -> None:
    # Otherwise `PUT /a/`, which many frameworks serve as they serve `GET /a`, would need no scope at all.
    rules = Policy([Route("GET /a", scopes="a"), Route("GET /a/{rest:path}", scopes="b")], unlisted="authenticated")
    assert rules.rule("GET", "/a/") is MALFORMED
    assert rules.rule("PUT", "/a/") is MALFORMED


@pytest.mark.parametrize("environments, expected", [(["live"], {"live"}), (["live", "test"], {"live", "test"})])
@pytest.mark.parametrize("path", ["/listed", "/unlisted"])
def test_routes_serve_the_environments_that_are_served(environments: list[str], expected: set[str], path: str) -> None:
    rules = Policy([Route("GET /listed")], environments=environments, unlisted="authenticated")
    route = rules.route_for(facts("GET", path))
    assert isinstance(route, Route)
    assert route.environments == expected


def test_a_route_may_serve_fewer_environments_than_are_served() -> None:
    only_live = replace(Route("GET /x"), environments=frozenset({"live"}))
    assert Policy([only_live]).routes[0].environments == {"live"}
    assert Policy([only_live], environments=["test"]).routes[0].environments == frozenset()


def test_scopes_that_keys_may_hold_are_the_guides_the_configured_and_the_required() -> None:
    routes = [Route("GET /a", scopes="reports:read | skills:list x"), Route("GET /b", scopes="family:*")]
    names = Policy(routes, scopes=["extra", "reports:read"]).scopes
    assert names[0] == "skills:execute"
    assert {"extra", "reports:read", "x"} < set(names)
    assert "family:*" not in names
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "one, other",
    [
        ("GET /a", "GET /a"),
        ("GET /a", "GET /a/"),
        ("GET /a/{id}", "GET /a/{name}"),
        ("* /{rest:path}", "* /{all:path}"),
        ("GET /", "GET /"),
    ],
)
def test_two_routes_of_one_shape_are_refused(one: str, other: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        policy(one, "POST /between", other)
    assert str(caught.value) == f"Route {other!r} matches the same requests as {one!r}: keep one of them"


@pytest.mark.parametrize("one, other", [("GET /a", "* /a"), ("GET /a/{id}", "GET /a/b"), ("GET /a", "GET /a/{r:path}")])
def test_routes_with_overlapping_matches_are_allowed(one: str, other: str) -> None:
    assert len(policy(one, other).routes) == 2


def test_a_cost_that_a_tier_never_has_is_refused_for_each_such_tier() -> None:
    routes = [Route("GET /cheap", cost=100), Route("GET /dear", cost=101)]
    mistakes = list(find_route_mistakes(routes, {**TIERS, "tiny": Tier("5/hour", 1)}))
    way_out = "lower the cost or raise the limit"
    assert mistakes == [
        (0, f"Route 'GET /cheap' costs 100, more than tier 'tiny' ever has (5/hour): {way_out}"),
        (1, f"Route 'GET /dear' costs 101, more than tier 'test' ever has (100/minute): {way_out}"),
        (1, f"Route 'GET /dear' costs 101, more than tier 'tiny' ever has (5/hour): {way_out}"),
    ]
    with pytest.raises(ConfigurationError, match="'GET /dear' costs 101"):
        Policy(routes)


def test_a_cost_that_a_limit_of_a_route_an_account_or_an_owner_never_has_is_refused() -> None:
    routes = [Route("GET /dear", cost=9, limit={"rate": ["8/minute", "9/hour"]})]
    shared = Tier("9/minute", 1, quota="9/day", account={"rate": "7/2 hours"}, owner={"quota": "6/month"})
    assert list(find_route_mistakes(routes, {"shared": shared})) == [
        (0, f"Route 'GET /dear' costs 9, more than {owner}: lower the cost or raise the limit")
        for owner in (
            "account of tier 'shared' ever has (7/2 hours)",
            "owner of tier 'shared' ever has (6/month)",
            "the route ever has (8/minute)",
        )
    ]


def test_a_cost_above_a_limit_that_is_not_enforced_is_fine() -> None:
    routes = [
        Route("GET /dear", cost=9, limit={"rate": "8/minute", "enforce": False}),
        Route("GET /public", cost=9, public=True),
    ]
    trial = Tier("8/minute", 1, account={"rate": "8/minute"}, enforce=False)
    assert not list(find_route_mistakes(routes, {"trial": trial}, AnonymousLimits("8/minute", enforce=False)))


def specificity(template: str, path: str) -> tuple[int, ...] | None:
    """Return how *template* fits *path*, the smaller the better, by the rule alone; None when it does not."""
    wanted, given = template.split("/")[1:], path.split("/")[1:]
    ranks: list[int] = []
    for at, part in enumerate(wanted):
        if part == "{r:path}":
            return (*ranks, 2) if at < len(given) else None
        if at >= len(given) or part not in {given[at], "{p}"}:
            return None
        ranks.append(1 if part == "{p}" else 0)
    return tuple(ranks) if len(wanted) == len(given) else None


PARTS = st.lists(st.sampled_from(["a", "b", "{p}"]), min_size=1, max_size=4)
TEMPLATES = st.builds(lambda parts, rest: "/" + "/".join(parts + rest), PARTS, st.sampled_from([[], ["{r:path}"]]))
PATHS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))


@given(st.sets(TEMPLATES, max_size=8), st.lists(PATHS, min_size=1, max_size=6))
def test_the_tree_agrees_with_a_linear_search(templates: set[str], paths: list[str]) -> None:
    rules = policy(*(f"GET {template}" for template in templates))
    for path in paths:
        fits = {fit: template for template in templates if (fit := specificity(template, path)) is not None}
        if not fits:  # the rest may be nothing at all, when nothing else fits
            rests = [template for template in templates if template.endswith("{r:path}")]
            fits = {fit: rest for rest in rests if (fit := specificity(rest, f"{path}/z")) is not None}
        expected = f"GET {fits[min(fits)]}" if fits else NOT_FOUND
        assert found(rules, "GET", path) == expected


def test_a_path_of_very_many_segments_is_decided() -> None:
    assert found(SPECIFIC, "GET", "/v1/files" + "/a" * 100_000) == "GET /v1/files/{rest:path}"
    assert found(SPECIFIC, "GET", "/a" * 100_000) is NOT_FOUND
