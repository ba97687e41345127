"""Authlib's client as it is, from the metadata to the end of a token."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import pytest
from authlib.common.security import generate_token
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.oauth2.rfc6749.errors import MismatchingStateException
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata, get_well_known_url
from httpx2 import AsyncClient

from tests.oauth.harness import SCOPES
from tests.oauth.interop.served import App, Browser, Served

pytestmark = pytest.mark.xdist_group("oauth-interop")
SCOPE = " ".join(SCOPES)
WRONG_SECRET = "cs_mp1_" + "0" * 38


async def described(issuer: str) -> dict[str, Any]:
    async with AsyncClient() as http:
        document: dict[str, Any] = (await http.get(get_well_known_url(issuer, external=True))).json()
        return document


@pytest.fixture
async def metadata(served: Served) -> Mapping[str, Any]:
    return await described(served.issuer)


def client_of(app: App, metadata: Mapping[str, Any], **settings: Any) -> AsyncOAuth2Client:  # noqa: ANN401 - Authlib's
    given = {"client_secret": app.secret or None, "scope": SCOPE, "redirect_uri": app.redirect_uri} | settings
    return AsyncOAuth2Client(app.id, code_challenge_method="S256", **given, **metadata)


async def signed_in(client: AsyncOAuth2Client, browser: Browser) -> Mapping[str, Any]:
    """Let a user allow what *client* asks for, and return the tokens that it got."""
    verifier = generate_token(48)
    url, state = client.create_authorization_url(client.metadata["authorization_endpoint"], code_verifier=verifier)
    back = browser.allowed(url)
    tokens: Mapping[str, Any] = await client.fetch_token(
        authorization_response=back, state=state, code_verifier=verifier
    )
    return tokens


async def test_the_metadata_is_what_the_standard_asks_for(
    metadata: Mapping[str, Any], served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")  # http on loopback
    AuthorizationServerMetadata(metadata).validate()
    assert metadata["issuer"] == served.issuer


@pytest.mark.parametrize(
    "name, method", [("web", "client_secret_basic"), ("web", "client_secret_post"), ("native", "none")]
)
async def test_a_token_lives_its_life(
    name: str, method: str, served: Served, browser: Browser, metadata: Mapping[str, Any]
) -> None:
    app: App = getattr(served.oauth_clients, name)
    methods = {"token_endpoint_auth_method": method, "revocation_endpoint_auth_method": method}
    async with client_of(app, metadata, **methods) as client:
        tokens = await signed_in(client, browser)
        assert (tokens["token_type"], tokens["scope"]) == ("Bearer", "account:read skills:execute")
        assert (await client.get(f"{served.api_url}/who")).json()["client_id"] == app.id
        rotated = await client.refresh_token()
        assert rotated["refresh_token"] != tokens["refresh_token"]
        assert (await client.get(f"{served.api_url}/who")).json()["client_id"] == app.id
        answer = await client.revoke_token(
            metadata["revocation_endpoint"], token=rotated["refresh_token"], token_type_hint="refresh_token"
        )
        assert answer.status_code == 200
        assert (await client.get(f"{served.api_url}/who")).status_code == 401
        with pytest.raises(OAuthError) as caught:
            await client.refresh_token()
        assert caught.value.error == "invalid_grant"


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_a_token_is_told_of_until_it_ends(
    method: str, served: Served, browser: Browser, metadata: Mapping[str, Any]
) -> None:
    async with client_of(served.oauth_clients.web, metadata, token_endpoint_auth_method=method) as client:
        tokens = await signed_in(client, browser)

        async def introspect(kind: str) -> Mapping[str, Any]:
            answer = await client.introspect_token(
                metadata["introspection_endpoint"], token=tokens[kind], token_type_hint=kind
            )
            document: Mapping[str, Any] = answer.json()
            return document

        for kind in ("access_token", "refresh_token"):
            document = await introspect(kind)
            assert (document["active"], document["client_id"]) == (True, served.oauth_clients.web.id)
        await client.revoke_token(metadata["revocation_endpoint"], token=tokens["access_token"])
        assert await introspect("access_token") == await introspect("refresh_token") == {"active": False}


async def test_a_token_that_is_over_is_refreshed_by_the_call_that_needs_it(
    served: Served, browser: Browser, metadata: Mapping[str, Any]
) -> None:
    saved: list[tuple[Mapping[str, Any], str]] = []

    async def keep(token: Mapping[str, Any], refresh_token: str = "", access_token: str = "") -> None:
        saved.append((token, refresh_token or access_token))

    async with client_of(served.oauth_clients.web, metadata) as client:
        tokens = await signed_in(client, browser)
    async with client_of(
        served.oauth_clients.web, metadata, token={**tokens, "expires_at": 1}, update_token=keep
    ) as client:
        for _ in range(2):
            assert (await client.get(f"{served.api_url}/who")).json()["kind"] == "oauth"
    ((token, spent),) = saved
    assert spent == tokens["refresh_token"]
    assert token["refresh_token"] != spent
    assert client.token["access_token"] == token["access_token"] != tokens["access_token"]


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_a_client_gets_a_token_for_itself(method: str, served: Served, metadata: Mapping[str, Any]) -> None:
    async with client_of(served.oauth_clients.machine, metadata, token_endpoint_auth_method=method) as client:
        tokens = await client.fetch_token(grant_type="client_credentials", scope="account:read")
        assert "refresh_token" not in tokens
        document = (await client.get(f"{served.api_url}/who")).json()
    assert (document["id"], document["scopes"]) == (served.oauth_clients.machine.id, ["account:read"])


async def test_a_clients_own_token_that_is_over_is_asked_for_again(served: Served, metadata: Mapping[str, Any]) -> None:
    old = {"access_token": "over", "token_type": "Bearer", "expires_at": 1}
    async with client_of(served.oauth_clients.machine, metadata, token=old, grant_type="client_credentials") as client:
        assert (await client.get(f"{served.api_url}/who")).json()["id"] == served.oauth_clients.machine.id


@pytest.mark.parametrize(
    "sent, error",
    [
        ({"grant_type": "authorization_code", "code": "unknown", "code_verifier": "v" * 43}, "invalid_grant"),
        ({"grant_type": "refresh_token", "refresh_token": "unknown"}, "invalid_grant"),
        ({"grant_type": "client_credentials", "scope": "nothing:known"}, "invalid_scope"),
        ({"grant_type": "client_credentials", "resource": "https://nowhere.example"}, "invalid_target"),
        ({"grant_type": "password", "username": "ada", "password": "x"}, "unsupported_grant_type"),
    ],
    ids=["code", "refresh token", "scope", "resource", "grant type"],
)
async def test_a_refusal_is_an_error_with_its_code(
    sent: Mapping[str, str], error: str, served: Served, metadata: Mapping[str, Any]
) -> None:
    async with client_of(served.oauth_clients.web, metadata) as client:
        with pytest.raises(OAuthError) as caught:
            await client.fetch_token(**sent)
    assert caught.value.error == error
    assert caught.value.description


async def test_a_wrong_secret_is_an_error_with_its_code(served: Served, metadata: Mapping[str, Any]) -> None:
    async with client_of(served.oauth_clients.machine, metadata, client_secret=WRONG_SECRET) as client:
        with pytest.raises(OAuthError) as caught:
            await client.fetch_token(grant_type="client_credentials")
    assert caught.value.error == "invalid_client"


async def test_a_state_that_was_not_asked_with_is_noticed(
    served: Served, browser: Browser, metadata: Mapping[str, Any]
) -> None:
    async with client_of(served.oauth_clients.web, metadata) as client:
        url, _ = client.create_authorization_url(metadata["authorization_endpoint"], code_verifier="v" * 43)
        with pytest.raises(MismatchingStateException):
            await client.fetch_token(authorization_response=browser.allowed(url), state="another")


async def test_an_app_that_asks_for_what_it_may_not_have_is_told_so_where_it_waits(
    served: Served, browser: Browser, metadata: Mapping[str, Any]
) -> None:
    async with client_of(served.oauth_clients.web, metadata, scope="keys:read") as client:
        url, state = client.create_authorization_url(metadata["authorization_endpoint"], code_verifier="v" * 43)
    back = browser.allowed(url)
    assert f"{urlencode({'state': state})}&{urlencode({'iss': served.issuer})}" in back
    assert "error=invalid_scope" in back
