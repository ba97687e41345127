"""openid-client with tokens that are bound to a key (RFC 9449): it makes the proofs by itself."""

from collections.abc import Iterator
from pathlib import Path

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


def discovered(program: Program, served: Served, app: App) -> None:
    method = "client_secret_basic" if app.secret else "none"
    program.do("discover", {"issuer": served.issuer, "id": app.id, "secret": app.secret, "method": method})


@pytest.mark.parametrize("name", ["web", "native"])
def test_a_bound_token_works_with_its_key_and_is_refreshed_by_it(
    name: str, program: Program, served: Served, browser: Browser
) -> None:
    app: App = getattr(served.oauth_clients, name)
    discovered(program, served, app)
    program.do("prove")
    url = program.do("ask", {"redirect_uri": app.redirect_uri, "scope": " ".join(SCOPES)})
    tokens = program.do("redeem", browser.allowed(url))
    assert tokens["token_type"] == "dpop"
    rotated = program.do("refresh", tokens["refresh_token"])
    for token in (tokens["access_token"], rotated["access_token"]):
        assert program.do("call", {"token": token, "url": f"{served.api_url}/who"})["client_id"] == app.id


def test_a_bound_token_is_refused_without_its_key(program: Program, served: Served) -> None:
    discovered(program, served, served.oauth_clients.machine)
    program.do("prove")
    token = program.do("own", {})["access_token"]
    discovered(program, served, served.oauth_clients.machine)
    with pytest.raises(Failed) as caught:
        program.do("call", {"token": token, "url": f"{served.api_url}/who"})
    assert caught.value.error["status"] == 401
    program.do("prove")  # another key
    with pytest.raises(Failed):
        program.do("call", {"token": token, "url": f"{served.api_url}/who"})
