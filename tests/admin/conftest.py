"""The key API without an application, with a memory or SQLite store and two accounts."""

import os
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, Unpack

import pytest
from httpx2 import AsyncClient, Response
from starlette.types import ASGIApp

from machpay_gateway import MachPayAuth
from machpay_gateway.admin.operations import OPERATIONS, Operation
from machpay_gateway.core.keys.audit import APPLICATION, AuditHead
from machpay_gateway.gateway import Gateway
from machpay_gateway.server import create_app
from machpay_gateway.services.consents import Consents
from machpay_gateway.settings import Options
from tests.applications import ok
from tests.gateways import Guarded, Shared
from tests.keyrings import logged
from tests.prepared import SECRET_KEY, give_signing_key, new_sqlite

# For tests of decisions that need no store.
in_memory = pytest.mark.parametrize("database", ["memory"], indirect=True)
# For tests that read or change the file.
on_disk = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
MANAGER = ("keys:manage", "skills:list", "skills:execute", "account:read")
REDIRECT = "https://app.example.org/callback"
OF_APPS = tuple(operation for operation in OPERATIONS if operation.path.startswith("/v1/oauth/"))


_numbers = count(1)


def over(operations: Iterable[Operation]) -> pytest.MarkDecorator:
    """Parametrize a test by *operations*, each on every database."""
    rows = [
        pytest.param(operation, database, id=f"{operation.name}-{database}")
        for operation in operations
        for database in ("memory", "sqlite")
    ]
    return pytest.mark.parametrize("operation, database", rows, indirect=["database"])


@dataclass(frozen=True)
class Api:
    """A served key API, and its open clients."""

    guarded: Guarded
    opened: list[AsyncClient] = field(default_factory=list)

    @classmethod
    def of(cls, app: MachPayAuth, suffix: str = "") -> "Api":
        return cls(Guarded(app, app.gateway, suffix))

    @property
    def gateway(self) -> Gateway:
        return self.guarded.gateway

    async def caller(
        self, *, scopes: Sequence[str] = MANAGER, environment: str = "live", tier: str = "standard"
    ) -> "Caller":
        """Return a caller with a new key of the account that is named after its *tier*."""
        key_id, secret = await self.guarded.key(scopes=scopes, environment=environment, tier=tier)
        return Caller(self, key_id, secret)

    def client(self, secret: str | None) -> AsyncClient:
        client = self.guarded.client(secret)
        self.opened.append(client)
        return client

    async def close(self) -> None:
        """Close the clients."""
        for client in self.opened:
            await client.aclose()

    async def expire(self, key_id: str) -> None:
        """Set the expiry of the key to a time in 2001, so that no test has to wait."""
        record = await self.gateway.store.key(None, key_id)
        assert record is not None
        expired = replace(record, expires_at=1_000_000_000.0, version=record.version + 1)
        assert await self.gateway.store.replace_key(expired, logged())
        await self.gateway.limiter.invalidate([(key_id, expired.version, "")])

    async def head(self) -> AuditHead:
        """Return the head of the audit log, which every change moves."""
        return await self.gateway.store.audit_head()


@dataclass(frozen=True)
class Caller:
    """A caller with a key."""

    api: Api
    id: str
    secret: str

    async def ask(self, method: str, path: str, json: Any = None, **kwargs: Any) -> Response:  # noqa: ANN401 - as httpx2
        given = {} if json is None else {"json": json}
        return await self.api.client(self.secret).request(method, path, **given, **kwargs)

    async def created(self, **settings: Any) -> dict[str, Any]:  # noqa: ANN401 - as JSON has them
        """Return a new key as JSON."""
        response = await self.ask("POST", "/v1/keys", {"name": "deploy", "scopes": ["skills:list"], **settings})
        assert response.status_code == 201, response.text
        document: dict[str, Any] = response.json()
        return document

    async def app(self, **settings: Any) -> dict[str, Any]:  # noqa: ANN401 - as JSON has them
        """Return a new app as JSON."""
        given = {"name": "Ada's app", "scopes": ["skills:list"], "redirect_uris": [REDIRECT], **settings}
        response = await self.ask("POST", "/v1/oauth/clients", given)
        assert response.status_code == 201, response.text
        document: dict[str, Any] = response.json()
        return document

    async def granted(self, app: dict[str, Any]) -> str:
        """Return the id of a grant that *app* has for itself."""
        gateway = self.api.gateway
        client = await gateway.oauth_clients.get(None, app["id"])
        assert client is not None
        consents = Consents(gateway.store, clock=time.time, entropy=os.urandom, invalidate=gateway.limiter.invalidate)
        return (await consents.grant_for(client, client.account_id, None, client.scopes, APPLICATION)).id

    async def made(self, about: str, **settings: Any) -> tuple[str, str]:  # noqa: ANN401 - as JSON has them
        """Return the id of something new that operations are *about*, and the path at which it is read."""
        if about == "key":
            key_id = (await self.created(**settings))["id"]
            return key_id, f"/v1/keys/{key_id}"
        app = await self.app(**settings)
        if about == "app":
            return app["id"], f"/v1/oauth/clients/{app['id']}"
        return await self.granted(app), "/v1/oauth/grants"

    def user(self, created: dict[str, Any]) -> "Caller":
        """Return a caller with the key that was *created*."""
        return Caller(self.api, created["id"], created["secret"])


def status_and_code(response: Response) -> tuple[int, str]:
    """Return the status and the code of a problem."""
    return response.status_code, response.json()["code"]


def places(response: Response) -> list[str]:
    """Return the places of the errors in a problem."""
    return [error["place"] for error in response.json().get("errors", ())]


@asynccontextmanager
async def serving_api(application: ASGIApp = ok, /, **options: Unpack[Options]) -> AsyncIterator[Api]:
    """Serve the key API beside *application*, in memory unless *options* say otherwise."""
    defaults: Options = {"database": "memory://", "secret_key": SECRET_KEY}
    app = create_app(application, **(defaults | options))
    async with app.gateway:
        await give_signing_key(app.gateway)  # else the first session's is a row in the audit log
        api = Api.of(app)
        yield api
        await api.close()


@pytest.fixture(params=["memory", "sqlite"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else new_sqlite(tmp_path / "keys.db")


@pytest.fixture
async def api(
    request: pytest.FixtureRequest,
    database: str,
    shared: Shared[Api],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Api]:
    """A key API that the module shares, with new accounts for each test."""
    if request.node.get_closest_marker("own_gateway") is not None:
        async with serving_api(database=database) as own:
            yield own
        return

    def start() -> AbstractAsyncContextManager[Api]:
        # Not the test's own file, which goes with the test.
        outlasting = database if database == "memory://" else new_sqlite(tmp_path_factory.mktemp("api") / "keys.db")
        return serving_api(database=outlasting, failure_limit="1000000/minute")

    server = await shared.part(database.partition(":")[0], start)
    api = Api.of(server.guarded.app, f" {next(_numbers)}")
    yield api
    await api.close()


@pytest.fixture
async def admin(api: Api) -> Caller:
    return await api.caller()


@pytest.fixture
async def stranger(api: Api) -> Caller:
    """An admin of another account."""
    return await api.caller(tier="enterprise")
