"""The quick start: its values, and that each snippet runs as it is."""

import asyncio
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from httpx2 import Client as Http

from machpay_gateway import Gateway
from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.core.oauth.client import OAuthClient
from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.core.scopes import KNOWN_SCOPES
from machpay_gateway.server import create_app
from machpay_gateway.settings import Options
from machpay_gateway.settings.console import ConsoleSettings
from tests.applications import ok
from tests.console.crafted import HOSTILE, below, lose
from tests.console.harness import ADMIN, PASSWORD, ROUTES, STRANGER, VIEWER, Rig, forms_of
from tests.node import NODE, inherited
from tests.oauth.harness import EMAIL
from tests.oauth.interop.served import Browser
from tests.prepared import hash_cheaply, new_sqlite
from tests.sdk.typescript import MARKS, Application, application, built
from tests.servers import serving

__all__ = ["application", "built"]

REDIRECT = "https://app.example.org/callback"
CURL = which("curl") or ""
NAME = "a \"quoted\" \\ name {x} 'y' 🔑"


def snippets_in(page: str) -> dict[str, str]:
    """Return what the page's copy buttons copy, by name."""
    snippets = re.findall(r'<pre id="([a-z-]+)" tabindex="0">(.*?)</pre>', page, re.DOTALL)
    assert {name for name, _ in snippets} == set(re.findall(r'data-copy="([a-z-]+)"', page))
    return {name: unescape(text) for name, text in snippets}


@dataclass(frozen=True)
class ServedConsole:
    """A gateway that is served, with a Console and an authorization server at *url*, a host of theirs."""

    url: str
    folder: Path
    key: KeyRecord
    secret: str
    admin_secret: str
    app: OAuthClient
    app_secret: str
    snippets: dict[str, str]

    def filled(self, name: str) -> str:
        """Return a snippet with the secrets in their places, as its reader puts them there."""
        return self.snippets[name].replace(self.key.masked, self.secret).replace("cs_…", self.app_secret)

    @property
    def environment(self) -> dict[str, str]:
        """What the lines for `.env` set."""
        lines = f"{self.filled('env')}\n{self.filled('oauth-env')}".splitlines()
        return dict(line.split("=", 1) for line in lines) | {"MACHPAY_ADMIN_KEY": self.admin_secret}

    def done(self, *command: str, **environment: str) -> str:
        """Return what a command prints in a shell of its own."""
        ran = subprocess.run(
            command, cwd=self.folder, env={**inherited(), **environment}, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ServedConsole]:
    listening = socket.create_server(("127.0.0.1", 0))
    url, pages_url = (f"http://{host}:{listening.getsockname()[1]}" for host in ("127.0.0.1", "localhost"))
    options = Options(
        database=new_sqlite(tmp_path / "console.db"),
        routes=ROUTES,
        console=ConsoleSettings(pages_url, url),
        oauth=OAuthSettings(pages_url, audience=url),
    )

    async def prepared() -> tuple[KeyRecord, str, str, OAuthClient, str | None]:
        async with Gateway(**options) as made:
            account = await made.accounts.create("acme", "standard")
            hash_cheaply(made)
            await made.users.create(account.id, EMAIL, PASSWORD, role="admin")
            key, secret = await made.keys.create(
                account.id,
                name=NAME,
                scopes=["skills:execute", "account:read"],
                environment="live",
                allowed_ips=["127.0.0.0/8"],
            )
            _, admin = await made.keys.create(account.id, name="admin", scopes=KNOWN_SCOPES, environment="live")
            app = await made.oauth_clients.create(
                account.id, name="Notes", scopes=["skills:execute", "account:read"], redirect_uris=[REDIRECT]
            )
            return key, secret, admin, *app

    key, secret, admin_secret, app, app_secret = asyncio.run(prepared())
    with serving(create_app(ok, **options), listening=listening), Http(base_url=pages_url) as browser:
        page = browser.get("/console/sign-in")
        (fields,) = forms_of(page).values()
        sent = dict(fields) | {"email": EMAIL, "password": PASSWORD}
        assert browser.post("/console/sign-in", data=sent).status_code == 303
        page = browser.get("/console/start", params={"key": key.id})
        assert page.status_code == 200
        assert app_secret is not None
        snippets = snippets_in(page.text)
        yield ServedConsole(pages_url, tmp_path, key, secret, admin_secret, app, app_secret, snippets)


def test_the_snippets_contain_no_secret_and_all_are_tested(site: ServedConsole) -> None:
    text = "\n".join(site.snippets.values())
    assert site.secret not in text
    assert site.app_secret not in text
    assert set(site.snippets) == {
        "env", "python", "python-explicit", "typescript", "typescript-explicit", "curl", "curl-skill", "rotation",
        "oauth-env", "oauth-ask", "oauth-exchange", "oauth-use", "oauth-refresh",
    }  # fmt: skip


def test_the_python_snippet_runs_with_the_environment_variables(site: ServedConsole) -> None:
    (site.folder / ".env").write_text(site.filled("env"))
    (site.folder / "first.py").write_text(site.filled("python"))
    output = site.done("sh", "-c", f"set -a; . ./.env; set +a; {sys.executable} first.py", PYTHONPATH=sources())
    assert output == f"{NAME}\n"


def test_the_python_snippet_with_the_key_in_code_runs(site: ServedConsole) -> None:
    assert site.done(sys.executable, "-c", site.filled("python-explicit"), PYTHONPATH=sources()) == f"{NAME}\n"


