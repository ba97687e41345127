from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.scopes import (
    KNOWN_SCOPES,
    DefinedScopes,
    ScopeExpression,
    Scopes,
    ScopeSetting,
    check_configured_scope,
    check_scope_name,
    missing_scopes,
    parse_scope_expression,
    unknown_scopes,
    wildcard_of,
)


def scopes(text: str) -> Scopes:
    return Scopes(frozenset(text.split()))


def parsed(text: str) -> list[set[str]]:
    return [set(names) for names in parse_scope_expression(text).alternatives]


@pytest.mark.parametrize(
    "text, alternatives",
    [
        ("", []),
        ("   ", []),
        ("a", [{"a"}]),
        ("a b", [{"a", "b"}]),
        ("  a   b  ", [{"a", "b"}]),
        ("a | b", [{"a"}, {"b"}]),
        ("a|b", [{"a"}, {"b"}]),
        ("a b | c", [{"a", "b"}, {"c"}]),
        ("a a", [{"a"}]),
        ("skills:*", [{"skills:*"}]),
        ("a\tb\nc", [{"a", "b", "c"}]),
    ],
)
def test_an_expression_is_alternatives_of_names(text: str, alternatives: list[set[str]]) -> None:
    assert parsed(text) == alternatives


def test_a_list_of_names_requires_all_of_them() -> None:
    assert parse_scope_expression(["a", "b"]) == parse_scope_expression("a b")
    assert parse_scope_expression([]) == ScopeExpression()


@pytest.mark.parametrize("text", ["|", "a |", "| a", "a || b", "a | | b"])
def test_an_empty_alternative_is_refused(text: str) -> None:
    # It would be satisfied by anyone.
    with pytest.raises(ConfigurationError, match="empty alternative"):
        parse_scope_expression(text)


