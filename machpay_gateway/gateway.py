"""What fronts are given: the components of one gateway, and how these open and close.

`assembly` builds it from settings. A front reads components here and never learns which adapters they are.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from machpay_gateway.core.brand import Brand
from machpay_gateway.core.decision.failures import Failures
from machpay_gateway.core.decision.policy import Policy
from machpay_gateway.core.decision.restored_records import RestoredRecords
from machpay_gateway.core.errors import ConfigurationError, GatewayError, StoreUnavailable
from machpay_gateway.core.limits.load_shedder import LoadShedder
from machpay_gateway.core.limits.ports import Limiter
from machpay_gateway.core.scopes import DefinedScopes
from machpay_gateway.extras import require_extra
from machpay_gateway.gate import Gate
from machpay_gateway.services.lazy_services import LazyServices
from machpay_gateway.settings import Settings
from machpay_gateway.singleflight import SingleFlight
from machpay_gateway.stores.cache import KeyCache
from machpay_gateway.telemetry.loop_lag import LoopLag
from machpay_gateway.telemetry.refusals import RefusalLog
from machpay_gateway.telemetry.steps import StepTimes
from machpay_gateway.telemetry.usage import UsageRecorder
from machpay_gateway.web.page_hosts import PageGuard
from machpay_gateway.web.request_facts import Trust

if TYPE_CHECKING:
    from machpay_gateway.core.oauth.settings import OAuthSettings
    from machpay_gateway.core.store import Store
    from machpay_gateway.keysets.assertions import SignedAssertions
    from machpay_gateway.keysets.proofs import Proofs
    from machpay_gateway.keysets.reports import SignedReports
    from machpay_gateway.keysets.signing import SigningKeys
    from machpay_gateway.services.accounts import Accounts
    from machpay_gateway.services.consents import Consents
    from machpay_gateway.services.keys import Keys
    from machpay_gateway.services.oauth_clients import OAuthClients
    from machpay_gateway.services.revocation import Revocation
    from machpay_gateway.services.token_issuance import TokenIssuance
    from machpay_gateway.services.users import Users
    from machpay_gateway.telemetry.traces import Traces

logger = logging.getLogger("machpay_gateway")


class Closeable(Protocol):
    """A component with connections or tasks of its own."""

    async def close(self) -> None:
        """Close every connection and end every task."""


class Lifecycle:
    """The states of a gateway: open to read and write records, serving decisions, giving way to a successor, closed.

    A closed gateway may be opened again.
    """

    def __init__(
        self,
        store: "Store",
        limiter: Limiter,
        *,
        recorder: UsageRecorder,
        signing: "SigningKeys | None",
        loop_lag: LoopLag,
        others: Sequence[Closeable],
        settings: Settings,
        policy: Policy,
    ) -> None:
        """Manage *store*, *limiter*, *recorder*, *signing* and *loop_lag*, and close the *others* with them."""
        self.is_open = False
        self._has_given_way = False
        self._store = store
        self._limiter = limiter
        self._recorder = recorder
        self._signing = signing
        self._loop_lag = loop_lag
        self._others = others
        self._settings = settings
        self._policy = policy
        self._is_secret_key_checked = False
        self._opening = SingleFlight(self._open, failed=lambda _: None)  # every caller of `open` gets the exception

    async def open(self, *, upgrade: bool = False) -> None:
        """Open the store, for keys and accounts to be used. Opening twice is opening once.

        *upgrade* brings a database server's schema up to date; a SQLite file is created and upgraded in any case.
        Raises StoreUnavailable, ConfigurationError.
        """
        if not self.is_open:
            await self._opening.join(upgrade)

    async def serve(self) -> None:
        """Open, and start the limiter and the background tasks that decisions need: only in processes that serve.

        Raises what `open` does, and ConfigurationError when another process serves and they share no limiter.
        """
        await self.open()
        if self._signing is not None and not self._is_secret_key_checked:  # each look-up makes sure that this serves
            await self._check_secret_key(self._signing)
        for warning in self._settings.host_warnings:
            logger.warning("%s", warning)
        if not self._has_given_way:
            await self._limiter.open()
        self._recorder.open()
        self._loop_lag.open()
        if self._signing is not None:
            self._signing.poll()

    async def give_way(self) -> None:
        """Let a successor count in place of this gateway, for good, while requests in flight end here."""
        self._has_given_way = True
        await self._limiter.give_way()

    async def close(self) -> None:
        """Store the usage that was counted, and close everything."""
        await self._loop_lag.close()
        await self._recorder.close()
        await self._limiter.close()
        self._has_given_way = self._is_secret_key_checked = False
        if self.is_open:
            self.is_open = False
            for component in self._others:
                await component.close()
            await self._store.close()

    async def _open(self, upgrade: bool) -> None:  # noqa: FBT001 - the key that concurrent calls share
        try:
            await self._store.open(upgrade=upgrade)
        except GatewayError:
            # `close` leaves a store alone that never opened, and this one may hold connections already.
            await self._store.close()
            raise
        self.is_open = True
        if self._settings.oauth is not None and self._signing is not None:
            await self._ensure_signing_key(self._signing)
        logger.info("MachPay is open: %d routes, unlisted ones %s.", len(self._policy.routes), self._policy.unlisted)

    async def _check_secret_key(self, signing: "SigningKeys") -> None:
        """Fail the start when the stored signing keys need another secret key, instead of every later session."""
        try:
            await signing.check_secret_key()
        except StoreUnavailable:
            return  # it is read again every few seconds, and /readyz has the result
        except ConfigurationError:
            await self.close()
            raise
        self._is_secret_key_checked = True

    async def _ensure_signing_key(self, signing: "SigningKeys") -> None:
        """Fail the start, instead of the first user's sign-in, when access tokens cannot be signed."""
        try:
            await signing.ensure()
        except GatewayError:
            await self.close()
            raise


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Gateway:
    """The components of one gateway in this process; `async with` opens it for its records, and closes it."""

    settings: Settings
    lifecycle: Lifecycle
    # What decides about requests.
    policy: Policy
    scopes: DefinedScopes
    gate: Gate
    restored: RestoredRecords
    shedder: LoadShedder
    trust: Trust
    page_guard: PageGuard | None
    request_ids: Iterator[bytes]
    brand: Brand
    legacy_headers: bool  # of the settings: one look-up for each response
    failures: Failures
    limiter: Limiter
    key_cache: KeyCache
    proofs: "Proofs | None"
    # What measures and records them.
    recorder: UsageRecorder
    steps: StepTimes
    traces: "Traces | None"
    refusals: RefusalLog
    # Records, and the use cases on them.
    store: "Store"
    services: LazyServices
    # What is signed: by us, and by others.
    signing_keys: "SigningKeys | None"
    assertions: "SignedAssertions | None"
    reports: "SignedReports | None"

    @property
    def signing(self) -> "SigningKeys":
        """The gateway's own signing keys. Raises MissingExtra where the extra `tokens` is not installed."""
        if self.signing_keys is None:
            require_extra("tokens", "A signing key")
            raise ConfigurationError("The extra tokens was installed after the start: restart the gateway")
        return self.signing_keys

    @property
    def oauth_settings(self) -> "OAuthSettings":
        """The settings of the authorization server. Raises ConfigurationError when `oauth` is not set."""
        if self.settings.oauth is None:
            raise ConfigurationError("There is no authorization server here: set oauth.issuer to have one")
        return self.settings.oauth

    @property
    def serves_without_store(self) -> bool:
        """Whether some requests need no record: those to public routes, and with tokens of other issuers."""
        return bool(self.settings.issuers) or any(route.public for route in self.policy.routes)

    @property
    def keys(self) -> "Keys":
        """The use cases on keys."""
        return self.services.keys

    @property
    def accounts(self) -> "Accounts":
        """The use cases on accounts."""
        return self.services.accounts

    @property
    def users(self) -> "Users":
        """The use cases on users."""
        return self.services.users

    @property
    def oauth_clients(self) -> "OAuthClients":
        """The use cases on OAuth clients."""
        return self.services.oauth_clients

    @property
    def consents(self) -> "Consents":
        """The use cases on what users allow OAuth clients."""
        return self.services.consents

    @property
    def revocation(self) -> "Revocation":
        """Ends grants and tokens."""
        return self.services.revocation

    @property
    def token_issuance(self) -> "TokenIssuance":
        """Issues access and refresh tokens. Raises ConfigurationError as `oauth_settings` does."""
        return self.services.token_issuance

    async def __aenter__(self) -> Self:
        await self.lifecycle.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.lifecycle.close()
