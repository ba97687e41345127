"""The TypeScript client and the gateway's authorization server: OAuth clients, grants, the audit log, and DPoP."""

import asyncio
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from machpay_gateway import Gateway
from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.server import create_app
from tests.oauth.harness import EMAIL, PASSWORD, REDIRECT, ROUTES, SCOPES, telling
from tests.oauth.interop.served import Browser
from tests.prepared import hash_cheaply, new_sqlite
from tests.sdk.typescript import IMPORT, MARKS, Application, application, built
from tests.servers import serving

if TYPE_CHECKING:
    from machpay_gateway.settings import Options

__all__ = ["application", "built"]

pytestmark = MARKS


@dataclass(frozen=True)
class Site:
    """An authorization server with a user and an admin's key."""

    issuer: str
    api_url: str
    secret: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            "MACHPAY_BASE_URL": self.api_url,
            "MACHPAY_AUTH_URL": self.issuer,
            "MACHPAY_API_KEY": self.secret,
        }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    listening = socket.create_server(("127.0.0.1", 0))
    issuer, api_url = (f"http://{host}:{listening.getsockname()[1]}" for host in ("127.0.0.1", "localhost"))
    database = new_sqlite(tmp_path_factory.mktemp("oauth") / "oauth.db")
    options: Options = {"database": database, "routes": ROUTES, "oauth": OAuthSettings(issuer, audience=api_url)}

    async def prepared() -> str:
        async with Gateway(**options) as made:
            hash_cheaply(made)
            account = await made.accounts.create("acme", "standard")
            await made.users.create(account.id, EMAIL, PASSWORD)
            scopes = Scopes(frozenset((*SCOPES, "keys:manage")))
            _, secret = await made.keys.create(account.id, name="admin", scopes=scopes, environment="live")
            return secret

    secret = asyncio.run(prepared())
    with serving(create_app(telling, **options), listening=listening):
        yield Site(issuer, api_url, secret)


def test_oauth_clients_are_managed_and_act_for_themselves(application: Application, site: Site) -> None:
    results = application.run(
        IMPORT,
        f"const redirectUris = {json.dumps([REDIRECT])};",
        """
        const { oauthClients, oauth, auditLog } = new MachPay();
        const grantTypes = ['client_credentials', 'authorization_code'];
        const creation = { name: 'a', scopes: ['account:read'], redirectUris, grantTypes };
        const created = await oauthClients.create(creation);
        const rotated = await oauthClients.rotateSecret(created.id, { graceSeconds: 60 });
        const { etag } = await oauthClients.retrieve(created.id);
        const changed = await oauthClients.update(created.id, { name: 'b', ifMatch: etag });
        const stale = await oauthClients.update(created.id, { name: 'c', ifMatch: etag }).catch(({ name }) => name);
        const known = { clientId: created.id, clientSecret: rotated.clientSecret! };
        const tokens = await oauth.clientCredentials(known);
        const token = await oauth.introspect({ token: tokens.accessToken, ...known });
        const me = await new MachPay({ accessToken: tokens.accessToken }).whoami();
        const listed: string[] = [];
        for await (const { id } of oauthClients.list({ limit: 1 })) listed.push(id);
        const { deleted } = await oauthClients.delete(created.id);
        const actions: (string | null)[] = [];
        for await (const { action, objectId } of auditLog.list({ limit: 2 })) {
          if (objectId === created.id) actions.push(action);
        }
        console.log(JSON.stringify({
          created: [created.name, created.environment, created.scopes, created.grantTypes, created.extra],
          secrets: [rotated.clientSecret !== created.clientSecret, rotated.secrets.map(({ current }) => current)],
          masked: JSON.stringify(created).includes(created.clientSecret!),
          changed: [changed.name, stale],
          token: [token.active, token.scopes, token.clientId === created.id, me.kind],
          listed: listed.includes(created.id),
          deleted,
          actions,
        }));
        """,
        **site.environment,
    )
    assert results == {
        "created": ["a", "live", ["account:read"], ["authorization_code", "client_credentials"], {}],
        "secrets": [True, [True, False]],
        "masked": False,
        "changed": ["b", "PreconditionFailedError"],
        "token": [True, ["account:read"], True, "oauth"],
        "listed": True,
        "deleted": True,
        "actions": ["client.delete", "client.update", "client.rotate_secret", "client.create"],
    }


def test_a_users_tokens_are_bound_to_a_key_until_the_grant_is_revoked(application: Application, site: Site) -> None:
    asked = application.run(
        IMPORT,
        f"const redirectUri = {json.dumps(REDIRECT)};",
        """
        const { oauthClients, oauth } = new MachPay();
        const params = { name: 'page', scopes: ['account:read'], redirectUris: [redirectUri] };
        const { id } = await oauthClients.create({ ...params, public: true, dpopBound: true });
        const request = await oauth.authorizationUrl({ clientId: id, redirectUri, prompt: 'login' });
        console.log(JSON.stringify({ id, ...request }));
        """,
        **site.environment,
    )
    browser = Browser(site.issuer)
    callback = browser.allowed(asked["url"])
    browser.close()
    assert parse_qs(urlsplit(asked["url"]).query)["prompt"] == ["login"]
    results = application.run(
        "import { DPoPKey, MachPay } from '@machpay/sdk';",
        f"const [redirectUri, callback, issuer] = {json.dumps([REDIRECT, callback, site.issuer])};",
        f"const [id, state, codeVerifier] = {json.dumps([asked[name] for name in ('id', 'state', 'codeVerifier')])};",
        """
        const admin = new MachPay();
        const dpopKey = await DPoPKey.generate();
        const code = admin.oauth.checkCallback(callback, { state, issuer });
        const exchange = { code, redirectUri, clientId: id, codeVerifier, dpopKey };
        const { accessToken, refreshToken, tokenType } = await admin.oauth.exchangeCode(exchange);
        const user = new MachPay({ accessToken, dpopKey });
        const first = await user.account.retrieve();
        const refreshing = new MachPay({ refreshToken, clientId: id, dpopKey });
        const second = await refreshing.account.retrieve();
        const without = await new MachPay({ accessToken }).account.retrieve().catch(({ name }) => name);
        const [grant] = (await admin.grants.list({ clientId: id })).data;
        const revoked = await admin.grants.revoke(grant!.id);
        const after = await refreshing.account.retrieve().catch(({ name }) => name);
        const ids = [first, second].map(({ extra }) => extra['client_id'] === id);
        const facts = [grant!.userId !== null, grant!.status, revoked.status];
        console.log(JSON.stringify({ tokenType, ids, without, facts, after }));
        """,
        **site.environment,
    )
    assert results == {
        "tokenType": "DPoP",
        "ids": [True, True],
        "without": "AuthenticationError",
        "facts": [True, "active", "ended"],
        "after": "OAuthError",
    }
