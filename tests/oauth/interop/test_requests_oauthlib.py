"""The clients of oauthlib, by requests, as they are."""

from collections.abc import Mapping
from typing import Any

import pytest
import requests
from oauthlib.oauth2 import BackendApplicationClient, LegacyApplicationClient
from oauthlib.oauth2.rfc6749 import errors
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session

from tests.oauth.harness import SCOPES
from tests.oauth.interop.served import App, Browser, Served

pytestmark = pytest.mark.xdist_group("oauth-interop")


@pytest.fixture(autouse=True)
def _http_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")


@pytest.fixture
def metadata(served: Served) -> Mapping[str, Any]:
    answer = requests.get(f"{served.issuer}/.well-known/oauth-authorization-server", timeout=10)
    document: Mapping[str, Any] = answer.json()
    return document


def session_of(app: App, **settings: Any) -> OAuth2Session:  # noqa: ANN401 - the library's
    given = {"redirect_uri": app.redirect_uri or None, "scope": list(SCOPES), "pkce": "S256"} | settings
    return OAuth2Session(app.id, **given)


def ways(app: App, method: str) -> Mapping[str, Any]:
    """Return what has a session authenticate by *method* where it gets tokens."""
    every: Mapping[str, Mapping[str, Any]] = {
        "client_secret_basic": {"client_secret": app.secret},
        "client_secret_post": {"client_secret": app.secret, "include_client_id": True},
        "none": {"include_client_id": True},
        "basic without a secret": {},  # what it does with a public client unless it is told otherwise
    }
    return every[method]


def signed_in(session: OAuth2Session, metadata: Mapping[str, Any], browser: Browser, **way: Any) -> dict[str, Any]:  # noqa: ANN401 - the library's
    url, _ = session.authorization_url(metadata["authorization_endpoint"])
    back = browser.allowed(url)
    return dict(session.fetch_token(metadata["token_endpoint"], authorization_response=back, **way))


@pytest.mark.parametrize(
    "name, method",
    [
        ("web", "client_secret_basic"),
        ("web", "client_secret_post"),
        ("native", "none"),
        ("native", "basic without a secret"),
    ],
)
def test_a_token_lives_its_life(
    name: str, method: str, served: Served, browser: Browser, metadata: Mapping[str, Any]
) -> None:
    app: App = getattr(served.oauth_clients, name)
    with session_of(app) as session:
        tokens = signed_in(session, metadata, browser, **ways(app, method))
        assert sorted(tokens["scope"]) == sorted(SCOPES)
        assert session.get(f"{served.api_url}/who").json()["client_id"] == app.id
        sent = {"client_id": app.id} | ({"client_secret": app.secret} if app.secret else {})
        rotated = session.refresh_token(metadata["token_endpoint"], **sent)
        assert rotated["refresh_token"] != tokens["refresh_token"]
        assert session.get(f"{served.api_url}/who").json()["client_id"] == app.id
        url, headers, body = session._client.prepare_token_revocation_request(  # noqa: SLF001 - the session has no such call
            metadata["revocation_endpoint"], rotated["refresh_token"], "refresh_token", **sent
        )
        answer = requests.post(url, headers=headers, data=body, timeout=10)
        assert answer.status_code == 200
        assert session.get(f"{served.api_url}/who").status_code == 401
        with pytest.raises(errors.InvalidGrantError):
            session.refresh_token(metadata["token_endpoint"], **sent)


def test_a_token_is_told_of_until_it_ends(served: Served, browser: Browser, metadata: Mapping[str, Any]) -> None:
    app = served.oauth_clients.web
    with session_of(app) as session:
        tokens = signed_in(session, metadata, browser, client_secret=app.secret)

    def posted(endpoint: str) -> requests.Response:
        sent = {"token": tokens["access_token"], "token_type_hint": "access_token"}
        return requests.post(metadata[endpoint], data=sent, auth=HTTPBasicAuth(app.id, app.secret), timeout=10)

    assert posted("introspection_endpoint").json()["active"] is True
    assert posted("revocation_endpoint").status_code == 200
    assert posted("introspection_endpoint").json() == {"active": False}


