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


async def test_an_app_acts_for_itself_and_asks_about_its_tokens(rig: Rig, http: AsyncClient) -> None:
    named: dict[str, Any] = {"client_id": rig.client.id, "client_secret": rig.secret}
    oauth = machpay.AsyncMachPay(**ADDRESSES, http_client=http).oauth
    tokens = await oauth.client_credentials(**named, scopes=["account:read"])
    assert (tokens.scopes, tokens.refresh_token) == (("account:read",), None)
    assert tokens.expires_at is not None
    said = await oauth.introspect(token=tokens.access_token, **named)
    assert (said.active, said.scopes, said.client_id) == (True, ("account:read",), rig.client.id)
    assert said.expires_at is not None
    assert abs((said.expires_at - tokens.expires_at).total_seconds()) < 5
    assert not (await oauth.introspect(token="unknown", **named)).active
    with pytest.raises(machpay.InvalidArgumentError, match="public application"):
        await oauth.client_credentials(client_id=rig.client.id, client_secret=None)  # type: ignore[arg-type]  # what is refused


@pytest.mark.parametrize("is_public", [False, True], ids=["confidential", "public"])
async def test_tokens_are_bound_to_a_key(rig: Rig, http: AsyncClient, *, is_public: bool) -> None:
    app, secret = await rig.new_client(is_public=is_public, binds_tokens=True)
    named: dict[str, Any] = {"client_id": app.id, **({"client_secret": secret} if secret else {})}
    key = machpay.DPoPKey.generate()
    oauth = machpay.AsyncMachPay(**ADDRESSES, http_client=http).oauth
    request = oauth.authorization_url(client_id=app.id, redirect_uri=REDIRECT, scopes=SCOPES, prompt="consent")
    callback = await rig.allowed(rig.http(), app, **dict(parse_qsl(urlsplit(request.url).query)))
    code = oauth.check_callback(callback, state=request.state)
    exchange = {"code": code, "redirect_uri": REDIRECT, "code_verifier": request.code_verifier, **named}
    tokens = await oauth.exchange_code(**exchange, dpop_key=key)
    assert tokens.token_type == "DPoP"
    again = machpay.DPoPKey.from_pem(key.to_pem())
    assert again.thumbprint == key.thumbprint
    held = {"access_token": tokens.access_token, "refresh_token": tokens.refresh_token, **named, **ADDRESSES}
    client = machpay.AsyncMachPay(**held, dpop_key=again, http_client=http)
    for _ in range(2):  # each with a proof of its own
        assert (await client.account.retrieve()).extra["client_id"] == app.id
    without = machpay.AsyncMachPay(access_token=tokens.access_token, **ADDRESSES, http_client=http)
    with pytest.raises(machpay.AuthenticationError):
        await without.account.retrieve()
    refreshing = machpay.AsyncMachPay(**{**held, "access_token": None}, dpop_key=again, http_client=http)
    assert (await refreshing.account.retrieve()).response.attempts == 1


@pytest.mark.parametrize("pem", ["", "-----BEGIN PRIVATE KEY-----", b"\xff"])
def test_a_key_that_cannot_be_read_is_an_error(pem: str | bytes) -> None:
    with pytest.raises(machpay.ConfigurationError, match="PEM"):
        machpay.DPoPKey.from_pem(pem)
    with pytest.raises(machpay.ConfigurationError, match="only access tokens are bound"):
        machpay.MachPay("k", dpop_key=machpay.DPoPKey.generate())


async def test_oauth_clients_grants_and_the_audit_log(rig: Rig, http: AsyncClient) -> None:
    scopes = Scopes(frozenset((*SCOPES, "keys:manage")))
    _, secret = await rig.gateway.keys.create(rig.user.account_id, name="admin", scopes=scopes, environment="live")
    client = machpay.AsyncMachPay(secret, **ADDRESSES, http_client=http)
    clients = client.oauth_clients
    created = await clients.create(name="Ada's", scopes=["account:read"], redirect_uris=[REDIRECT], environment="live")
    assert (created.name, created.environment, created.scopes) == ("Ada's", "live", ("account:read",))
    assert created.client_secret
    assert created.client_secret not in repr(created)
    assert created.extra == {}
    public = await clients.create(name="public", scopes=[], redirect_uris=[REDIRECT], public=True)
    assert (public.public, public.client_secret) == (True, None)
    rotated = await clients.rotate_secret(created.id, grace_seconds=60)
    assert rotated.client_secret not in {None, created.client_secret}
    assert [each.current for each in rotated.secrets] == [True, False]
    found = await clients.retrieve(created.id)
    changed = await clients.update(created.id, name="b", dpop_bound=True, if_match=found.etag)
    assert (changed.name, changed.dpop_bound, changed.require_pkce) == ("b", True, True)
    with pytest.raises(machpay.PreconditionFailedError):
        await clients.update(created.id, name="c", if_match=found.etag)
    first = await clients.list(limit=2)
    assert (len(first.data), first.has_more) == (2, True)
    assert {each.id async for each in clients.list(limit=2)} == {created.id, public.id, rig.client.id}
    assert (await clients.delete(public.id)).deleted
    with pytest.raises(machpay.NotFoundError):
        await clients.retrieve(public.id)

    await tokens_of(rig, http)
    (grant,) = [each async for each in client.grants.list(client_id=rig.client.id)]
    assert (grant.user_id, grant.status, set(grant.scopes)) == (rig.user.id, "active", set(SCOPES))
    assert (await client.grants.revoke(grant.id)).status == "ended"

    entries = [each async for each in client.audit_log.list(limit=3)]
    assert [each.number for each in entries] == sorted((each.number or 0 for each in entries), reverse=True)
    rename = next(each for each in entries if each.object_id == created.id and "name" in each.after)
    assert (rename.before["name"], rename.after["name"], rename.actor.kind) == ("Ada's", "b", "api_key")
    me = await client.whoami()
    assert (me.kind, me.account_id, me.id) == ("api_key", rig.user.account_id, rename.actor.id)
    assert me.limits is not None
    assert me.limits.requests == 1000
