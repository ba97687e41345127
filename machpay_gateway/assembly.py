"""From settings to parts that work together: the only place that picks adapters, and imports them only when used."""

import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, Unpack

from machpay_gateway.accounts import Accounts
from machpay_gateway.core.errors import ConfigurationError, GatewayError, StoreUnavailable
from machpay_gateway.core.failures import Failures
from machpay_gateway.core.key import KeyRecord
from machpay_gateway.core.leak import Leaks
from machpay_gateway.core.policy import Policy
from machpay_gateway.core.ports import AccountStore, AuditLog, KeyStore, Limiter, TokenVerifier, UsageStore
from machpay_gateway.core.principal import Principal
from machpay_gateway.core.quota import parse_rate
from machpay_gateway.core.route import Route
from machpay_gateway.core.usage import UsageBatch
from machpay_gateway.flights import SingleFlight
from machpay_gateway.gate import Gate
from machpay_gateway.keyring import Keyring
from machpay_gateway.limiters.memory import MemoryLimiter
from machpay_gateway.settings import Options, Settings, load_settings
from machpay_gateway.stores.cache import KeyCache
from machpay_gateway.telemetry.usage import UsageRecorder
from machpay_gateway.web.incoming import Trust, request_ids

logger = logging.getLogger("machpay_gateway")

_UPSTREAM_OF = {"live": "live", "test": "sandbox"}  # by environment
MEMORY_DATABASE = "memory://"  # nothing is kept: for tests, benchmarks and trying things out


class Store(KeyStore, AccountStore, AuditLog, UsageStore, Protocol):
    """The source of truth, as something to open and close."""

    @property
    def serving_lock(self) -> Path | None:
        """The file that is locked by the one process that serves from this store and counts by itself."""

    async def open(self, *, upgrade: bool = False) -> None:
        """Connect, and see that the schema is ours; bring it up to date if *upgrade*."""

    async def close(self) -> None:
        """Let go of every connection."""


class Reports(Protocol):
    """Reports of leaked secrets, and what follows from them."""

    @property
    def leaks(self) -> Leaks:
        """Who may report, and what follows."""

    async def are_signed(self, body: bytes, *, key_id: str, signature: str, now: float) -> bool:
        """Tell whether whoever may report signed *body*. Raises KeysetUnavailable."""

    async def close(self) -> None:
        """Let go of every connection."""


class Assertions(Protocol):
    """Signed words about callers, for upstreams."""

    @property
    def jwks(self) -> bytes:
        """The key set to verify them by (RFC 7517), as JSON."""

    def token_for(self, principal: Principal, now: float) -> bytes:
        """Return a token about *principal* that is good at *now*, in seconds since the epoch."""


class Gateway:
    """All parts of one gateway in this process, made of settings; `async with Gateway(…) as gateway` opens and closes.

    Give it to `MachPayAuth(app, gateway=gateway)` to share its `keyring` and `accounts` with your own code.
    """

    def __init__(self, *, own_routes: Sequence[Route] = (), carries: bool = False, **options: Unpack[Options]) -> None:
        """Read `machpay.toml` and the environment, *options* over both. Raises ConfigurationError.

        *own_routes* are those of the gateway's own APIs that are served beside the application. One that *carries*
        requests to upstreams serves those environments only that have one.
        """
        self.settings = settings = load_settings(options)
        self.policy = policy_for(settings, own_routes, carries=carries)
        self.trust = Trust(settings.trusted_proxies, settings.client_ip_header.lower().encode())
        self.legacy_headers = settings.legacy_headers
        self.request_ids = request_ids(os.urandom(8))
        self.is_open = False
        self._has_given_way = False
        self.store = _store_for(settings)
        self._opening = SingleFlight(self._open, failed=lambda _: None)  # whoever opens hears of it
        self.limiter = limiter = _limiter_for(settings, self.store)
        opened = _OpenedStore(self)
        self._keys = keys = KeyCache(opened, settings.tiers, clock=time.time)
        self.recorder = UsageRecorder(opened)
        self._tokens = _tokens_for(settings)
        self.reports = _reports_for(settings)
        self.assertions = _assertions_for(settings)
        self.gate = Gate(
            self.policy,
            keys=keys,
            tokens=self._tokens,
            limiter=limiter,
            failures=Failures(*parse_rate(settings.failure_limit)[:2]),
        )

        async def announce(key_id: str, version: int) -> None:
            keys.forget(key_id)
            await limiter.mark(key_id, version)

        self.keyring = Keyring(
            self.store, scopes=self.policy.scopes, clock=time.time, entropy=os.urandom, announce=announce
        )
        self.accounts = Accounts(
            self.store, tiers=self.policy.tiers, clock=time.time, entropy=os.urandom, announce=announce
        )

    async def open(self, *, upgrade: bool = False) -> None:
        """Make keys and accounts ready to use; opening twice is opening once.

        *upgrade* brings a database server's schema up to date; a SQLite file is made and brought up to date in any
        case. Raises StoreUnavailable, ConfigurationError.
        """
        if not self.is_open:
            await self._opening.join(upgrade)

    async def serve(self) -> None:
        """Open, and make ready to decide: what each process that serves does, and no other.

        Raises what `open` does, and ConfigurationError when another process serves and nothing counts for both.
        """
        await self.open()
        if not self._has_given_way:
            await self.limiter.open()
        self.recorder.open()

    async def give_way(self) -> None:
        """Let another process count, and none of the next decisions take that back: what is under way ends here."""
        self._has_given_way = True
        await self.limiter.close()

    async def close(self) -> None:
        """Store what was counted and let go of everything; it may be opened again."""
        await self.recorder.close()
        await self.limiter.close()
        self._has_given_way = False
        if self.is_open:
            self.is_open = False
            await self._keys.close()
            if self._tokens is not None:
                await self._tokens.close()
            if self.reports is not None:
                await self.reports.close()
            await self.store.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _open(self, upgrade: bool) -> None:  # noqa: FBT001 - what it is told by is what flights share
        try:
            await self.store.open(upgrade=upgrade)
        except GatewayError:
            await (
                self.store.close()
            )  # what was never open is not closed by `close`, and connections may be held already
            raise
        self.is_open = True
        logger.info("MachPay is open: %d routes, unlisted ones %s.", len(self.policy.routes), self.policy.unlisted)


