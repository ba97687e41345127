"""A Console, its API, and another site: real servers on the loopback interface."""

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from socket import create_server
from typing import Any

import httpx2
from anyio.from_thread import BlockingPortal, start_blocking_portal
from playwright.sync_api import Page, expect
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route as Endpoint

from machpay_gateway import MachPayAuth, Route
from machpay_gateway.assembly import ConfiguredGateway
from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.accounts.user import User
from machpay_gateway.core.keys.audit import Actor, Change
from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.core.oauth.client import OAuthClient
from machpay_gateway.core.oauth.grant import Grant
from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.core.usage.counters import UsageBatch, UsageKey, UsageRow
from machpay_gateway.gateway import Gateway
from machpay_gateway.server import create_app
from machpay_gateway.services.users import SignedIn
from machpay_gateway.settings import Options
from machpay_gateway.settings.console import ConsoleSettings
from tests.console.harness import PASSWORD
from tests.prepared import hash_cheaply, new_sqlite
from tests.servers import serving

ROUTES = (
    Route("GET /v1/skills", scopes="skills:list"),
    Route("POST /v1/skills/execute", scopes="skills:execute"),
    Route("GET /v1/account", scopes="account:read"),
    Route("* /public/{rest:path}", public=True),
)
_NUMBERS = count(1)
_POLL_MS = 5_000  # after which pages with numbers request newer ones


@dataclass
class Site:
    """A Console at *url* and the API at *api_url*, with a way in behind the pages.

    What *elsewhere* has, by path, is another site's, and what *upstream* has is of the application behind the API;
    *cookies* are all that the application was sent.
    """

    url: str
    api_url: str
    other_url: str
    app: MachPayAuth
    gateway: Gateway
    portal: BlockingPortal
    account: Account
    elsewhere: dict[str, str] = field(default_factory=dict)
    upstream: dict[str, Response] = field(default_factory=dict)
    cookies: list[str] = field(default_factory=list)
    ahead: float = 0.0

    def new_user(self, role: str = "admin", *, account: Account | None = None, email: str = "") -> User:
        """Return another user."""
        owner, email = account or self.account, email or f"person-{next(_NUMBERS)}@example.org"
        return self.portal.call(partial(self.gateway.users.create, owner.id, email, PASSWORD, role=role))

    def new_account(self) -> Account:
        """Return an account that nobody has anything in."""
        return self.portal.call(self.gateway.accounts.create, f"account {next(_NUMBERS)}", "standard")

    def new_key(self, name: str, *, account: Account | None = None, **settings: Any) -> tuple[KeyRecord, str]:  # noqa: ANN401 - as `Keyring.create` has them
        """Return another key and its secret."""
        given = {"name": name, "scopes": ["skills:list"], "environment": "live"} | settings
        return self.portal.call(partial(self.gateway.keys.create, (account or self.account).id, **given))

    def new_app(self, name: str, *, account: Account | None = None) -> tuple[OAuthClient, str | None]:
        """Return another app and its secret."""
        given: dict[str, Any] = {
            "name": name,
            "scopes": ["skills:list"],
            "redirect_uris": ["https://app.example.org/callback"],
        }
        return self.portal.call(partial(self.gateway.oauth_clients.create, (account or self.account).id, **given))

    def let_act(self, app: OAuthClient, user: User) -> None:
        """Have *user* let *app* act for them."""
        now = time.time()
        grant = Grant(f"grant_{next(_NUMBERS)}", app.id, user.id, user.account_id, "live", "standard", app.scopes, now)
        change = Change(now, Actor("user", user.id), "grant.create", user.account_id, grant.id, {}, {})
        assert self.gateway.store is not None
        assert self.portal.call(self.gateway.store.put_grant, grant, change)

    def count(self, account: Account, key_id: str) -> None:
        """Count requests of a key over a day: as many as there are at work and at night, some of them refused."""
        rows, now = [], int(time.time())
        for hour in range(24):
            busy = 40 + round(30 * math.sin(hour / 4))
            for outcome, status, share in (("allowed", 200, 10), ("allowed", 502, 0.2), ("rate_limited", 429, 1)):
                spread = [0, *(round(busy * share * part) for part in (0.1, 0.4, 0.3, 0.1, 0.06, 0.04)), *[0] * 7]
                key = UsageKey(key_id, now - hour * 3600, "GET /v1/skills", outcome, status)
                rows.append(UsageRow(key, sum(spread) * 0.02, tuple(spread)))
        self.portal.call(self.gateway.store.add_usage, UsageBatch(rows, (), {key_id: account.id}))

    def sign_in(self, page: Page, user: User) -> None:
        """Sign *user* in behind the pages."""
        sign_in = partial(self.gateway.users.sign_in, address=None, display_address=None)
        signed_in = self.portal.call(sign_in, user.email, PASSWORD)
        assert isinstance(signed_in, SignedIn)
        cookie = {"name": "machpay-session", "value": signed_in.cookie, "url": self.url, "sameSite": "Lax"}
        page.context.add_cookies([{**cookie, "httpOnly": True}])  # type: ignore[typeddict-item]  # as Playwright has it

    def come_in(self, page: Page) -> None:
        """Sign in on the Console's own pages, as an admin of an account that has nothing yet."""
        user = self.new_user(account=self.new_account())
        page.goto(f"{self.url}/console")
        page.get_by_label("Email").fill(user.email)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        expect(page).to_have_title("Keys · MachPay Console")

    def call(self, secret: str, path: str = "/v1/skills", **options: Any) -> httpx2.Response:  # noqa: ANN401 - as httpx2 has it
        """Call the API with *secret*, from an address of its own: one that keeps failing is slowed."""
        number = next(_NUMBERS)
        headers = {"Authorization": f"Bearer {secret}", "X-Forwarded-For": f"127.1.{number >> 8}.{number & 255}"}
        return httpx2.get(f"{self.api_url}{path}", headers=headers, **options)

    def store_usage(self) -> None:
        """Store the usage that the API has counted, which it does itself at the next second."""
        recorder = self.app.gateway.recorder
        loop = recorder._timer_loop  # noqa: SLF001 - the tests' way in
        assert loop is not None, "nothing was counted"
        asyncio.run_coroutine_threadsafe(recorder._flushes.join(None), loop).result()  # noqa: SLF001 - as above

    def later(self, seconds: float) -> None:
        """Set the clock of what decides *seconds* on."""
        self.ahead += seconds
        self.app.gateway.gate._clock = lambda: time.time() + self.ahead  # noqa: SLF001 - the tests' way in

    def in_time(self) -> None:
        """Set it right again."""
        self.ahead = 0.0
        self.app.gateway.gate._clock = time.time  # noqa: SLF001 - as above


