"""An authorization server, and an app of somebody else's on another origin: both real servers on loopback."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from html import escape
from itertools import count
from pathlib import Path
from socket import create_server
from typing import Any
from urllib.parse import urlencode

import httpx2
from anyio.from_thread import BlockingPortal, start_blocking_portal
from playwright.sync_api import Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route as Endpoint

from machpay_gateway import Gateway, Route
from machpay_gateway.core.accounts.user import User
from machpay_gateway.core.keys.audit import APPLICATION
from machpay_gateway.core.oauth.client import OAuthClient
from machpay_gateway.core.oauth.pkce import challenge_of
from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.server import create_app
from machpay_gateway.services.users import SignedIn
from machpay_gateway.settings import Options
from tests.oauth.harness import PASSWORD, ROUTES, SCOPES, add_user, basic, request_of, telling
from tests.prepared import hash_cheaply, new_sqlite
from tests.servers import serving

STRANGE_SCOPE = "<img/src=x/onerror=alert(1)>"  # which RFC 6749 §3.3 has nothing against
_PATHS = {"account": ("GET", "/v1/account"), "skills": ("POST", "/v1/skills/execute")}
_NUMBERS = count(1)


@dataclass
class App:
    """An app at *url* that sends users to *issuer*, exchanges what it is sent back, and calls the API at *api_url*.

    *sent* is every request to its callback; *pages* are others of its pages, by path, in which it may mean harm.
    """

    url: str
    issuer: str
    api_url: str
    id: str = ""
    secret: str = ""
    started: dict[str, str] = field(default_factory=dict)  # verifiers by state
    pages: dict[str, str] = field(default_factory=dict)
    sent: list[Request] = field(default_factory=list)

    @property
    def callback_url(self) -> str:
        return f"{self.url}/callback"

    @property
    def other_site_url(self) -> str:
        """The same app, at a name that browsers take for another site than the address is, and not its neighbour."""
        return self.url.replace("127.0.0.1", "localhost")

    @property
    def received(self) -> dict[str, str]:
        """What the callback was sent last."""
        return dict(self.sent[-1].query_params)

    def serving(self) -> Starlette:
        return Starlette(
            routes=[
                Endpoint("/start", self._start),
                Endpoint("/callback", self._callback),
                Endpoint("/{path:path}", self._page),
            ]
        )

    async def _page(self, request: Request) -> Response:
        return HTMLResponse(self.pages.get(request.url.path, '<h1>An app</h1><a href="/start">Connect MachPay</a>'))

    async def _start(self, request: Request) -> Response:
        state, verifier = secrets.token_urlsafe(), secrets.token_urlsafe(48)
        self.started[state] = verifier
        parameters = {
            "client_id": self.id, "redirect_uri": self.callback_url, "response_type": "code", "state": state,
            "code_challenge": challenge_of(verifier), "code_challenge_method": "S256",
        } | dict(request.query_params)  # fmt: skip
        return RedirectResponse(f"{self.issuer}/oauth/authorize?{urlencode(parameters)}", 303)

    async def _callback(self, request: Request) -> Response:
        self.sent.append(request)
        received = request.query_params
        verifier = self.started.pop(received.get("state", ""), None)
        if verifier is None or "code" not in received:
            return HTMLResponse(f"<h1>The app</h1><p>{escape(received.get('error', 'not started here'))}</p>")
        lines = await self._called(received["code"], verifier)
        return HTMLResponse(f"<h1>The app</h1>{''.join(f'<p>{escape(line)}</p>' for line in lines)}")

    async def _called(self, code: str, verifier: str) -> list[str]:
        """Return what the app got for *code*, and how the API answers it."""
        sent = {
            "grant_type": "authorization_code", "code": code, "redirect_uri": self.callback_url,
            "code_verifier": verifier,
        }  # fmt: skip
        async with httpx2.AsyncClient(base_url=self.issuer) as http:
            answer = await http.post("/oauth/token", data=sent, headers=basic(self.id, self.secret))
            if answer.status_code != httpx2.codes.OK:
                return [answer.text]
            tokens = answer.json()
            headers = {"Authorization": f"Bearer {tokens['access_token']}"}
            lines = [f"scope: {tokens['scope']}"]
            for name, (method, path) in _PATHS.items():
                called = await http.request(method, f"{self.api_url}{path}", headers=headers)
                lines.append(f"{name}: {called.status_code}")
            parameters = {"token": tokens["access_token"]}
            about = await http.post("/oauth/introspect", data=parameters, headers=basic(self.id, self.secret))
            return [*lines, f"user: {about.json()['sub']}"]


@dataclass
class Site:
    """An authorization server at *url*, an *app*, a *user*, and a way in behind the pages."""

    url: str
    app: App
    client: OAuthClient
    gateway: Gateway
    portal: BlockingPortal
    user: User
    reader: str = ""

    def authorize_url(self, client: OAuthClient | None = None, **parameters: str) -> str:
        """Return where *client*, the app's own unless it is given, sends users to have them asked for *asked*."""
        return f"{self.url}/oauth/authorize?{urlencode(request_of(client or self.client) | parameters)}"

    def new_client(self, name: str, **settings: Any) -> OAuthClient:  # noqa: ANN401 - as `Apps.create` has them
        """Return another app, of this *name*."""
        given = {"name": name, "scopes": SCOPES, "redirect_uris": [self.app.callback_url], **settings}
        client, _ = self.portal.call(partial(self.gateway.oauth_clients.create, self.client.account_id, **given))
        return client

    def new_registered_client(self, name: str, uri: str) -> OAuthClient:
        """Return an app that registered itself under this *name*, and has users sent to *uri*."""
        register = partial(
            self.gateway.oauth_clients.register, self.client.account_id, name=name, scopes=SCOPES, redirect_uris=[uri],
            grant_types=["authorization_code"], is_public=True, binds_tokens=False, max_clients=1000,
            actor=APPLICATION,
        )  # fmt: skip
        made = self.portal.call(register)
        assert made is not None
        return made[0]

    def new_user(self, email: str = "") -> User:
        """Return another user, of this *email* if one is given."""
        email = email or f"person-{next(_NUMBERS)}@example.org"
        return self.portal.call(add_user, self.gateway, self.client.account_id, email, self.user)

    def sign_in_as_reader(self, page: Page) -> None:
        """Sign a user in behind the pages, who is for tests that look at what is asked and do not answer."""
        if not self.reader:
            sign_in = partial(self.gateway.users.sign_in, address=None, display_address=None)
            signed_in = self.portal.call(sign_in, self.new_user("reader@example.org").email, PASSWORD)
            assert isinstance(signed_in, SignedIn)
            self.reader = signed_in.cookie
        page.context.add_cookies(
            [{"name": "machpay-session", "value": self.reader, "url": self.url, "sameSite": "Lax", "httpOnly": True}]
        )