def policy_for(settings: Settings, own_routes: Sequence[Route] = (), *, carries: bool = False) -> Policy:
    """Compile what a gateway with these *settings* decides by; *own_routes* are served beside the configured ones."""
    served = settings.environments
    if carries:
        served = tuple(name for name in served if _UPSTREAM_OF[name] in settings.upstreams)
    return Policy(
        settings.routes,
        tiers=settings.tiers,
        unlisted=settings.unlisted_routes,
        environments=served,
        scopes=settings.scopes,
        own_routes=[route.within(frozenset(settings.environments)) for route in own_routes],
    )


def unservable(settings: Settings) -> list[str]:
    """Return why no gateway can be made of well-formed *settings*, as far as that shows without a connection."""
    told = []
    adapters: tuple[Callable[[Settings], object], ...] = (
        _store_for,
        _redis_for,
        _tokens_for,
        _reports_for,
        _assertions_for,
    )
    for adapter in adapters:
        try:
            adapter(settings)
        except ConfigurationError as exc:
            told.append(str(exc))
    return told


class _OpenedStore:
    """Readies the gateway at the first question: mounted applications, and some servers, get no lifespan."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def find_by_digest(self, digest: bytes) -> KeyRecord | None:
        await self._open(self._gateway.serve)
        return await self._gateway.store.find_by_digest(digest)

    async def versions_since(self, since: float) -> Sequence[tuple[str, int]]:
        await self._open(self._gateway.serve)
        return await self._gateway.store.versions_since(since)

    async def add_usage(self, batch: UsageBatch) -> None:
        await self._open(self._gateway.open)  # and no more than that: it may be about to close
        await self._gateway.store.add_usage(batch)

    async def drop_usage(self, now: float) -> None:
        await self._gateway.store.drop_usage(now)

    async def _open(self, make_ready: Callable[[], Awaitable[None]]) -> None:
        try:
            await make_ready()
        except ConfigurationError as exc:
            # At a start this stops the process; a request that comes too late for that is told 503, and the log why.
            raise StoreUnavailable("making ready to serve") from exc


def _store_for(settings: Settings) -> Store:
    if settings.database == MEMORY_DATABASE:
        from machpay_gateway.stores.memory import MemoryStore

        return MemoryStore()
    from machpay_gateway.stores.sql import SqlStore

    return SqlStore(settings.database)


def _limiter_for(settings: Settings, store: Store) -> Limiter:
    if (limiter := _redis_for(settings)) is not None:
        return limiter
    if (lock := store.serving_lock) is None:
        return MemoryLimiter()
    from machpay_gateway.limiters.sole import SoleWorker

    return MemoryLimiter(sole=SoleWorker(lock))


def _redis_for(settings: Settings) -> Limiter | None:
    if settings.redis is None:
        return None
    from machpay_gateway.limiters.redis import RedisLimiter

    return RedisLimiter(settings.redis, prefix=settings.redis_prefix, on_failure=settings.on_limiter_failure)


def _tokens_for(settings: Settings) -> TokenVerifier | None:
    if not settings.issuers:
        return None
    from machpay_gateway.keysets import IssuedTokens

    return IssuedTokens(settings.issuers, settings.tiers)


def _reports_for(settings: Settings) -> Reports | None:
    if settings.leaks is None:
        return None
    from machpay_gateway.keysets import SignedReports

    return SignedReports(settings.leaks)


def _assertions_for(settings: Settings) -> Assertions | None:
    if settings.assertion is None:
        return None
    from machpay_gateway.keysets import SignedAssertions

    return SignedAssertions(settings.assertion)
