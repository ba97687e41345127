"""A gateway on nothing but memory, with an account in each tier, for tests of what stands around it."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar, Unpack

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


Part = TypeVar("Part")


class Shared(Generic[Part]):
    """What the tests of a module share: each *part* is started by the first test that needs it, by its name."""

    def __init__(self) -> None:
        self._parts: dict[str, Part] = {}
        self._stack = AsyncExitStack()

    async def part(self, name: str, start: Callable[[], AbstractAsyncContextManager[Part]]) -> Part:
        """Return the part of this *name*, started if it is not there yet."""
        if name not in self._parts:
            self._parts[name] = await self._stack.enter_async_context(start())
        return self._parts[name]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()


@dataclass(frozen=True)
class Guarded:
    """A guarded application and the gateway in front of it. The names of accounts end in *suffix*."""

    app: MachPayAuth
    gateway: Gateway
    suffix: str = ""

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
        name = tier + self.suffix
        account = await self.gateway.accounts.find(name) or await self.gateway.accounts.create(name, tier)
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