@contextmanager
def serving_site(folder: Path) -> Iterator[Site]:
    """Serve both, with the gateway's database in *folder*."""
    listening, apps = (create_server(("127.0.0.1", 0)) for _ in range(2))
    url, app_url = (f"http://127.0.0.1:{each.getsockname()[1]}" for each in (listening, apps))
    api_url = url.replace("127.0.0.1", "localhost")
    config = Options(
        database=new_sqlite(folder / "oauth.db"),
        routes=(*ROUTES, Route("GET /strange", scopes=[STRANGE_SCOPE])),
        oauth=OAuthSettings(url, audience=api_url),
        trusted_proxies=["127.0.0.1"],
    )
    app = App(app_url, url, api_url)
    # Playwright has this thread's event loop, so the gateway that the tests reach into is in one of its own.
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(Gateway(**config)) as gateway:
        hash_cheaply(gateway)
        account = portal.call(gateway.accounts.create, "acme", "standard")
        uris = [app.callback_url]
        create = partial(gateway.oauth_clients.create, account.id, name="Ada's app", scopes=SCOPES, redirect_uris=uris)
        client, secret = portal.call(create)
        app.id, app.secret = client.id, secret or ""
        user = portal.call(gateway.users.create, account.id, "first@example.org", PASSWORD)
        with (
            serving(app.serving(), listening=apps),
            serving(create_app(telling, **config), listening=listening),
        ):
            yield Site(url, app, client, gateway, portal, user)


def sign_in(page: Page, email: str, password: str = PASSWORD) -> None:
    """Fill the form in as a person does."""
    page.get_by_label("Email").fill(email)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def allow(page: Page) -> None:
    """Say yes as a person does."""
    page.get_by_role("button", name="Allow", exact=True).click()