def test_a_token_that_is_over_is_refreshed_by_the_call_that_needs_it(
    served: Served, browser: Browser, metadata: Mapping[str, Any]
) -> None:
    app, saved = served.oauth_clients.web, list[Mapping[str, Any]]()
    with session_of(app) as session:
        tokens = signed_in(session, metadata, browser, client_secret=app.secret)
    over = {**tokens, "expires_at": 1, "expires_in": -1}
    refreshing = {"auto_refresh_url": metadata["token_endpoint"], "token_updater": saved.append}
    with session_of(app, token=over, **refreshing) as session:
        for _ in range(2):
            answer = session.get(f"{served.api_url}/who", client_id=app.id, client_secret=app.secret)
            assert answer.json()["kind"] == "oauth"
    (token,) = saved
    assert token["refresh_token"] != tokens["refresh_token"]


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_a_client_gets_a_token_for_itself(method: str, served: Served, metadata: Mapping[str, Any]) -> None:
    app = served.oauth_clients.machine
    with OAuth2Session(client=BackendApplicationClient(app.id, scope=["account:read"])) as session:
        tokens = session.fetch_token(metadata["token_endpoint"], **ways(app, method))
        assert "refresh_token" not in tokens
        assert session.get(f"{served.api_url}/who").json()["id"] == app.id


def test_a_refused_code_is_an_error_of_its_own(served: Served, browser: Browser, metadata: Mapping[str, Any]) -> None:
    app = served.oauth_clients.web
    with session_of(app) as session:
        session.authorization_url(metadata["authorization_endpoint"])
        with pytest.raises(errors.InvalidGrantError, match="the code is unknown"):
            session.fetch_token(metadata["token_endpoint"], code="unknown", client_secret=app.secret)
    with session_of(app) as session:
        signed_in(session, metadata, browser, client_secret=app.secret)


@pytest.mark.parametrize(
    "settings, sent, error",
    [
        ({"scope": ["nothing:known"]}, {}, errors.InvalidScopeError),
        ({}, {"client_secret": "wrong"}, errors.InvalidClientError),
    ],
    ids=["scope", "secret"],
)
def test_a_refusal_of_a_client_is_an_error_of_its_own(
    settings: Mapping[str, Any],
    sent: Mapping[str, Any],
    error: type[Exception],
    served: Served,
    metadata: Mapping[str, Any],
) -> None:
    app = served.oauth_clients.machine
    with (
        OAuth2Session(client=BackendApplicationClient(app.id, **settings)) as session,
        pytest.raises(error),
    ):
        session.fetch_token(metadata["token_endpoint"], **{"client_secret": app.secret, **sent})


def test_a_target_that_is_not_there_is_told_by_its_code(served: Served, metadata: Mapping[str, Any]) -> None:
    app = served.oauth_clients.machine
    with (
        OAuth2Session(client=BackendApplicationClient(app.id)) as session,
        pytest.raises(errors.CustomOAuth2Error) as caught,
    ):
        session.fetch_token(metadata["token_endpoint"], client_secret=app.secret, resource="https://nowhere.example")
    assert caught.value.error == "invalid_target"


def test_a_password_is_taken_from_nobody(served: Served, metadata: Mapping[str, Any]) -> None:
    app = served.oauth_clients.web
    with (
        OAuth2Session(client=LegacyApplicationClient(app.id)) as session,
        pytest.raises(errors.UnsupportedGrantTypeError),
    ):
        session.fetch_token(metadata["token_endpoint"], username="ada", password="x", client_secret=app.secret)


def test_an_app_that_asks_for_what_it_may_not_have_is_told_so_where_it_waits(
    served: Served, browser: Browser, metadata: Mapping[str, Any]
) -> None:
    app = served.oauth_clients.web
    with session_of(app, scope=["keys:read"]) as session, pytest.raises(errors.InvalidScopeError):
        signed_in(session, metadata, browser, client_secret=app.secret)


def test_a_state_that_was_not_asked_with_is_noticed(
    served: Served, browser: Browser, metadata: Mapping[str, Any]
) -> None:
    with session_of(served.oauth_clients.web) as session:
        url, _ = session.authorization_url(metadata["authorization_endpoint"])
        back = browser.allowed(url)
        session.authorization_url(metadata["authorization_endpoint"])
        with pytest.raises(errors.MismatchingStateError):
            session.fetch_token(metadata["token_endpoint"], authorization_response=back, client_secret="x")