@pytest.mark.parametrize(
    "name, reason",
    [
        ("", "is not a scope name"),
        ("a b", "is not a scope name"),
        ('a"b', "is not a scope name"),
        ("a\\b", "is not a scope name"),
        ("a|b", "is not a scope name"),
        ("é", "is not a scope name"),
        ("a\n", "is not a scope name"),
        ("a\x7f", "is not a scope name"),
        ("a" * 129, "is not a scope name"),
        ("*", "may only stand for the whole last part"),
        ("*:a", "may only stand for the whole last part"),
        ("a:*:b", "may only stand for the whole last part"),
        ("a:b*", "may only stand for the whole last part"),
        ("a*", "may only stand for the whole last part"),
        ("a:**", "may only stand for the whole last part"),
    ],
)
def test_an_invalid_name_is_refused(name: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        check_scope_name(name)


@pytest.mark.parametrize("name", [*KNOWN_SCOPES, "a", "a:b:c", "a:*", "a:b:*", "https://x.example/read", "a" * 128])
def test_a_name_of_rfc_6749_is_accepted(name: str) -> None:
    check_scope_name(name)


@pytest.mark.parametrize(
    "held, name, is_held, why",
    [
        ("skills:execute", "skills:execute", True, "the name itself"),
        ("skills:*", "skills:execute", True, "a wildcard"),
        ("skills:*", "skills:run:now", False, "a wildcard never crosses a delimiter"),
        ("skills:run:*", "skills:run:now", True, "a wildcard deeper down"),
        ("skills:run:*", "skills:run", False, "a wildcard is no parent"),
        ("skills:*", "skills", False, "nor the family's name"),
        ("skills:*", "skillset:execute", False, "a family is whole"),
        ("skills:execute", "skills:*", False, "one of a family is not the family"),
        ("skills:*", "skills:*", True, "what is required may be the wildcard itself"),
        ("account:*", "skills:execute", False, "another family"),
        ("Skills:execute", "skills:execute", False, "names are case-sensitive (RFC 6749 §3.3)"),
        ("", "skills:execute", False, "nothing held"),
        ("", "", False, "nobody holds the empty name"),
        ("plain", "plain", True, "a name without a family"),
        ("plain", "other", False, "a name without a family has no wildcard"),
    ],
)
def test_wildcards_cover_their_family_only(held: str, name: str, *, is_held: bool, why: str) -> None:
    assert (name in scopes(held)) is is_held, why


@pytest.mark.parametrize("other", [None, 5, b"skills:execute", ("skills:execute",)])
def test_values_that_are_not_text_are_not_held(other: object) -> None:
    assert other not in scopes("skills:execute skills:*")


@pytest.mark.parametrize("name, wildcard", [("a:b", "a:*"), ("a:b:c", "a:b:*"), ("a", ""), ("a:*", "a:*")])
def test_the_wildcard_of_a_name_replaces_its_last_part(name: str, wildcard: str) -> None:
    assert wildcard_of(name) == wildcard


@pytest.mark.parametrize(
    "required, held, missing, why",
    [
        ("", "", (), "nothing required"),
        ("a", "a", (), "held"),
        ("a b", "a b c", (), "all held"),
        ("a b", "a", ("a", "b"), "the whole alternative is told, as a challenge says it (RFC 6750 §3)"),
        ("a | b", "b", (), "any will do"),
        ("a b | c", "c", (), "any will do"),
        ("a b c | d", "a b", ("a", "b", "c"), "the first where both lack one"),
        ("a b | c", "x", ("c",), "the one that lacks least"),
        ("a b c | a b d e", "d e a", ("a", "b", "d", "e"), "the one that lacks least, though it is the longer"),
        ("skills:execute skills:list", "skills:*", (), "one wildcard covers both"),
        ("skills:execute keys:manage", "skills:*", ("keys:manage", "skills:execute"), "a wildcard covers one of two"),
        ("a:b:c", "a:*", ("a:b:c",), "a wildcard never crosses a delimiter"),
    ],
)
def test_what_is_missing_is_the_closest_alternative(
    required: str, held: str, missing: tuple[str, ...], why: str
) -> None:
    assert missing_scopes(parse_scope_expression(required), scopes(held)) == missing, why


NAMES = st.sets(st.sampled_from(["a", "b", "f:x", "f:y", "f:*", "f:g:x", "f:g:*"]))


@given(st.lists(NAMES.filter(bool), max_size=3), NAMES)
def test_nothing_is_missing_exactly_when_an_alternative_is_held(required: list[set[str]], held: set[str]) -> None:
    expression = ScopeExpression(tuple(frozenset(names) for names in required))
    has = Scopes(frozenset(held))
    satisfied = not required or any(all(name in has for name in names) for names in required)
    assert (missing_scopes(expression, has) == ()) is satisfied


def test_scopes_are_listed_in_order() -> None:
    assert str(scopes("b a c")) == "a b c"
    assert list(scopes("b a")) == ["a", "b"]
    assert len(scopes("b a")) == 2
    assert str(parse_scope_expression("c b | a")) == "b c | a"


@pytest.mark.parametrize(
    "names, unknown",
    [
        (["skills:execute"], []),
        (["skills:*"], []),
        (["skills:run"], ["skills:run"]),
        (["nothing:*"], ["nothing:*"]),
        (["*", ""], ["*", ""]),
        (["skills:execute:*"], ["skills:execute:*"]),
    ],
)
def test_a_scope_that_is_neither_defined_nor_a_wildcard_is_unknown(names: list[str], unknown: list[str]) -> None:
    assert unknown_scopes(names, KNOWN_SCOPES) == unknown


@pytest.mark.parametrize("names", [["a | b"], ["a", "b | c"], ["a b"], ["a", 5], [""]])
def test_an_expression_in_a_list_of_names_is_refused(names: list[str]) -> None:
    with pytest.raises(ConfigurationError):
        parse_scope_expression(names)


@pytest.mark.parametrize(
    "scopes, way_out",
    [
        (
            "skills:list, account:read",
            "'skills:list account:read' requires both, 'skills:list | account:read' one of them",
        ),
        ("skills:list,account:read", "'skills:list account:read' requires both"),
        ("skills:list; account:read", "'skills:list account:read' requires both"),
        ("a and b", "'a b' requires both, 'a | b' one of them"),
        ("a OR b", "'a b' requires both, 'a | b' one of them"),
        ("a && b", "'a b' requires both"),
        ("a & b", "'a b' requires both"),
        ("a + b", "'a b' requires both"),
        ("(a b) | c", "'a b' requires both, 'a | b' one of them"),
        ("a,", "did you mean 'a'?"),
        (",", "'a b' requires both"),
        ("a || b", "write 'a | b' for one of two"),
        ("a |", "write 'a | b' for one of two"),
        (["a, b"], 'each is an item of its own, as in ["a", "b"]'),
        (["a b"], 'each is an item of its own, as in ["a", "b"]'),
        (["a|b"], 'each is an item of its own, as in ["a", "b"]'),
        (["a", "b,"], "did you mean 'b'?"),
        (["a", "and", "b"], "is not a scope expression"),
    ],
)
def test_what_only_looks_like_an_expression_is_refused_with_the_way_out(scopes: str | list[str], way_out: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_scope_expression(scopes)
    assert way_out in str(caught.value)


@pytest.mark.parametrize("name", ["a,b", "a;b", "and", "(a)"])
def test_tokens_of_others_may_hold_what_settings_may_not_name(name: str) -> None:
    check_scope_name(name)
    with pytest.raises(ConfigurationError):
        check_configured_scope(name)


def test_defined_scopes_grow_by_what_an_application_requires() -> None:
    sources = ["orders:read"]
    defined = DefinedScopes(["b", "a", "b"])
    for_clients, with_own = defined.without(["a"]), defined.plus(["own"])
    defined.include(lambda: sources)
    sources.append("orders:write")

    assert list(defined) == ["b", "a", "orders:read", "orders:write"]
    assert list(for_clients) == ["b", "orders:read", "orders:write"]
    assert list(with_own) == ["b", "a", "own"]
    assert "orders:write" in defined
    assert "a" not in for_clients
    assert (len(defined), len(for_clients)) == (4, 3)


def test_the_application_is_not_read_for_names_that_are_defined_without_it() -> None:
    def fail() -> list[str]:
        raise AssertionError

    defined = DefinedScopes(["a"])
    defined.include(fail)
    assert "a" in defined


@pytest.mark.parametrize(
    "setting, name, for_operator, told",
    [
        (ScopeSetting(), "orders:read", True, 'add to machpay.toml:\n\n[scopes]\n"orders:read" = "What it allows"'),
        (ScopeSetting(), "orders:read", True, 'application = "main:app"'),
        (
            ScopeSetting(Path("/etc/m.toml"), "table"),
            "orders:read",
            True,
            'below [scopes] in /etc/m.toml:\n\n"orders:read" =',
        ),
        (
            ScopeSetting(Path("m.toml"), "list"),
            "orders:read",
            True,
            'add "orders:read" to the list `scopes`, in m.toml',
        ),
        (ScopeSetting(Path("/etc/m.toml")), "orders:read", False, 'in m.toml, below [scopes]: "orders:read" = "What'),
        (ScopeSetting(), "skils:list", True, 'Did you mean "skills:list"?'),
    ],
)
def test_what_is_not_defined_is_told_with_the_line_to_add(
    setting: ScopeSetting, name: str, told: str, *, for_operator: bool
) -> None:
    message = DefinedScopes(["skills:list"], setting).describe_undefined(name, for_operator=for_operator)

    assert message.startswith(f'Scope "{name}" is not defined; known scopes: skills:list.')
    assert told in message


@pytest.mark.parametrize("name", ["orders:*", "a b", "a,b", "", "é", "sk_live_" + "a" * 30])
def test_what_cannot_be_defined_comes_without_a_line_to_add(name: str) -> None:
    message = DefinedScopes(["skills:list"]).describe_undefined(name, for_operator=True)
    assert "[scopes]" not in message
