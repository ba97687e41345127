"""The client and the gateway's own authorization server, sessions included."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import machpay
import pytest
from httpx2 import ASGITransport, AsyncClient

from machpay_gateway.core.scopes import Scopes
from tests.oauth.harness import AUDIENCE, ISSUER, REDIRECT, SCOPES, Rig, serving_oauth

ADDRESSES: dict[str, Any] = {"base_url": AUDIENCE, "auth_url": ISSUER}


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with serving_oauth() as rig:
        yield rig


@pytest.fixture
async def http(rig: Rig) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(transport=ASGITransport(app=rig.app, client=("192.0.2.9", 50000))) as http:
        yield http


async def tokens_of(rig: Rig, http: AsyncClient, *, is_public: bool = False) -> tuple[machpay.Tokens, dict[str, Any]]:
    """Return what a user lets an app have, and how that app says who it is."""
    app, secret = await rig.new_client(is_public=True) if is_public else (rig.client, rig.secret)
    named: dict[str, Any] = {"client_id": app.id, **({"client_secret": secret} if secret else {})}
    oauth = machpay.AsyncMachPay(**ADDRESSES, http_client=http).oauth
    request = oauth.authorization_url(client_id=app.id, redirect_uri=REDIRECT, scopes=SCOPES)
    callback = await rig.allowed(rig.http(), app, **dict(parse_qsl(urlsplit(request.url).query)))
    code = oauth.check_callback(callback, state=request.state, issuer=ISSUER)
    tokens = await oauth.exchange_code(code=code, redirect_uri=REDIRECT, code_verifier=request.code_verifier, **named)
    with pytest.raises(machpay.OAuthError, match=r"^invalid_grant"):
        await oauth.exchange_code(code="c" * 43, redirect_uri=REDIRECT, code_verifier=request.code_verifier, **named)
    return tokens, named


@pytest.mark.parametrize("is_public", [False, True], ids=["confidential", "public"])
async def test_an_authorized_app_refreshes_its_tokens(rig: Rig, http: AsyncClient, *, is_public: bool) -> None:
    tokens, named = await tokens_of(rig, http, is_public=is_public)
    assert (tokens.expires_in, set(tokens.scopes)) == (3600, set(SCOPES))
    assert tokens.refresh_token
    stored: list[machpay.Tokens] = []
    client = machpay.AsyncMachPay(
        access_token=tokens.access_token[:-8] + "AAAAAAAA",  # not what was signed: the gateway refuses it
        refresh_token=tokens.refresh_token,
        on_tokens=stored.append,
        **named,
        **ADDRESSES,
        http_client=http,
    )
    account = await client.account.retrieve()
    assert (account.extra["client_id"], account.response.attempts) == (named["client_id"], 2)
    (followed,) = stored
    assert followed.refresh_token != tokens.refresh_token
    assert (await client.account.retrieve()).response.attempts == 1
    copy = await client.oauth.refresh_token(refresh_token=tokens.refresh_token, **named)
    assert copy.refresh_token == followed.refresh_token  # so soon after the first time, its answer may have been lost


async def test_revoking_an_app_ends_its_refresh_tokens(rig: Rig, http: AsyncClient) -> None:
    tokens, named = await tokens_of(rig, http)
    assert tokens.refresh_token
    client = machpay.AsyncMachPay(refresh_token=tokens.refresh_token, **named, **ADDRESSES, http_client=http)
    await client.oauth.revoke(token=tokens.refresh_token, **named)
    for _ in range(2):
        with pytest.raises(machpay.OAuthError) as caught:
            await client.account.retrieve()
        assert (caught.value.error, caught.value.status) == ("invalid_grant", 400)


async def test_an_invalid_client_is_an_oauth_error(rig: Rig, http: AsyncClient) -> None:
    oauth = machpay.AsyncMachPay(**ADDRESSES, http_client=http).oauth
    with pytest.raises(machpay.OAuthError) as caught:
        await oauth.refresh_token(refresh_token="r" * 43, client_id=rig.client.id, client_secret="a:b+c%")
    assert (caught.value.error, caught.value.status) == ("invalid_client", 401)
    assert caught.value.request_id


async def test_a_session_acts_for_its_key(rig: Rig, http: AsyncClient) -> None:
    account = rig.user.account_id
    _, secret = await rig.gateway.keys.create(account, name="a", scopes=Scopes(frozenset(SCOPES)), environment="live")
    client = machpay.AsyncMachPay(secret, **ADDRESSES, http_client=http)
    session = await client.sessions.create(scopes=["account:read"], ttl_seconds=60)
    assert (session.expires_in, session.scopes, session.token_type) == (60, ("account:read",), "Bearer")
    assert session.id
    assert session.expires_at
    browser = machpay.AsyncMachPay(access_token=session.token, **ADDRESSES, http_client=http)
    assert (await browser.account.retrieve()).extra["kind"] == "session"
    with pytest.raises(machpay.PermissionDeniedError):
        await browser.skills.execute(skill_id="a", input={})
