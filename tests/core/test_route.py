import pytest

from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.errors import ConfigurationError


@pytest.mark.parametrize(
    "match, method, segments",
    [
        ("GET /", "GET", ()),
        ("* /", "*", ()),
        ("POST /v1/skills/execute", "POST", ("v1", "skills", "execute")),
        ("GET /v1/skills/", "GET", ("v1", "skills")),  # a trailing slash makes no difference
        ("GET /v1/{id}/x", "GET", ("v1", "{}", "x")),
        ("GET /v1/{other_name}/x", "GET", ("v1", "{}", "x")),  # names are for people
        ("* /files/{rest:path}", "*", ("files", "{:path}")),
        ("* /{rest:path}", "*", ("{:path}",)),
        ("M-SEARCH /x", "M-SEARCH", ("x",)),
        ("GET /a.b/c~d/e:f@g/h,i;j=k/l+m/n$&'()*!", "GET", ("a.b", "c~d", "e:f@g", "h,i;j=k", "l+m", "n$&'()*!")),
        ("GET /...", "GET", ("...",)),
        ("GET /.well-known/x", "GET", (".well-known", "x")),
    ],
)
def test_a_match_is_a_method_and_segments(match: str, method: str, segments: tuple[str, ...]) -> None:
    route = Route(match)
    assert (route.method, route.segments) == (method, segments)


@pytest.mark.parametrize(
    "match, reason",
    [
        ("", "does not start with a method"),
        ("/v1/x", "does not start with a method"),
        ("get /v1/x", "does not start with a method"),
        ("GET,POST /v1/x", "does not start with a method"),
        (" GET /v1/x", "does not start with a method"),
        ("** /v1/x", "does not start with a method"),
        ("GET", "does not start with `/`"),
        ("GET v1/x", "does not start with `/`"),
        ("GET  /v1/x", "does not start with `/`: did you mean 'GET /v1/x'?"),
        ("GET v1/x ", "does not start with `/`: did you mean 'GET /v1/x'?"),
        ("GETT /x", "GETT is not a method of HTTP; did you mean `GET /x`?"),
        ("PSOT /x", "PSOT is not a method of HTTP; did you mean `POST /x`?"),
        ("ABCDEFG /x", "ABCDEFG is not a method of HTTP; write `GET /x`, or `* /x` for every method"),
        ("ANY /x", "write `GET /x`, or `* /x` for every method"),
        ("WS /live", "the handshake of a WebSocket is a GET: write `GET /live`"),
        ("Get /x", "does not start with a method: did you mean `GET /x`?"),
        ("GET,POST /x", "write a route for each method, `GET /x` and `POST /x`, or `* /x`"),
        ("GET|POST /x", "write a route for each method, `GET /x` and `POST /x`, or `* /x`"),
        ("get|head /x", "write a route for each method, `GET /x` and `HEAD /x`, or `* /x`"),
        ("GET https://api.example.com/v1", "does not start with `/`"),
        ("GET /a//b", "'' is not a path segment"),
        ("GET /a/../b", "'..' is not a path segment; write it plain"),
        ("GET /./b", "'.' is not a path segment"),
        ("GET /a%20b", "'a%20b' is not a path segment; write it plain"),
        ("GET /a b", "is not a path segment"),
        ("GET /a?b=c", "is not a path segment"),
        ("GET /a#b", "is not a path segment"),
        ("GET /a\\b", "is not a path segment"),
        ("GET /café", "is not a path segment"),
        ("GET /a\n", "is not a path segment"),
        ("GET /a-{id}", "a parameter is a whole segment"),
        ("GET /{id}.json", "a parameter is a whole segment"),
        ("GET /{}", "a parameter is a whole segment"),
        ("GET /{id:int}", "a parameter is a whole segment"),
        ("GET /{1d}", "a parameter is a whole segment"),
        ("GET /{a b}", "a parameter is a whole segment"),
        ("GET /{rest:path}/x", "takes all that follows, so it must come last"),
    ],
)
def test_an_invalid_match_is_refused_with_the_way_out(match: str, reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Route(match)
    assert reason in str(caught.value)
    assert repr(match) in str(caught.value)


@pytest.mark.parametrize("cost", [-1, 1.0, True, "1", None])
def test_an_invalid_cost_is_refused(cost: int) -> None:
    with pytest.raises(ConfigurationError, match=r"cost .* is not a number of units: use 0 or more"):
        Route("GET /x", cost=cost)


def test_a_cost_of_zero_is_valid() -> None:
    assert Route("GET /x", cost=0).cost == 0
    assert Route("GET /x").cost == 1


def test_a_public_route_that_requires_scopes_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="is public and requires a b: drop one of the two"):
        Route("GET /x", scopes="b a", public=True)


@pytest.mark.parametrize("public", ["false", "true", "", 1, 0, None])
def test_only_true_and_false_say_whether_a_route_is_public(public: bool) -> None:  # noqa: FBT001 - wrong types are tried
    # `public = "false"` in TOML must not open a route.
    with pytest.raises(ConfigurationError, match="public"):
        Route("GET /x", public=public)


@pytest.mark.parametrize("environments", [["live", "test"], ("live",), {"test"}, frozenset({"live"})])
def test_environments_are_taken_from_any_collection(environments: frozenset[str]) -> None:
    # TOML gives a list.
    assert Route("GET /x", environments=environments).environments == frozenset(environments)


@pytest.mark.parametrize("environments", [["prod"], [], "live", 5, [5]])
def test_environments_that_do_not_exist_are_refused(environments: frozenset[str]) -> None:
    with pytest.raises(ConfigurationError, match="live"):
        Route("GET /x", environments=environments)


@pytest.mark.parametrize(
    "options", [{"match": 5}, {"match": None}, {"match": "GET /x", "scopes": 5}, {"match": "GET /x", "scopes": [5]}]
)
def test_a_value_of_another_type_is_refused_as_a_mistake(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        Route(**options)  # type: ignore[arg-type]  # wrong types are what is tried


@pytest.mark.parametrize(
    "scopes, expression",
    [("", ""), ("b a", "a b"), ("a | b", "a | b"), (["b", "a"], "a b"), (("a",), "a"), ([], "")],
)
def test_scopes_are_an_expression_or_a_list(scopes: str | list[str], expression: str) -> None:
    assert str(Route("GET /x", scopes=scopes).requires) == expression


@pytest.mark.parametrize(
    "match, is_literal", [("GET /a/b", True), ("GET /", True), ("GET /a/{b}", False), ("GET /{a:path}", False)]
)
def test_a_literal_route_has_no_parameters(match: str, *, is_literal: bool) -> None:
    assert Route(match).is_literal is is_literal


def test_the_limits_of_joined_routes_have_one_order() -> None:
    routes = [Route(f"{method} /a", limit={"rate": "5/minute"}) for method in ("PUT", "POST", "DELETE")]
    joined = Route.all_of((Route.all_of(routes[:2]), routes[2]))
    assert joined.limits == Route.all_of((routes[2], Route.all_of(routes[1::-1]))).limits
    assert [match for match, _ in joined.limits] == ["DELETE /a", "POST /a", "PUT /a"]


def test_equal_routes_are_one_key_and_joined_ones_differ_by_all_of_their_limits() -> None:
    one, other = (Route("GET /a", limit={"rate": "5/minute"}) for _ in range(2))
    assert one == other
    assert len({one: 1, other: 2}) == 1
    twice = [Route.all_of((one, Route("GET /{id}", limit={"rate": rate}))) for rate in ("6/minute", "7/minute")]
    assert len(set(twice)) == 2
