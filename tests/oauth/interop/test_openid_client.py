"""openid-client for Node.js as it is: it checks state, issuer and every answer by itself."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.node import hindrance
from tests.oauth.harness import SCOPES
from tests.oauth.interop.programs import Failed, Program, running
from tests.oauth.interop.served import App, Browser, Served

HINDRANCE = hindrance("openid-client is tried")
pytestmark = [
    pytest.mark.skipif(bool(HINDRANCE), reason=HINDRANCE),
    pytest.mark.xdist_group("oauth-interop"),
    pytest.mark.timeout(120),  # packages are fetched before the first test
]


@pytest.fixture(scope="module")
def program(programs: Path) -> Iterator[Program]:
    with running(programs, "client.js") as program:
        yield program


def discovered(program: Program, served: Served, app: App, method: str, secret: str | None = None) -> Mapping[str, Any]:
    """Have *program* be *app*, and return the metadata that it found."""
    document: Mapping[str, Any] = program.do(
        "discover", {"issuer": served.issuer, "id": app.id, "secret": secret or app.secret, "method": method}
    )
    return document


def allowed(program: Program, app: App, browser: Browser, scope: str = " ".join(SCOPES)) -> str:
    return browser.allowed(program.do("ask", {"redirect_uri": app.redirect_uri, "scope": scope}))


def error_of(program: Program, step: str, argument: Any) -> tuple[str, str, int | None]:  # noqa: ANN401 - as a step takes it
    """Return the class, the code and the status that *step* fails with."""
    with pytest.raises(Failed) as caught:
        program.do(step, argument)
    document = caught.value.error
    return document["name"], document["error"], document.get("status")


def test_the_metadata_is_found_and_taken(program: Program, served: Served) -> None:
    metadata = discovered(program, served, served.oauth_clients.web, "client_secret_basic")
    assert metadata["issuer"] == served.issuer
    assert metadata["token_endpoint"] == f"{served.issuer}/oauth/token"


@pytest.mark.parametrize(
    "name, method", [("web", "client_secret_basic"), ("web", "client_secret_post"), ("native", "none")]
)
def test_a_token_lives_its_life(name: str, method: str, program: Program, served: Served, browser: Browser) -> None:
    app: App = getattr(served.oauth_clients, name)
    discovered(program, served, app, method)
    tokens = program.do("redeem", allowed(program, app, browser))
    assert (tokens["token_type"], tokens["scope"]) == ("bearer", "account:read skills:execute")
    who = f"{served.api_url}/who"
    assert program.do("call", {"token": tokens["access_token"], "url": who})["client_id"] == app.id
    rotated = program.do("refresh", tokens["refresh_token"])
    assert rotated["refresh_token"] != tokens["refresh_token"]
    assert program.do("call", {"token": rotated["access_token"], "url": who})["client_id"] == app.id
    assert program.do("revoke", rotated["refresh_token"]) is None
    assert error_of(program, "refresh", rotated["refresh_token"]) == ("ResponseBodyError", "invalid_grant", 400)
    failure = error_of(program, "call", {"token": rotated["access_token"], "url": who})
    assert failure == ("WWWAuthenticateChallengeError", "invalid_token", 401)


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_a_token_is_told_of_until_it_ends(method: str, program: Program, served: Served, browser: Browser) -> None:
    app = served.oauth_clients.web
    discovered(program, served, app, method)
    tokens = program.do("redeem", allowed(program, app, browser))
    for kind in ("access_token", "refresh_token"):
        document = program.do("introspect", tokens[kind])
        assert (document["active"], document["client_id"]) == (True, app.id)
    program.do("revoke", tokens["access_token"])
    for kind in ("access_token", "refresh_token"):
        assert program.do("introspect", tokens[kind]) == {"active": False}


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_a_client_gets_a_token_for_itself(method: str, program: Program, served: Served) -> None:
    app = served.oauth_clients.machine
    discovered(program, served, app, method)
    tokens = program.do("own", {"scope": "account:read"})
    assert "refresh_token" not in tokens
    document = program.do("call", {"token": tokens["access_token"], "url": f"{served.api_url}/who"})
    assert (document["id"], document["scopes"]) == (app.id, ["account:read"])


def test_an_answer_of_another_issuer_or_to_another_question_is_not_taken(
    program: Program, served: Served, browser: Browser
) -> None:
    app = served.oauth_clients.web
    discovered(program, served, app, "client_secret_basic")
    back = allowed(program, app, browser)
    issuer = f"iss={served.issuer}".replace(":", "%3A").replace("/", "%2F")
    assert issuer in back
    for changed in (
        back.replace(issuer, "iss=https%3A%2F%2Felsewhere.example"),
        back.replace(f"&{issuer}", ""),
        back.replace("state=", "state=x"),
    ):
        assert error_of(program, "redeem", changed)[1] == "OAUTH_INVALID_RESPONSE"
    assert program.do("redeem", back)["token_type"] == "bearer"


def test_an_app_that_asks_for_what_it_may_not_have_is_told_so_where_it_waits(
    program: Program, served: Served, browser: Browser
) -> None:
    app = served.oauth_clients.web
    discovered(program, served, app, "client_secret_basic")
    back = allowed(program, app, browser, scope="keys:read")
    assert error_of(program, "redeem", back)[:2] == ("AuthorizationResponseError", "invalid_scope")


def test_a_code_is_good_once(program: Program, served: Served, browser: Browser) -> None:
    app = served.oauth_clients.web
    discovered(program, served, app, "client_secret_basic")
    back = allowed(program, app, browser)
    tokens = program.do("redeem", back)
    assert error_of(program, "redeem", back) == ("ResponseBodyError", "invalid_grant", 400)
    assert error_of(program, "refresh", tokens["refresh_token"])[1] == "invalid_grant"


def test_a_refusal_is_an_error_with_its_code(program: Program, served: Served) -> None:
    app = served.oauth_clients.machine
    discovered(program, served, app, "client_secret_basic")
    assert error_of(program, "own", {"scope": "nothing:known"}) == ("ResponseBodyError", "invalid_scope", 400)
    target = {"resource": "https://nowhere.example"}
    assert error_of(program, "own", target) == ("ResponseBodyError", "invalid_target", 400)
    for method in ("client_secret_basic", "client_secret_post"):
        discovered(program, served, app, method, secret="wrong")
        assert error_of(program, "own", {}) == ("WWWAuthenticateChallengeError", "invalid_client", 401)
