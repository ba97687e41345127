"""Revocation and introspection (RFC 7009, RFC 7662)."""

from typing import Any

from tests.oauth.interop.wire_requests import BASIC, METHOD, NATIVE, NO_CLIENT, NOBODY, OTHER, POST, Asked, By, Row

_ANOTHERS = (
    "RFC 7009 §2.1 would have it told; we say what is said of no token at all (§2.2), so that none can be tried here."
)
_PUBLIC = "Who asks has to prove that they may (RFC 7662 §2.1), which a name alone does not."
_WRONG = By(("Basic {web.id} cs_mp1_" + "0" * 38,))


def row(
    endpoint: str,
    claim: str,
    outcome: str,
    theirs: str = "",
    why: str = "",
    *,
    by: By = BASIC,
    **values: str | tuple[str, ...],
) -> Row:
    """Return a row about a request *by* a client."""
    return Row(f"{endpoint}: {claim}", outcome, Asked(endpoint, {**by.values, **values}, by.authorization), theirs, why)


def _both(endpoint: str) -> tuple[Row, ...]:
    """Return what holds for either *endpoint*."""

    def in_its_manner(**manner: Any) -> Asked:  # noqa: ANN401 - as `Asked` has them
        return Asked(endpoint, {}, BASIC.authorization, **manner)

    twice = By(BASIC.authorization, POST.values)
    in_json = in_its_manner(content_type="application/json", body='{{"token": "x"}}')
    return (
        row(endpoint, "without a client", "401 invalid_client", "400 invalid_request", NO_CLIENT, by=NOBODY, token="x"),
        row(endpoint, "by a name alone", "401 invalid_client", by=NOBODY, client_id="{web.id}", token="{access}"),
        row(endpoint, "by a wrong secret", "401 invalid_client", by=_WRONG, token="{access}"),
        row(endpoint, "by an unknown client", "401 invalid_client", by=NOBODY, client_id="nobody", token="{access}"),
        row(endpoint, "by Basic and in the body", "400 invalid_request", by=twice, token="x"),
        row(endpoint, "token is missing", "400 invalid_request"),
        row(endpoint, "token is empty", "400 invalid_request", token=""),
        row(endpoint, "token is there twice", "400 invalid_request", token=("{access}", "{access}")),
        row(endpoint, "token_type_hint is there twice", "400 invalid_request", token="x", token_type_hint=("a", "b")),
        Row(f"{endpoint}: by GET", "405", in_its_manner(method="GET", query={"token": "x"}), "404", METHOD),
        Row(f"{endpoint}: token is in the query", "400 invalid_request", in_its_manner(query={"token": "x"})),
        Row(f"{endpoint}: in JSON", "400 invalid_request", in_json),
    )


ROWS = (
    *_both("revoke"),
    row("revoke", "an access token", "200", token="{access}"),
    row("revoke", "a refresh token, by a wrong hint", "200", token="{refresh}", token_type_hint="access_token"),
    row("revoke", "a refresh token, by a hint unheard of", "200", token="{refresh}", token_type_hint="pigeon"),
    row("revoke", "a public client's, by its name", "200", by=NATIVE, token="{native_refresh}"),
    row("revoke", "an unknown token", "200", token="unknown"),
    row("revoke", "a token that was revoked", "200", token="{revoked_refresh}"),
    row("revoke", "three words with dots", "200", token="a.b.c"),
    row("revoke", "a code", "200", token="{code}"),
    row("revoke", "another client's access token", "200", "400 invalid_request", _ANOTHERS, by=OTHER, token="{access}"),
    row(
        "revoke", "another client's refresh token", "200", "400 invalid_request", _ANOTHERS, by=OTHER, token="{refresh}"
    ),
    row("revoke", "another client's refresh token, by a public client", "200", by=NATIVE, token="{refresh}"),
    *_both("introspect"),
    row("introspect", "an access token", "200 active", token="{access}"),
    row("introspect", "an access token, in the body", "200 active", by=POST, token="{access}"),
    row("introspect", "a refresh token", "200 active", token="{refresh}"),
    row(
        "introspect",
        "a refresh token, by a wrong hint",
        "200 active",
        token="{refresh}",
        token_type_hint="access_token",
    ),
    row(
        "introspect",
        "by a public client",
        "401 invalid_client",
        "200 inactive",
        _PUBLIC,
        by=NATIVE,
        token="{native_refresh}",
    ),
    row("introspect", "garbage", "200 inactive", token="garbage"),
    row("introspect", "three words with dots", "200 inactive", token="a.b.c"),
    row("introspect", "a code", "200 inactive", token="{code}"),
    row("introspect", "another client's access token", "200 inactive", token="{other_access}"),
    row("introspect", "another client's refresh token", "200 inactive", token="{other_refresh}"),
    row("introspect", "another client's own token", "200 inactive", token="{own}"),
    row("introspect", "a refresh token that was revoked", "200 inactive", token="{revoked_refresh}"),
    row("introspect", "an access token whose refresh token was revoked", "200 inactive", token="{access_of_revoked}"),
    row("introspect", "a refresh token that was used", "200 inactive", token="{used_refresh}"),
    row("introspect", "an access token whose code was used again", "200 inactive", token="{access_after_replay}"),
    row("introspect", "a refresh token whose code was used again", "200 inactive", token="{refresh_after_replay}"),
    row(
        "introspect", "a refresh token after an older one was used again", "200 inactive", token="{refresh_after_reuse}"
    ),
)
