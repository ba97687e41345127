"""An authorization server in front of an application that tells who is calling, with a user and an app."""

import os
import re
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from html import unescape
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Unpack
from urllib.parse import parse_qsl, quote_plus, urlencode, urlsplit

from httpx2 import ASGITransport, AsyncClient, Response
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from machpay_gateway import MachPayAuth, Route
from machpay_gateway.core.accounts.user import User, validate_email
from machpay_gateway.core.keys.audit import APPLICATION, Change
from machpay_gateway.core.keys.key import ENTROPY_BYTES, mint_id
from machpay_gateway.core.oauth.client import OAuthClient
from machpay_gateway.core.oauth.pkce import challenge_of
from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.gateway import Gateway
from machpay_gateway.server import create_app
from machpay_gateway.settings import Options
from tests.prepared import filled_sqlite, hash_cheaply

ISSUER, AUDIENCE = "https://auth.example.com", "https://api.example.com"
REDIRECT = "https://app.example.org/callback"
EMAIL, PASSWORD = "ada@example.org", "correct horse battery"
VERIFIER = "v" * 43
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SCOPES = ("skills:execute", "account:read")
ROUTES = (
    Route("POST /v1/skills/execute", scopes="skills:execute"),
    Route("GET /v1/account", scopes="account:read"),
    Route("GET /who"),
)
_NUMBERS = count(1)


