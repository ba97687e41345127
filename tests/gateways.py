"""A gateway on nothing but memory, with an account in each tier, for tests of what stands around it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Unpack

from httpx2 import ASGITransport, AsyncClient
from starlette.types import ASGIApp

from machpay_gateway import MachPayAuth, Route
from machpay_gateway.assembly import ConfiguredGateway
from machpay_gateway.gateway import Gateway
from machpay_gateway.settings import Options

ROUTES = (
    Route("POST /v1/skills/execute", scopes="skills:execute"),
    Route("GET /v1/skills", scopes="skills:list"),
    Route("GET /v1/skills/{id}", scopes="skills:list"),
    Route("GET /v1/account", scopes="account:read | account:write"),
    Route("GET /healthz", public=True),
)


@dataclass(frozen=True)
class Guarded:
    """A guarded application and the gateway in front of it."""

    app: MachPayAuth
    gateway: Gateway

    async def key(
        self,
        *,
        scopes: Sequence[str] = ("skills:execute", "skills:list", "account:read"),
        environment: str = "live",
        tier: str = "standard",
        allowed_ips: Sequence[str] = (),
        expires_at: float | None = None,
    ) -> tuple[str, str]:
        """Return the id and the secret of a new key of an account in *tier*."""
        account = await self.gateway.accounts.find(tier) or await self.gateway.accounts.create(tier, tier)
        record, secret = await self.gateway.keys.create(
            account.id,
            name="test",
            scopes=scopes,
            environment=environment,
            allowed_ips=allowed_ips,
            expires_at=expires_at,
        )
        return record.id, secret

    def client(self, secret: str | None = None, *, address: str = "192.0.2.1") -> AsyncClient:
        """Return a client that calls from *address* with *secret*."""
        headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
        transport = ASGITransport(app=self.app, client=(address, 50000))
        return AsyncClient(transport=transport, base_url="http://api.test", headers=headers)


@asynccontextmanager
async def guarded(app: ASGIApp, **options: Unpack[Options]) -> AsyncIterator[Guarded]:
    """Guard *app* by a gateway in memory, `ROUTES` unless *options* say otherwise."""
    defaults: Options = {"database": "memory://", "routes": ROUTES}
    async with ConfiguredGateway(**(defaults | options)) as gateway:
        yield Guarded(MachPayAuth(app, gateway=gateway), gateway)
