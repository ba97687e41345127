"""Paths that are spelled otherwise than the listed ones: the strictest rule of all their readings decides."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machpay_gateway.core.decision.path_readings import fold, folded_paths
from machpay_gateway.core.decision.policy import PREFLIGHT, Policy, Unlisted
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.decision.route import Route

ROUTES = (
    Route("GET /v1/account", scopes="account:read"),
    Route("PATCH /v1/account", scopes="account:write"),
    Route("GET /v1/skills", scopes="skills:list"),
    Route("GET /v1/skills/{id}", scopes="skills:list"),
    Route("GET /v1/skills/secret", scopes="skills:secret"),
    Route("GET /v1/{rest:path}", scopes="skills:list"),
    Route("GET /v1/admin/keys", scopes="admin"),
    Route("GET /docs/{rest:path}", public=True),
    Route("GET /docs/internal", scopes="docs:internal"),
    Route("GET /v1/getBalance/{id}", scopes="balance"),
    Route("OPTIONS /v1/cors", scopes="cors"),
    Route("GET /v1/cors", scopes="skills:list"),
)


def required(path: str, *, method: str = "GET", unlisted: Unlisted = "authenticated") -> str | Reason:
    rule = Policy(ROUTES, unlisted=unlisted).rule(method, path)
    if isinstance(rule, Reason):
        return rule
    return "public" if rule.public else str(rule.requires)


@pytest.mark.parametrize(
    "path, expected",
    [
        # As it is listed: its own rule, and nothing else.
        ("/v1/account", "account:read"),
        ("/v1/skills/secret", "skills:secret"),
        ("/docs/internal", "docs:internal"),
        ("/docs/intro", "public"),
        ("/docs/INTRO", "public"),  # nothing listed is spelled like that in any case
        ("/docs/style.css", "public"),
        ("/docs/internals", "public"),
        ("/v1/skills/Ab3", "skills:list"),
        ("/v1/getBalance/7", "balance"),
        ("/nothing", ""),
        # Case.
        ("/v1/ACCOUNT", "account:read skills:list"),
        ("/V1/account", "account:read"),
        ("/docs/INTERNAL", "docs:internal"),
        ("/DOCS/internal", "docs:internal"),
        ("/DOCS/intro", ""),  # nobody lists it as it is written, so that it asks for a credential
        ("/v1/skills/SECRET", "skills:list skills:secret"),
        ("/v1/getbalance/7", "balance skills:list"),  # the listed one is in mixed case
        ("/v1/GETBALANCE/7", "balance skills:list"),
        ("/docs/\u0131nternal", "docs:internal"),  # a dotless i is an I in upper case
        ("/docs/\u017fecret", "public"),
        ("/v1/\u017fkills/\u017fecret", "skills:list skills:secret"),  # so is a long s an S
        ("/docs/\uff49nternal", "docs:internal"),  # a full-width letter
        ("/docs/\u0130nternal", "docs:internal"),  # a dotted capital I
        ("/docs/inte\u00adrnal", "docs:internal"),  # a soft hyphen, which is seen by nobody
        ("/docs/int\u00e9rnal", "docs:internal"),  # an accent, which some databases ignore
        # Path parameters.
        ("/v1/account;x=1", "account:read skills:list"),
        ("/v1;x/account", "account:read skills:list"),  # whoever cuts off all that follows reads `/v1`
        ("/v1/admin/keys;x=1", "admin skills:list"),
        ("/v1/admin;a=b/keys;c", "admin skills:list"),
        ("/docs;jsessionid=1/internal", "docs:internal"),
        ("/docs/internal;", "docs:internal"),
        ("/docs/internal;/x", "docs:internal"),  # whoever cuts off all that follows
        ("/docs/;x/internal", "docs:internal"),  # a segment of parameters alone is an empty one
        ("/docs/internal::$DATA", "docs:internal"),
        # Dots and blanks at the end.
        ("/docs/internal.", "docs:internal"),
        ("/docs/internal..", "docs:internal"),
        ("/docs/internal ", "docs:internal"),
        ("/docs/internal\u00a0", "docs:internal"),
        ("/docs/ internal", "docs:internal"),
        ("/docs/internal. .", "docs:internal"),
        ("/docs/... /internal", "docs:internal"),
        ("/docs/x/.. /internal", "docs:internal"),  # whoever trims it reads a dot segment
        # Escapes that are undone once more.
        ("/docs/%69nternal", "docs:internal"),
        ("/docs/%2569nternal", "docs:internal"),
        ("/docs/%u0069nternal", "docs:internal"),
        ("/docs%2finternal", "docs:internal"),
        ("/x%2f..%2fdocs%2finternal", "docs:internal"),
        ("/docs/x%2f%2e%2e/internal", "docs:internal"),
        ("/docs%5cinternal", "docs:internal"),
        ("/docs/internal%3b", "docs:internal"),
        ("/docs/internal?x", "docs:internal"),
        ("/docs/internal#x", "docs:internal"),
        ("/docs/internal%3fx", "docs:internal"),
        ("/docs/internal%23x", "docs:internal"),
        ("/docs/internal%20", "docs:internal"),
        # An extension.
        ("/docs/internal.json", "docs:internal"),
        ("/docs/INTERNAL.HTML", "docs:internal"),
        # Several at once, and a slash at the end.
        ("/DOCS;x/%2569NTERNAL.;y", "docs:internal"),
        ("/docs/INTERNAL/", "docs:internal"),
        ("/docs/internal/", "docs:internal"),
    ],
)
def test_a_path_needs_the_strictest_route_of_all_interpretations(path: str, expected: str | Reason) -> None:
    assert required(path) == expected


@pytest.mark.parametrize("path", ["/v1/ACCOUNT;x", "/V1/ACCOUNT", "/v1/account.", "/v1/%61ccount"])
def test_an_unlisted_method_needs_what_other_methods_of_every_interpretation_need(path: str) -> None:
    listed = [Route("GET /v1/account", scopes="account:read"), Route("PATCH /v1/account", scopes="account:write")]
    rule = Policy(listed, unlisted="authenticated").rule("PURGE", path)
    assert isinstance(rule, Route)
    assert (rule.public, str(rule.requires)) == (False, "account:read account:write")


@pytest.mark.parametrize(
    "path, expected",
    [
        ("/V1/ACCOUNT", Reason.ROUTE_NOT_FOUND),
        ("/DOCS/internal", Reason.ROUTE_NOT_FOUND),
        ("/docs/INTERNAL", "docs:internal"),
    ],
)
def test_with_deny_a_path_must_be_listed_as_written(path: str, expected: str | Reason) -> None:
    assert required(path, unlisted="deny") == expected


def test_the_environments_and_the_cost_of_all_interpretations_are_joined() -> None:
    routes = [
        Route("GET /a/{rest:path}", cost=2),
        replace(Route("GET /a/b", cost=5), environments=frozenset({"live"})),
    ]
    rule = Policy(routes).rule("GET", "/a/B")
    assert isinstance(rule, Route)
    assert (rule.cost, rule.environments) == (5, {"live"})


def test_two_listed_spellings_of_one_path_are_joined() -> None:
    rules = Policy([Route("GET /a", public=True), Route("GET /A", scopes="x"), Route("GET /a.json", public=True)])
    for path in ("/a", "/A", "/a."):
        rule = rules.rule("GET", path)
        assert isinstance(rule, Route)
        assert (rule.public, str(rule.requires)) == (False, "x")
    assert rules.literal["GET", "/a"] is rules.rule("GET", "/a")
    assert rules.rule("GET", "/a.json").public  # type: ignore[union-attr]  # a Route, listed with its extension


def test_a_preflight_is_decided_like_its_other_spellings() -> None:
    rules = Policy(ROUTES, unlisted="authenticated")
    listed = rules.route_for(RequestFacts("OPTIONS", "/V1/CORS", (), None, b"id", "GET"))
    assert isinstance(listed, Route)
    assert not listed.public
    assert str(listed.requires) == "cors"
    assert rules.route_for(RequestFacts("OPTIONS", "/V1/SKILLS", (), None, b"id", "GET")) is PREFLIGHT


def test_the_cache_of_made_up_paths_is_bounded() -> None:
    rules = Policy(ROUTES)
    for number in range(5000):
        rules.rule("GET", f"/docs/internal;{number}")
    rules.rule("GET", "/docs/internal;" + "x" * 5000)
    assert len(rules._rules) <= 1024  # noqa: SLF001 - nobody else can see how much is remembered
    assert all(len(path) < 256 for _, path in rules._rules)  # noqa: SLF001 - as above


PIECES = ["a", "B", "/", ".", "..", ";", "%61", "%2f", "%252e", " ", "?", "#", "\\", "é", "\u0131", "::$DATA", "docs"]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_folding_is_idempotent(text: str) -> None:
    segment = text.replace("/", "")
    assert fold(fold(segment)) == fold(segment)
    for segments in folded_paths(f"/{text}"):
        assert "" not in segments
        assert not {".", ".."} & set(segments)
        assert next(folded_paths("/" + "/".join(segments))) == segments


@given(
    st.sampled_from(["account", "keys", "internal"]),
    st.sampled_from([str.upper, str.title, "{};x=1".format, "{}.".format, "{} ".format, "{}..;y".format]),
    st.sampled_from([str, str.swapcase, "{};".format]),
)
def test_parts_that_a_server_ignores_are_removed_in_any_order(name: str, first: object, then: object) -> None:
    assert fold(then(first(name))) == fold(first(then(name))) == name  # type: ignore[operator]  # text to text
