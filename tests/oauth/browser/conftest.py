"""The sign-in and consent pages in the system's Chromium, in front of a real server, with an app on another origin."""

import asyncio
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route as Endpoint

from machpay_gateway import Gateway
from machpay_gateway.core.oauth.authority import Authority
from machpay_gateway.core.oauth.client import Client
from machpay_gateway.server import create_app
from machpay_gateway.settings import Options
from tests.oauth.rigs import PASSWORD, ROUTES, SCOPES, request_of, telling
from tests.servers import serving

_NUMBERS = count(1)
CHROMIUM = shutil.which("chromium")
_OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@dataclass
class Site:
    """An authorization server at *url*, and an app of somebody else's at *app_url* that keeps what it is *sent*."""

    url: str
    app_url: str
    client: Client
    secret: str
    config: Options
    pages: dict[str, str] = field(default_factory=dict)  # of the app, by path
    sent: list[Request] = field(default_factory=list)

    def authorize_url(self, client: Client | None = None, **asked: str) -> str:
        """Return where the app sends users."""
        return f"{self.url}/oauth/authorize?{urlencode(request_of(client or self.client) | asked)}"

    def new_client(self, name: str) -> Client:
        """Return another app, of this *name*."""

        async def make() -> Client:
            async with Gateway(**self.config) as gateway:
                uris = [f"{self.app_url}/callback"]
                client, _ = await gateway.apps.create(
                    self.client.account_id, name=name, scopes=SCOPES, redirect_uris=uris
                )
                return client

        with ThreadPoolExecutor(1) as thread:  # Playwright has this one's event loop
            return thread.submit(asyncio.run, make()).result()


# For a module and not longer: as long as it is there, no test of this process can run an event loop of its own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: `apt-get install chromium`, and these tests run")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    listening, apps = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    url, app_url = (f"http://127.0.0.1:{each.getsockname()[1]}" for each in (listening, apps))
    path = tmp_path_factory.mktemp("browser") / "oauth.db"
    config: Options = {"database": f"sqlite:///{path}", "routes": ROUTES, "oauth": Authority(url)}
    with ThreadPoolExecutor(1) as thread:
        client, secret = thread.submit(asyncio.run, _prepared(config, app_url)).result()
    site = Site(url, app_url, client, secret, config)
    with serving(_app(site), listening=apps), serving(create_app(telling, **config), listening=listening):
        yield site


@pytest.fixture
def context(browser: Browser, site: Site) -> Iterator[BrowserContext]:
    """A browser that nobody is signed in by. An error in a page fails the test."""
    context = browser.new_context()
    mistakes: list[str] = []
    context.on("weberror", lambda error: mistakes.append(str(error.error)))
    context.on("dialog", lambda dialog: mistakes.append(dialog.message))
    context.on("console", lambda message: mistakes.append(message.text) if message.type == "error" else None)
    site.sent.clear()
    site.pages.clear()
    yield context
    context.close()
    assert [mistake for mistake in mistakes if not _is_expected(mistake)] == []


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


@pytest.fixture
def email(site: Site) -> str:
    """A user of this test alone: whoever signs in again and again from one address is slowed."""
    email = f"person-{next(_NUMBERS)}@example.org"

    async def make() -> None:
        async with Gateway(**site.config) as gateway:
            await gateway.users.create(site.client.account_id, email, PASSWORD)

    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, make()).result()
    return email


def sign_in(page: Page, email: str, password: str = PASSWORD) -> None:
    """Fill the form in as a person does."""
    page.get_by_label("E-mail").fill(email)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def _is_expected(mistake: str) -> bool:
    # A page that says 400 is told of as an error too, and so is a blocked frame or script of the tests' own.
    return any(
        part in mistake for part in ("status of 400", "status of 404", "frame-ancestors", "Content Security Policy")
    )


async def _prepared(config: Options, app_url: str) -> tuple[Client, str]:
    async with Gateway(**config) as gateway:
        account = await gateway.accounts.create("acme", "standard")
        client, secret = await gateway.apps.create(
            account.id, name="Ada's app", scopes=SCOPES, redirect_uris=[f"{app_url}/callback"]
        )
        return client, secret or ""


def _app(site: Site) -> Starlette:
    async def any_page(request: Request) -> HTMLResponse:
        if request.url.path == "/callback":
            site.sent.append(request)
        return HTMLResponse(site.pages.get(request.url.path, "<h1>The app</h1>"))

    return Starlette(routes=[Endpoint("/{path:path}", any_page)])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("browser"))  # one browser is enough for two processors