def let_poll(page: Page) -> None:
    """Make the next poll of *page* due now. Its clock must have been installed before the page was loaded."""
    page.clock.fast_forward(_POLL_MS)


@contextmanager
def serving_site(folder: Path) -> Iterator[Site]:
    """Serve all of it, with the gateway's database in *folder*."""
    listening, others = (create_server(("127.0.0.1", 0)) for _ in range(2))
    api_url, other_url = (f"http://127.0.0.1:{each.getsockname()[1]}" for each in (listening, others))
    url = api_url.replace("127.0.0.1", "localhost")
    config = Options(
        database=new_sqlite(folder / "console.db"),
        routes=ROUTES,
        console=ConsoleSettings(url, api_url),
        oauth=OAuthSettings(url, audience=api_url),
        trusted_proxies=["127.0.0.1"],
    )
    elsewhere: dict[str, str] = {}
    upstream: dict[str, Response] = {}
    cookies: list[str] = []

    async def answer(request: Request) -> Response:
        cookies.extend(request.headers.getlist("cookie"))
        return upstream.get(request.url.path) or JSONResponse({"path": request.url.path})

    api = Starlette(routes=[Endpoint("/{path:path}", answer, methods=["GET", "POST"])])
    app = create_app(api, **config)

    async def other_page(request: Request) -> Response:
        return HTMLResponse(elsewhere.get(request.url.path, ""))

    other_site = Starlette(routes=[Endpoint("/{path:path}", other_page)])
    # Playwright has this thread's event loop, so the gateway that the tests reach into is in one of its own.
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(ConfiguredGateway(**config)) as gateway:
        hash_cheaply(gateway)
        hash_cheaply(app.gateway)
        account = portal.call(gateway.accounts.create, "acme", "standard")
        with serving(other_site, listening=others), serving(app, listening=listening):
            yield Site(url, api_url, other_url, app, gateway, portal, account, elsewhere, upstream, cookies)