@pytest.mark.skipif(not CURL, reason="curl is not on PATH")
@pytest.mark.parametrize("name, expected", [("curl", NAME), ("curl-skill", "ok")])
def test_the_curl_snippets_run_in_a_shell(site: ServedConsole, name: str, expected: str) -> None:
    output = site.done("sh", "-c", f"{site.filled(name)} --silent --show-error --fail")
    if name == "curl":
        output = json.loads(output)["name"]
    assert output == expected


def test_the_rotation_snippet_creates_an_equal_key_and_revokes_the_old_one(site: ServedConsole) -> None:
    output = site.done(sys.executable, "-c", site.filled("rotation"), PYTHONPATH=sources(), **site.environment)
    key_id = output.removeprefix("New key created: ").strip()

    async def both() -> tuple[KeyRecord | None, KeyRecord | None]:
        async with Gateway(database=f"sqlite:///{site.folder}/console.db") as gateway:
            return await gateway.keys.get(None, key_id), await gateway.keys.get(None, site.key.id)

    new, old = asyncio.run(both())
    assert new is not None
    assert old is not None
    assert (new.name, new.scopes, new.allowed_ips, new.environment) == (
        f"{NAME}-v2", site.key.scopes, site.key.allowed_ips, "live",
    )  # fmt: skip
    assert old.revoked_at is not None


def test_the_oauth_snippets_run_in_order(site: ServedConsole, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in site.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MACHPAY_API_KEY")
    names: dict[str, Any] = {}
    exec(site.filled("oauth-ask"), names)  # noqa: S102 - what is on the page is what is tested
    with closing(Browser(site.url)) as browser:
        names["callback_url"] = browser.allowed(names["request"].url)
    for step in ("oauth-exchange", "oauth-use"):
        exec(site.filled(step), names)  # noqa: S102 - as above
    before = names["tokens"].access_token
    exec(site.filled("oauth-refresh"), names)  # noqa: S102 - as above
    assert names["tokens"].access_token != before
    assert set(names["client"].whoami().scopes) == {"skills:execute", "account:read"}
    for name in ("client", "machpay"):
        names[name].close()


class TestTypeScript:
    """Where Node.js is."""

    pytestmark = MARKS

    def test_the_typescript_snippets_run(self, site: ServedConsole, application: Application) -> None:
        first, explicit = application.all_compiled([site.filled(f"typescript{kind}") for kind in ("", "-explicit")])
        assert site.done(NODE, str(first), **site.environment) == f"{NAME}\n"
        assert site.done(NODE, str(explicit)) == f"{NAME}\n"


def sources() -> str:
    """Return where programs in processes of their own find the client."""
    return str(Path(__file__).parents[2] / "clients" / "python" / "src")


async def test_without_a_key_the_snippets_have_a_placeholder(rig: Rig) -> None:
    for email, leads in ((ADMIN, True), (VIEWER, False)):
        browser = await rig.signed_in(email)
        page = await browser.get("/console/start")
        snippets = snippets_in(page.text)
        assert snippets["env"] == "MACHPAY_API_KEY=sk_live_…\nMACHPAY_BASE_URL=https://api.example.com"
        assert "oauth-ask" not in snippets
        assert 'admin.keys.revoke("key_…")' in snippets["rotation"]
        assert ('href="/console/keys/new"' in page.text) is leads
        assert set(forms_of(page)) == {"/console/sign-out"}


async def test_the_snippets_have_the_values_of_the_chosen_key(rig: Rig) -> None:
    key, secret = await rig.key(environment="test")
    await rig.key("other")
    browser = await rig.signed_in(VIEWER)
    path = f"/console/start?key={key.id}"
    assert f'href="{path}"' in (await browser.get(f"/console/keys/{key.id}")).text
    page = await browser.get(path)
    snippets = snippets_in(page.text)
    assert snippets["env"].startswith(f"MACHPAY_API_KEY={key.masked}\n")
    assert 'name="production-api-v2"' in snippets["rotation"]
    assert 'scopes=["account:read", "skills:list"]' in snippets["rotation"]
    assert 'environment="test"' in snippets["rotation"]
    assert re.search(rf'<option value="{key.id}" selected>', page.text)
    assert secret not in page.text


async def test_another_accounts_key_is_not_found(rig: Rig) -> None:
    key, _ = await rig.key()
    browser = await rig.signed_in(STRANGER)
    assert (await browser.get(f"/console/start?key={key.id}")).status_code == 404
    assert key.id not in (await browser.get("/console/start")).text


@pytest.mark.parametrize("name", [HOSTILE, '") or exit("', "W" * 100, "{{ 7*7 }}"])
async def test_a_hostile_name_stays_a_string_literal(rig: Rig, name: str) -> None:
    key, _ = await rig.key(name)
    browser = await rig.signed_in()
    page = await browser.get(f"/console/start?key={key.id}")
    assert "<img" not in page.text
    assert "<script>" not in page.text
    compile(snippets_in(page.text)["rotation"], "rotation", "exec")
    (literal,) = re.findall(r"^    name=(.*),$", snippets_in(page.text)["rotation"], re.MULTILINE)
    assert json.loads(literal) == f"{key.name[:97]}-v2"


async def test_an_unavailable_store_has_an_error_page(rig: Rig) -> None:
    browser = await rig.signed_in()
    await lose(rig, "keys")
    assert (await browser.get("/console/start")).status_code == 503


async def test_the_page_works_below_a_root_path(rig: Rig) -> None:
    await rig.key()
    page = await (await below(rig, "/machpay")).get("/machpay/console/start")
    assert 'action="/machpay/console/start"' in page.text
    assert '"/console' not in page.text
