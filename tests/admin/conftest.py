"""The key API in front of nothing else, on a store in memory or SQLite, with two accounts."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Unpack

import pytest
from httpx2 import AsyncClient, Response

from machpay_gateway import Gateway, MachPayAuth
from machpay_gateway.core.audit import AuditHead
from machpay_gateway.server import create_app
from machpay_gateway.settings import Options
from tests.applications import ok
from tests.gateways import Guarded
from tests.keyrings import logged

# For tests of what is decided before any store is asked.
in_memory = pytest.mark.parametrize("database", ["memory"], indirect=True)
MANAGER = ("keys:manage", "skills:list", "skills:execute", "account:read")


@dataclass(frozen=True)
class Api:
    """A served key API, and clients of it that are closed with it."""

    guarded: Guarded
    opened: list[AsyncClient] = field(default_factory=list)

    @classmethod
    def of(cls, app: MachPayAuth) -> "Api":
        return cls(Guarded(app, app.gateway))

    @property
    def gateway(self) -> Gateway:
        return self.guarded.gateway

    async def caller(
        self, *, scopes: Sequence[str] = MANAGER, environment: str = "live", tier: str = "standard"
    ) -> "Caller":
        """Return somebody with a new key of the account that is named like its *tier*."""
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
        """Write the key as one whose expiry was in 2001: no test waits for a clock."""
        record = await self.gateway.store.key(None, key_id)
        assert record is not None
        expired = replace(record, expires_at=1_000_000_000.0, version=record.version + 1)
        assert await self.gateway.store.replace_key(expired, logged())
        await self.gateway.limiter.mark(key_id, expired.version)

    async def head(self) -> AuditHead:
        """Return where the audit log ends, which every change moves."""
        return await self.gateway.store.audit_head()


@dataclass(frozen=True)
class Caller:
    """Somebody with a key."""

    api: Api
    id: str
    secret: str

    async def ask(self, method: str, path: str, json: Any = None, **kwargs: Any) -> Response:  # noqa: ANN401 - as httpx2
        given = {} if json is None else {"json": json}
        return await self.api.client(self.secret).request(method, path, **given, **kwargs)

    async def created(self, **settings: Any) -> dict[str, Any]:  # noqa: ANN401 - as JSON has them
        """Return a new key as JSON."""
        answer = await self.ask("POST", "/v1/keys", {"name": "deploy", "scopes": ["skills:list"], **settings})
        assert answer.status_code == 201, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def user(self, created: dict[str, Any]) -> "Caller":
        """Return somebody with the key that was *created*."""
        return Caller(self.api, created["id"], created["secret"])


def told(answer: Response) -> tuple[int, str]:
    """Return the status and the code of a problem."""
    return answer.status_code, answer.json()["code"]


def places(answer: Response) -> list[str]:
    """Return where the mistakes are that *answer* tells of."""
    return [error["place"] for error in answer.json().get("errors", ())]


@asynccontextmanager
async def serving_api(**options: Unpack[Options]) -> AsyncIterator[Api]:
    """Serve the key API beside an application, in memory unless *options* say otherwise."""
    defaults: Options = {"database": "memory://"}
    app = create_app(ok, **(defaults | options))
    async with app.gateway:
        await app.gateway.signing.ensure()  # else the first session's key is a row in the audit log
        api = Api.of(app)
        yield api
        await api.close()


@pytest.fixture(params=["memory", "sqlite"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/keys.db"


@pytest.fixture
async def api(database: str) -> AsyncIterator[Api]:
    async with serving_api(database=database) as api:
        yield api


@pytest.fixture
async def admin(api: Api) -> Caller:
    return await api.caller()


@pytest.fixture
async def stranger(api: Api) -> Caller:
    """An admin of another account."""
    return await api.caller(tier="enterprise")
