"""A Console beside an application: one account with an admin and a viewer, and another account."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Unpack
from urllib.parse import urlencode

from httpx2 import ASGITransport, AsyncClient, Response

from machpay_gateway import MachPayAuth, Route
from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.accounts.user import User
from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.gateway import Gateway
from machpay_gateway.server import create_app
from machpay_gateway.settings import Options
from machpay_gateway.settings.console import ConsoleSettings
from tests.applications import ok
from tests.prepared import filled_sqlite, hash_cheaply

URL, API_URL = "https://console.example.com", "https://api.example.com"
ADMIN, VIEWER, STRANGER = "ada@example.org", "vic@example.org", "stan@example.net"
PASSWORD = "correct horse battery"
ACCOUNTS = ("acme", "globex")
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
Sent = str | list[str] | None
ROUTES = (Route("GET /v1/skills", scopes="skills:list"), Route("POST /v1/skills/execute", scopes="skills:execute"))


@dataclass
class Rig:
    """A served Console and its users."""

    app: MachPayAuth
    gateway: Gateway
    account: Account
    other: Account
    users: Mapping[str, User]
    opened: list[AsyncClient] = field(default_factory=list)

    def http(self, address: str = "192.0.2.1", *, url: str = URL) -> AsyncClient:
        """Return a new browser without a session, or with the API's *url* a client of the API."""
        transport = ASGITransport(app=self.app, client=(address, 50_000))
        client = AsyncClient(transport=transport, base_url=url)
        self.opened.append(client)
        return client

    async def signed_in(self, email: str = ADMIN, address: str = "192.0.2.1") -> AsyncClient:
        """Return a browser in which the user is signed in."""
        browser = self.http(address)
        page = await browser.get("/console/sign-in")
        answer = await submitted(browser, page, email=email, password=PASSWORD)
        assert answer.status_code == 303, answer.text
        return browser

    async def key(
        self, name: str = "production-api", *, account: Account | None = None, environment: str = "live"
    ) -> tuple[KeyRecord, str]:
        """Return a new key of the account and its secret."""
        owner = account or self.account
        scopes = ["skills:list", "account:read"]
        return await self.gateway.keys.create(owner.id, name=name, scopes=scopes, environment=environment)


def forms_of(page: Response) -> dict[str, list[tuple[str, str]]]:
    """Return the fields that each form of *page* submits unedited, by the path of its action."""
    forms = {}
    for form in re.findall(r"<form.*?</form>", page.text, re.DOTALL):
        action = unescape(re.search(r'action="([^"]*)"', form)[1])  # type: ignore[index]
        fields = []
        for tag in re.findall(r"<input[^>]*>", form):
            attributes = {name: unescape(value) for name, value in re.findall(r'(\w+)="([^"]*)"', tag)}
            if attributes.get("type") in {"checkbox", "radio"} and not re.search(r"\schecked", tag):
                continue
            if "name" in attributes:
                fields.append((attributes["name"], attributes.get("value", "")))
        fields += [
            (unescape(name), unescape(text))
            for name, text in re.findall(r'<textarea[^>]*name="([^"]*)"[^>]*>(.*?)</textarea>', form, re.DOTALL)
        ]
        forms[action] = fields
    return forms


async def submitted(browser: AsyncClient, page: Response, action: str = "", **fields: Sent) -> Response:
    """Submit the form of *page* with this *action*, by default its only one, with *fields*; None omits a field."""
    forms = forms_of(page)
    if not action:
        (action,) = [each for each in forms if not each.endswith("/sign-out")]
    unchanged = [(name, value) for name, value in forms[action] if name not in fields]
    pairs = [*unchanged]
    for name, value in fields.items():
        pairs += [(name, each) for each in ([] if value is None else [value] if isinstance(value, str) else value)]
    return await browser.post(action, content=urlencode(pairs), headers=FORM)


def secret_in(page: Response) -> str:
    """Return the secret that *page* shows."""
    return unescape(re.search(r'<code id="secret"[^>]*>([^<]*)</code>', page.text)[1])  # type: ignore[index]


@asynccontextmanager
async def serving_console(**options: Unpack[Options]) -> AsyncIterator[Rig]:
    """Serve on a SQLite file of its own, unless *options* say otherwise."""
    with TemporaryDirectory() as folder:
        defaults = Options(routes=ROUTES, console=ConsoleSettings(URL, API_URL))
        if "database" not in options:
            defaults["database"] = await filled_sqlite(Path(folder) / "console.db", _add_users)
        app = create_app(ok, **(defaults | options))
        async with app.gateway as gateway:
            await gateway.lifecycle.serve()
            hash_cheaply(gateway)
            if "database" in options:
                await _add_users(gateway)
            account, other = [await gateway.accounts.find(name) for name in ACCOUNTS]
            users = {user.email: user for user in await gateway.users.list(None)}
            assert account is not None
            assert other is not None
            rig = Rig(app, gateway, account, other, users)
            yield rig
            for client in rig.opened:
                await client.aclose()


async def _add_users(gateway: Gateway) -> None:
    acme, globex = [await gateway.accounts.create(name, "standard") for name in ACCOUNTS]
    for email, account, role in ((ADMIN, acme, "admin"), (VIEWER, acme, "viewer"), (STRANGER, globex, "admin")):
        await gateway.users.create(account.id, email, PASSWORD, role=role)
