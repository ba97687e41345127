"""The authorization server behind a real HTTP server, with apps of every kind, and a browser in which a user sits."""

import asyncio
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Unpack

from httpx2 import Client

from machpay_gateway import Gateway
from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.server import create_app
from machpay_gateway.settings import Options
from tests.oauth.harness import EMAIL, FORM, PASSWORD, ROUTES, SCOPES, filled, telling
from tests.prepared import hash_cheaply, new_sqlite
from tests.servers import serving

OTHER_AUDIENCE = "https://reports.example.com"
BEYOND = "keys:read"  # a scope that exists, and that no app here may ask for
_STEPS = 10


@dataclass(frozen=True)
class App:
    """A client as its developer knows it; a public one has no secret."""

    id: str
    redirect_uri: str = ""
    secret: str = field(default="", repr=False)
    grant_types: tuple[str, ...] = ("authorization_code", "refresh_token")

    def credentials(self) -> Mapping[str, Any]:
        """Return all of it, for another server to have the same."""
        return asdict(self)


@dataclass(frozen=True)
class Apps:
    """*web* and *other* have secrets, *native* runs on the user's machine, *machine* only calls for itself."""

    web: App
    other: App
    native: App
    machine: App


@dataclass(frozen=True)
class Served:
    """Where the authorization server is, and what it knows. The API is at the same address by another name."""

    issuer: str
    api_url: str
    oauth_clients: Apps


class Browser:
    """Where a user is sent, signs in and allows what is asked, as often as somebody asks. It keeps cookies."""

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer
        self._http = Client(base_url=issuer)

    def allowed(self, url: str) -> str:
        """Go to *url* and on, and return the address outside of the issuer that it leads to at last."""
        answer = self._http.get(url)
        for _ in range(_STEPS):
            if answer.is_redirect:
                location = answer.headers["location"]
                if not location.startswith((f"{self._issuer}/", "/")):
                    return str(location)
                answer = self._http.get(location)
                continue
            assert answer.status_code == 200, answer.text
            if 'name="password"' in answer.text:
                action, body = filled(answer.text, email=EMAIL, password=PASSWORD)
            else:
                action, body = filled(answer.text, decision="allow")
            answer = self._http.post(action, content=body, headers=FORM)
        raise AssertionError(f"{url} leads nowhere")

    def close(self) -> None:
        self._http.close()


@contextmanager
def serving_apps(directory: Path, **more: Unpack[Options]) -> Iterator[Served]:
    """Serve on a database in *directory*, with *more* options."""
    listening = socket.create_server(("127.0.0.1", 0))
    issuer, api_url = (f"http://{host}:{listening.getsockname()[1]}" for host in ("127.0.0.1", "localhost"))
    options: Options = {
        "database": new_sqlite(directory / "oauth.db"),
        "routes": ROUTES,
        "scopes": [BEYOND],
        "failure_limit": "100000/minute",  # what is sent here is wrong on purpose
        "oauth": OAuthSettings(issuer, audience=api_url, resources=[OTHER_AUDIENCE]),
        **more,
    }
    oauth_clients = asyncio.run(_prepared(options))
    with serving(create_app(telling, **options), listening=listening):
        yield Served(issuer, api_url, oauth_clients)


async def _prepared(options: Options) -> Apps:
    async with Gateway(**options) as gateway:
        hash_cheaply(gateway)
        account = await gateway.accounts.create("acme", "standard")
        await gateway.users.create(account.id, EMAIL, PASSWORD)

        async def app(name: str, redirect_uri: str = "", **settings: Any) -> App:  # noqa: ANN401 - as `Apps.create` has them
            uris = [redirect_uri] if redirect_uri else []
            client, secret = await gateway.oauth_clients.create(
                account.id, name=name, scopes=SCOPES, redirect_uris=uris, **settings
            )
            return App(client.id, redirect_uri, secret or "", client.grant_types)

        every = ("authorization_code", "refresh_token", "client_credentials")
        return Apps(
            web=await app("Web", "https://app.example.org/callback", grant_types=every),
            other=await app("Other", "https://other.example.org/callback", grant_types=every),
            native=await app("Native", "http://127.0.0.1/callback", is_public=True),
            machine=await app("Machine", grant_types=["client_credentials"]),
        )
