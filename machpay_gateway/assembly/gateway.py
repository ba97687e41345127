"""All parts of one gateway, put together."""

import logging
import os
import time
from collections.abc import Sequence
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from machpay_gateway.assembly.adapters import (
    assertions_for,
    grants_for,
    limiter_for,
    proofs_for,
    reports_for,
    signing_for,
    store_for,
    tokens_for,
    traces_for,
)
from machpay_gateway.assembly.opened import OpenedStore
from machpay_gateway.assembly.parts import OwnRoutes, oauth_of
from machpay_gateway.core.decision.failures import Failures
from machpay_gateway.core.decision.policy import Policy
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.errors import ConfigurationError, GatewayError
from machpay_gateway.core.limits.rate import parse_rate
from machpay_gateway.gate import Gate
from machpay_gateway.services.accounts import Accounts
from machpay_gateway.services.keys import Keys
from machpay_gateway.settings import Options, Settings, load_settings
from machpay_gateway.settings.console import IDLE_MINUTES
from machpay_gateway.singleflight import SingleFlight
from machpay_gateway.stores.cache import KeyCache
from machpay_gateway.telemetry.steps import StepTimes
from machpay_gateway.telemetry.usage import UsageRecorder
from machpay_gateway.web.incoming import Trust, request_ids
from machpay_gateway.web.page_hosts import PageGuard

if TYPE_CHECKING:
    from machpay_gateway.assembly.issuing import Issuing
    from machpay_gateway.services.oauth_clients import OAuthClients
    from machpay_gateway.services.revocation import Revocation
    from machpay_gateway.services.users import Users

logger = logging.getLogger("machpay_gateway")

_UPSTREAM_OF = {"live": "live", "test": "sandbox"}  # by environment


class Gateway:
    """All parts of one gateway in this process, made of settings; `async with Gateway(…) as gateway` opens and closes.

    Give it to `MachPayAuth(app, gateway=gateway)` to share its `keys` and `accounts` with your own code.
    """

    def __init__(
        self, *, own_routes: OwnRoutes | Sequence[Route] = (), carries: bool = False, **options: Unpack[Options]
    ) -> None:
        """Read `machpay.toml` and the environment, *options* over both. Raises ConfigurationError.

        *own_routes* are those of the gateway's own APIs that are served beside the application, by its settings. One
        that *carries* requests to upstreams serves those environments only that have one.
        """
        self.settings = settings = load_settings(options)
        own_routes = own_routes(settings) if callable(own_routes) else own_routes
        self.policy = policy_for(settings, own_routes, carries=carries)
        self.trust = Trust(settings.trusted_proxies, settings.client_ip_header.lower().encode())
        hosts = settings.page_hosts
        self.page_guard = None if hosts is None else PageGuard(hosts)
        self.legacy_headers = settings.legacy_headers
        self.request_ids = request_ids(os.urandom(8))
        self.is_open = False
        self._has_given_way = False
        self.store = store_for(settings)
        if settings.oauth is not None or settings.console is not None:
            oauth_of(self.store)
        self._opening = SingleFlight(self._open, failed=lambda _: None)  # whoever opens hears of it
        self.limiter = limiter = limiter_for(settings, self.store)
        opened = OpenedStore(self)
        self.key_cache = keys = KeyCache(opened, settings.tiers, clock=time.time)
        self.recorder = UsageRecorder(opened, clean_up=self._clean_up)
        self.steps = StepTimes()
        self.traces = traces_for(settings)
        self.signing = signing_for(settings, opened, self.store)
        self._grants = grants = grants_for(settings, opened)
        self._tokens = tokens_for(settings, self.signing, keys, grants)
        self.reports = reports_for(settings)
        self.assertions = assertions_for(settings)
        self.proofs = proofs_for(settings, limiter)
        self.failures = Failures(*parse_rate(settings.failure_limit)[:2])
        self.gate = Gate(
            self.policy,
            keys=keys,
            tokens=self._tokens,
            limiter=limiter,
            failures=self.failures,
            proofs=self.proofs,
        )

        async def announce(subject: str, version: int) -> None:
            keys.forget(subject)
            if grants is not None:
                grants.note(subject, version)
            await limiter.invalidate(subject, version)

        self._announce = announce

        self.keys = Keys(self.store, scopes=self.policy.scopes, clock=time.time, entropy=os.urandom, announce=announce)
        self.accounts = Accounts(
            self.store, tiers=self.policy.tiers, clock=time.time, entropy=os.urandom, announce=announce
        )

    @cached_property
    def users(self) -> "Users":
        """The use cases on users. Raises ConfigurationError for a store that has no room for them."""
        from machpay_gateway.services.passwords import Passwords
        from machpay_gateway.services.users import Users

        console = self.settings.console
        idle_minutes = IDLE_MINUTES if console is None else console.idle_minutes
        return Users(
            oauth_of(self.store),
            limiter=self.limiter,
            passwords=Passwords(),
            clock=time.time,
            entropy=os.urandom,
            announce=self._announce,
            account_name=self._account_name,
            idle_seconds=idle_minutes * 60.0,
        )

    async def _account_name(self, account_id: str) -> str:
        account = await self.store.account(account_id)
        return "" if account is None else account.name

    @cached_property
    def oauth_clients(self) -> "OAuthClients":
        """The use cases on OAuth clients. Raises ConfigurationError as `users` does."""
        from machpay_gateway.services.oauth_clients import OAuthClients

        return OAuthClients(
            oauth_of(self.store),
            scopes=self.policy.scopes,
            clock=time.time,
            entropy=os.urandom,
            announce=self._announce,
        )

    @cached_property
    def revocation(self) -> "Revocation":
        """How grants and tokens end. Raises ConfigurationError as `users` does."""
        from machpay_gateway.services.revocation import Revocation

        return Revocation(
            oauth_of(self.store),
            issuer="" if self.settings.oauth is None else self.settings.oauth.issuer,
            verifier=self._tokens,
            clock=time.time,
            announce=self._announce,
        )

    @cached_property
    def issuing(self) -> "Issuing":
        """What issues access tokens. Raises ConfigurationError when `oauth` is not set, or as `users` does."""
        from machpay_gateway.assembly.issuing import issuing_for

        if self.settings.oauth is None or self.proofs is None:
            raise ConfigurationError("There is no authorization server here: set oauth.issuer to have one")
        return issuing_for(
            self.settings.oauth,
            oauth_of(self.store),
            revocation=self.revocation,
            signing=self.signing,
            proofs=self.proofs,
            scopes=self.policy.scopes,
            announce=self._announce,
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
        for warning in self.settings.host_warnings:
            logger.warning("%s", warning)
        if not self._has_given_way:
            await self.limiter.open()
        self.recorder.open()
        self.signing.poll()

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
            await self.key_cache.close()
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
        if self.settings.oauth is not None:
            await self._start_issuing()
        logger.info("MachPay is open: %d routes, unlisted ones %s.", len(self.policy.routes), self.policy.unlisted)

    async def _clean_up(self) -> None:
        """Remove what nobody uses: clients that registered themselves."""
        if self.settings.oauth is not None:
            await self.oauth_clients.remove_unused(self.settings.oauth.registration_days)

    async def _start_issuing(self) -> None:
        """See that access tokens can be signed: whoever cannot should say so at the start, not to the first user."""
        try:
            await self.signing.ensure()
        except GatewayError:
            await self.close()
            raise


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