async def telling(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with who is calling."""
    principal = Request(scope).user
    document = {
        "kind": principal.kind,
        "id": principal.id,
        "subject": principal.subject,
        "client_id": principal.client_id,
        "account_id": principal.account_id,
        "tier": principal.tier,
        "account_tier": principal.account_tier,
        "environment": principal.environment,
        "scopes": list(principal.scopes),
    }
    await JSONResponse(document)(scope, receive, send)


@dataclass
class Rig:
    """A served authorization server, and whom it knows."""

    app: MachPayAuth
    gateway: Gateway
    user: User
    client: OAuthClient
    secret: str
    address: str = "192.0.2.1"
    is_shared: bool = False
    opened: list[AsyncClient] = field(default_factory=list)
    ahead: float = 0.0

    @property
    def unknown_email(self) -> str:
        """An email that is no user's, and that no other test guesses a password of."""
        return f"not.{self.user.email}"

    async def share(self) -> "Rig":
        """Return the same server with another account, user, app and address, which no limit has counted yet."""
        number, gateway = next(_NUMBERS), self.gateway
        account = await gateway.accounts.create(f"acme {number}", "standard")
        user = await add_user(gateway, account.id, f"ada-{number}@example.org", self.user)
        client, secret = await _new_client(gateway, account.id, self.client.scopes)
        return Rig(self.app, gateway, user, client, secret, address=f"2001:db8:1:{number:x}::1", is_shared=True)

    async def close(self) -> None:
        """Close the HTTP clients."""
        for http in self.opened:
            await http.aclose()

    def later(self, seconds: float) -> None:
        """Set the clocks of all that issues and decides *seconds* on."""
        assert not self.is_shared, "a test that sets the clocks is marked own_gateway"
        self.ahead += seconds

        def clock() -> float:
            return time.time() + self.ahead

        gateway = self.gateway
        parts: list[Any] = [
            gateway.gate,
            gateway.users,
            gateway.oauth_clients,
            gateway.signing,
            gateway.consents,
            gateway.token_issuance,
            gateway.revocation,
        ]
        for part in parts:
            part._clock = clock  # noqa: SLF001 - the tests' way to another time

    async def authorize(self, query: str | dict[str, str] | list[tuple[str, str]]) -> Response:
        """Send an authorization request with this *query*, as a browser that has no cookie."""
        text = query if isinstance(query, str) else urlencode(query)
        return await self.http().get(f"/oauth/authorize?{text}")

    async def revoked(self, token: str, **sent: Any) -> Response:  # noqa: ANN401 - parameters, all of them text
        """Have the app revoke *token*."""
        headers = basic(self.client.id, self.secret)
        return await self.http().post("/oauth/revoke", data={"token": token, **sent}, headers=headers)

    async def introspected(self, token: str, name: str = "", secret: str = "") -> Response:
        """Have an app, the rig's unless it is named, ask about *token*."""
        headers = basic(name or self.client.id, secret or self.secret)
        return await self.http().post("/oauth/introspect", data={"token": token}, headers=headers)

    def http(self, *, address: str = "", base_url: str = "") -> AsyncClient:
        """Return a client, such as a browser, that calls from *address*: at the issuer's host, or at *base_url*.

        Unless it is given, the address is the rig's own.
        """
        transport = ASGITransport(app=self.app, client=(address or self.address, 50000))
        client = AsyncClient(transport=transport, base_url=base_url or self.gateway.oauth_settings.origin)
        self.opened.append(client)
        return client

    async def new_client(self, **settings: Any) -> tuple[OAuthClient, str]:  # noqa: ANN401 - as `Apps.create` has them
        """Return another app of the same account, and its secret, the empty text for a public one."""
        given = {"name": "Another app", "scopes": SCOPES, "redirect_uris": [REDIRECT], **settings}
        client, secret = await self.gateway.oauth_clients.create(self.user.account_id, **given)
        return client, secret or ""

    async def code(
        self,
        browser: AsyncClient | None = None,
        client: OAuthClient | None = None,
        **parameters: Any,  # noqa: ANN401 - all of them text
    ) -> str:
        """Return a code that the user has allowed *client* to have."""
        location = await self.allowed(browser or self.http(), client or self.client, **parameters)
        return dict(parse_qsl(urlsplit(location).query))["code"]

    async def allowed(self, browser: AsyncClient, client: OAuthClient, **parameters: Any) -> str:  # noqa: ANN401 - parameters, all of them text
        """Sign in and allow what is *asked*, as far as the pages ask, and return where the browser is sent at last."""
        page = await browser.get(f"/oauth/authorize?{urlencode(request_of(client) | parameters)}")
        if page.status_code == 200 and asks_to_sign_in(page):
            page = await submitted(browser, page, email=self.user.email, password=PASSWORD)
            assert page.status_code == 303, page.text
            page = await browser.get(page.headers["location"])
        if page.status_code == 200:
            page = await submitted(browser, page, decision="allow")
        assert page.status_code == 303, page.text
        return str(page.headers["location"])

    async def token(self, client: OAuthClient | None = None, secret: str | None = None, **sent: Any) -> Response:  # noqa: ANN401 - parameters, all of them text
        """Send a token request, authenticated by Basic, or by its name alone for a public client."""
        client = client or self.client
        http = self.http()
        if client.is_public:
            return await http.post("/oauth/token", data={"client_id": client.id, **sent})
        return await http.post("/oauth/token", data=sent, headers=basic(client.id, secret or self.secret))

    async def tokens(self, **parameters: Any) -> dict[str, Any]:  # noqa: ANN401 - parameters, all of them text
        """Return what a new code was exchanged for."""
        answer = await self.exchanged(await self.code(**parameters))
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def exchanged(self, code: str, **sent: Any) -> Response:  # noqa: ANN401 - parameters, all of them text
        """Exchange *code* by the app that it was given to."""
        given = {"code": code, "redirect_uri": REDIRECT, "code_verifier": VERIFIER} | sent
        return await self.token(grant_type="authorization_code", **given)

    async def refreshed(self, refresh_token: str, **sent: Any) -> Response:  # noqa: ANN401 - parameters, all of them text
        """Send a refresh request."""
        return await self.token(grant_type="refresh_token", refresh_token=refresh_token, **sent)

    async def who(self, token: str, *, scheme: str = "Bearer", path: str = "/who", method: str = "GET") -> Response:
        """Call the application with *token*."""
        http = self.http(base_url=AUDIENCE)
        return await http.request(method, path, headers={"Authorization": f"{scheme} {token}"})


async def add_user(gateway: Gateway, account_id: str, email: str, like: User) -> User:
    """Return a new user with the password of *like*: to judge the strength of one takes longer than most tests."""
    user_id = mint_id("user", os.urandom(ENTROPY_BYTES))
    user = replace(like, id=user_id, account_id=account_id, email=validate_email(email))
    change = Change(user.created_at, APPLICATION, "user.create", account_id, user.id, {}, {})
    assert await gateway.store.add_user(user, change)
    return user


def request_of(client: OAuthClient) -> dict[str, str]:
    """Return the parameters of a good authorization request."""
    return {
        "client_id": client.id,
        "redirect_uri": client.redirect_uris[0],
        "response_type": "code",
        "scope": " ".join(client.scopes),
        "state": "s-1",
        "code_challenge": challenge_of(VERIFIER),
        "code_challenge_method": "S256",
    }


def asks_to_sign_in(page: Response) -> bool:
    """Tell whether *page* has a field for the password; every page's style speaks of one."""
    return 'name="password"' in page.text


def answer_in(location: str) -> dict[str, str]:
    """Return the parameters that an app is sent in *location*."""
    return dict(parse_qsl(urlsplit(location).query, keep_blank_values=True))


def basic(name: str, secret: str) -> dict[str, str]:
    """Return the header that authenticates a client (RFC 6749 §2.3.1)."""
    text = f"{quote_plus(name)}:{quote_plus(secret)}"
    return {"Authorization": f"Basic {b64encode(text.encode()).decode()}"}


async def submitted(browser: AsyncClient, page: Response, *, form: int = 0, **fields: str) -> Response:
    """Fill in *fields* and submit a form of *page*."""
    action, body = filled(page.text, form=form, **fields)
    return await browser.post(action, content=body, headers=FORM)


def filled(page: str, *, form: int = 0, **fields: str) -> tuple[str, str]:
    """Return where a form of *page* goes and what it sends: *fields*, its hidden ones and ticked boxes as they are."""
    text = re.findall(r"<form.*?</form>", page, re.DOTALL)[form]
    action = unescape(re.search(r'action="([^"]*)"', text)[1])  # type: ignore[index]
    pairs = [
        (unescape(name), unescape(value))
        for name, value in re.findall(r'type="hidden" name="([^"]*)" value="([^"]*)"', text)
    ]
    ticked = re.findall(r'type="checkbox" name="([^"]*)" value="([^"]*)" checked', text)
    pairs += [(name, unescape(value)) for name, value in ticked]
    return action, urlencode([*pairs, *fields.items()])


@asynccontextmanager
async def serving_oauth(
    *, app_scopes: Sequence[str] = SCOPES, authority: OAuthSettings | None = None, **options: Unpack[Options]
) -> AsyncIterator[Rig]:
    """Serve on a SQLite file of its own, unless *options* say otherwise."""
    oauth = authority or OAuthSettings(ISSUER, audience=AUDIENCE)
    with TemporaryDirectory() as folder:
        defaults: Options = {"database": f"sqlite:///{folder}/oauth.db", "routes": ROUTES, "oauth": oauth}
        if "database" not in options:
            await filled_sqlite(Path(folder) / "oauth.db", _add_user, oauth=OAuthSettings(ISSUER))
        async with _serving(app_scopes, defaults | options) as rig:
            yield rig


@asynccontextmanager
async def _serving(app_scopes: Sequence[str], options: Options) -> AsyncIterator[Rig]:
    app = create_app(telling, **options)
    await app.gateway.lifecycle.open(upgrade=True)
    async with app.gateway as gateway:
        hash_cheaply(gateway)
        await gateway.lifecycle.serve()
        account = await gateway.accounts.find("acme") or await gateway.accounts.create("acme", "standard")
        user = await gateway.users.find(None, EMAIL) or await gateway.users.create(account.id, EMAIL, PASSWORD)
        client, secret = await _new_client(gateway, account.id, app_scopes)
        rig = Rig(app, gateway, user, client, secret)
        yield rig
        await rig.close()


async def _new_client(gateway: Gateway, account_id: str, scopes: Iterable[str]) -> tuple[OAuthClient, str]:
    client, secret = await gateway.oauth_clients.create(
        account_id, name="Ada's app", scopes=tuple(scopes), redirect_uris=[REDIRECT],
        grant_types=["authorization_code", "refresh_token", "client_credentials"],
    )  # fmt: skip
    assert secret is not None
    return client, secret


async def _add_user(gateway: Gateway) -> None:
    account = await gateway.accounts.create("acme", "standard")
    await gateway.users.create(account.id, EMAIL, PASSWORD)
