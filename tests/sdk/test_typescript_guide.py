"""The TypeScript snippets of the public guide, run verbatim with the gateway."""

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from machpay_gateway import Gateway
from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.server import create_app
from tests.oauth.harness import EMAIL, PASSWORD, ROUTES, SCOPES, telling
from tests.oauth.interop.served import App, Browser
from tests.prepared import hash_cheaply, new_sqlite
from tests.sdk.typescript import (
    IMPORT,
    MARKS,
    ROOT,
    TYPES,
    Application,
    Served,
    application,
    blocks_in,
    built,
    gateway,
)
from tests.servers import serving

if TYPE_CHECKING:
    from machpay_gateway.settings import Options

__all__ = ["application", "built", "gateway"]

pytestmark = MARKS

GUIDE = ROOT.parent / "shared" / "guide" / "authentication.md"
STEP_1, STEP_2, STEP_3, REFRESH = "const authUrl", "app.get('/callback'", "accessToken: req.session", "const newTokens"
FROM_ENVIRONMENT, EXPLICIT = "const client = new MachPay();", "apiKey: 'sk_live_abc123...'"


@dataclass(frozen=True)
class Site:
    """An authorization server, and an app that is registered there as the guide's is: without PKCE."""

    issuer: str
    app: App


@contextmanager
def serving_guide(folder: Path) -> Iterator[Site]:
    listening = socket.create_server(("127.0.0.1", 0))
    issuer = f"http://127.0.0.1:{listening.getsockname()[1]}"
    options: Options = {"database": new_sqlite(folder / "oauth.db"), "routes": ROUTES, "oauth": OAuthSettings(issuer)}

    async def registered() -> App:
        async with Gateway(**options) as made:
            account = await made.accounts.create("acme", "standard")
            hash_cheaply(made)
            await made.users.create(account.id, EMAIL, PASSWORD)
            uri = "https://app.example.org/callback"
            client, secret = await made.oauth_clients.create(
                account.id, name="An app", scopes=SCOPES, redirect_uris=[uri], requires_pkce=False
            )
            return App(client.id, uri, secret or "")

    app = asyncio.run(registered())
    with serving(create_app(telling, **options), listening=listening):
        yield Site(issuer, app)


def snippet(opening: str) -> str:
    """Return the guide's block of TypeScript that has *opening* in it."""
    (block,) = [block for block in guide_blocks() if opening in block]
    return block


def guide_blocks() -> list[str]:
    if not GUIDE.is_file():
        pytest.skip("the guide is not beside this checkout (../shared/guide/authentication.md)")
    return blocks_in(GUIDE)


def test_every_block_of_typescript_in_the_guide_is_compiled_here() -> None:
    openings = (FROM_ENVIRONMENT, EXPLICIT, STEP_1, STEP_2, STEP_3, REFRESH)
    assert {snippet(opening) for opening in openings} == set(guide_blocks())


def test_a_client_picks_its_key_up_from_the_environment(application: Application, gateway: Served) -> None:
    documented = application.run(
        snippet(FROM_ENVIRONMENT),
        "const { output } = await client.skills.execute({ skillId: 'text-summarizer', input: {} });",
        "console.log(JSON.stringify([(await client.whoami()).name, output]));",
        **gateway.environment,
    )
    assert documented == ["admin", "Done."]


def test_a_client_takes_a_key_as_an_argument(application: Application, gateway: Served) -> None:
    documented = application.run(
        IMPORT,
        snippet(EXPLICIT),
        "console.log(JSON.stringify(await client.whoami().catch((error) => [error.name, error.code])));",
        **gateway.environment,
    )
    assert documented == ["AuthenticationError", "invalid_credentials"]  # the guide's key is a made-up one


def test_the_redirect_asks_for_a_code_and_the_client_asks_for_the_same_and_more(application: Application) -> None:
    written, made = application.run(
        IMPORT,
        "const CLIENT_ID = 'app-1', REDIRECT_URI = 'https://app.example/callback?a=b';",
        snippet(STEP_1),
        "const params = { clientId: CLIENT_ID, redirectUri: REDIRECT_URI, scope: 'skills:execute account:read' };",
        "const { url } = await new MachPay().oauth.authorizationUrl(params);",
        "console.log(JSON.stringify([authUrl, url]));",
    )
    assert written.partition("?")[0] == made.partition("?")[0] == "https://auth.machpay.xyz/oauth/authorize"
    request, more = parse_qs(urlsplit(written).query), parse_qs(urlsplit(made).query)
    assert request == {name: more[name] for name in request}
    assert set(more) - set(request) == {"state", "code_challenge", "code_challenge_method"}


def test_the_steps_of_oauth_run_as_they_are_written(application: Application, tmp_path: Path) -> None:
    with serving_guide(tmp_path) as site:
        (written,) = application.run(
            f"const CLIENT_ID = {json.dumps(site.app.id)}, REDIRECT_URI = {json.dumps(site.app.redirect_uri)};",
            snippet(STEP_1),
            "console.log(JSON.stringify([authUrl]));",
        )
        browser = Browser(site.issuer)
        location = browser.allowed(written.replace("https://auth.machpay.xyz", site.issuer))
        another = browser.allowed(written.replace("https://auth.machpay.xyz", site.issuer))
        browser.close()
        codes = [parse_qs(urlsplit(url).query)["code"][0] for url in (location, another)]
        documented = application.run(
            IMPORT,
            TYPES,
            f"const [CLIENT_ID, CLIENT_SECRET] = {json.dumps([site.app.id, site.app.secret])};",
            f"const REDIRECT_URI = {json.dumps(site.app.redirect_uri)};",
            """
            const machpay = new MachPay();
            let callback: Handler = async () => undefined;
            const app = { get: (path: string, handler: Handler) => { callback = handler; } };
            """,
            snippet(STEP_2),
            f"const [code, another] = {json.dumps(codes)};",
            """
            const session = { pending: { state: '', codeVerifier: '' } } as Session;
            let sentTo = '';
            await callback({ query: { code }, session }, { redirect: (url) => { sentTo = url; } });
            const client = new MachPay({ accessToken: session.accessToken! });
            const me = await client.whoami();
            const known = { clientId: CLIENT_ID, clientSecret: CLIENT_SECRET, redirectUri: REDIRECT_URI };
            const storedRefreshToken = (await machpay.oauth.exchangeCode({ code: another, ...known })).refreshToken!;
            """,
            snippet(REFRESH),
            """
            const refreshed = await new MachPay({ accessToken: newTokens.accessToken }).whoami();
            const rotated = newTokens.refreshToken !== storedRefreshToken;
            console.log(JSON.stringify([sentTo, me.id, me.scopes, refreshed.id === me.id, rotated]));
            """,
            MACHPAY_BASE_URL=site.issuer,
        )
    assert documented[1].startswith("user_")
    assert [documented[0], *documented[2:]] == ["/dashboard", ["account:read", "skills:execute"], True, True]


def test_an_access_token_is_used_with_something_in_the_place_of_the_dots(
    application: Application, gateway: Served
) -> None:
    written = snippet(STEP_3)
    assert "execute({...})" in written  # no TypeScript until there is something between the braces
    documented = application.run(
        IMPORT,
        "const req = { session: { accessToken: (await new MachPay().sessions.create()).token } };",
        written.replace("{...}", "{ skillId: 'text-summarizer', input: {} }"),
        "console.log(JSON.stringify([response.output, (await client.whoami()).name]));",
        **gateway.environment,
    )
    assert documented == ["Done.", "admin"]
