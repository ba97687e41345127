"""The choice of adapters by settings. Each is imported only when it is used."""

import time
from hashlib import sha256
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from machpay_gateway.assembly.imported import import_function
from machpay_gateway.assembly.unverified_tokens import UnverifiedTokens
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.jose.claims import LEEWAY_SECONDS
from machpay_gateway.core.jose.ports import KeyPrincipals, SigningKeyStore, TokenVerifier
from machpay_gateway.core.jose.session import MAX_SECONDS
from machpay_gateway.core.limits.ports import Limiter, QuotaStore
from machpay_gateway.extras import MissingExtra, require_extra
from machpay_gateway.limiters.memory import MemoryLimiter
from machpay_gateway.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from machpay_gateway.core.store import Store
    from machpay_gateway.hooks import CheckHooks
    from machpay_gateway.keysets.assertions import SignedAssertions
    from machpay_gateway.keysets.identified import IdentifiedCredentials
    from machpay_gateway.keysets.proofs import Proofs
    from machpay_gateway.keysets.reports import SignedReports
    from machpay_gateway.keysets.signing import SigningKeys
    from machpay_gateway.limiters.quota_ledger import QuotaLedger
    from machpay_gateway.stores.change_poller import ChangePoller
    from machpay_gateway.stores.grant_cache import GrantCache, GrantLookup
    from machpay_gateway.telemetry.traces import Traces


def unservable(settings: Settings) -> list[str]:
    """Return why no gateway can be built from valid *settings*, as far as that shows without a connection."""
    mistakes = []
    adapters: tuple[Callable[[Settings], object], ...] = (
        _require_extras_of_pages,
        store_for,
        _redis_for,
        _issuers_for,
        _identifier_for,
        hooks_for,
        reports_for,
        assertions_for,
        traces_for,
    )
    for adapter in adapters:
        try:
            adapter(settings)
        except ConfigurationError as exc:
            mistakes.append(str(exc))
    return mistakes


def _require_extras_of_pages(settings: Settings) -> None:
    """Raise MissingExtra for the pages that *settings* name. Middleware serves none, and warns of them instead."""
    for extra, name, value in (("console", "[console]", settings.console), ("oauth", "[oauth]", settings.oauth)):
        if value:
            require_extra(extra, name)


def store_for(settings: Settings) -> "Store":
    """Return the store that *settings* name."""
    if settings.database.startswith("postgresql:"):
        require_extra("postgresql", "postgresql://")
    from machpay_gateway.stores.sql import SqlStore

    return SqlStore(settings.database, url_file=settings.database_file)


def ledger_for(settings: Settings, store: QuotaStore) -> "QuotaLedger | None":
    """Return what keeps the units of quotas in *store*; None when no tier has one."""
    if not any(tier.has_quotas for tier in settings.tiers.values()):
        return None
    from machpay_gateway.limiters.quota_ledger import QuotaLedger

    return QuotaLedger(store)


def limiter_for(
    settings: Settings, store: "Store", ledger: "QuotaLedger | None", workers: int, *, has_served: bool
) -> Limiter:
    """Return the limiter: in Redis, or in this process, which is one of *workers*; with 0 it serves nobody.

    *has_served* is whether this process goes on for one that served before.
    """
    if (limiter := _redis_for(settings, store, ledger, workers, has_served=has_served)) is not None:
        return limiter
    if (lock := store.serving_lock) is None:
        return MemoryLimiter(ledger=ledger)
    from machpay_gateway.limiters.process_lock import ProcessLock

    return MemoryLimiter(process_lock=ProcessLock(lock), ledger=ledger)


def _redis_for(
    settings: Settings,
    store: "Store | None" = None,
    ledger: "QuotaLedger | None" = None,
    workers: int = 1,
    *,
    has_served: bool = False,
) -> Limiter | None:
    if settings.redis is None:
        return None
    from machpay_gateway.limiters.redis import RedisLimiter
    from machpay_gateway.limiters.redis.share_registry import ShareRegistry

    return RedisLimiter(
        settings.redis,
        url_file=settings.redis_file,
        prefix=settings.redis_prefix,
        on_failure=settings.on_limiter_failure,
        registry=ShareRegistry(
            None if store is None else _workers_folder(settings, store),
            workers=workers,
            expected=settings.expected_workers or settings.server.workers,
        ),
        ledger=ledger,
        has_served=has_served,
    )


def _workers_folder(settings: Settings, store: "Store") -> Path:
    """Return the folder by which processes of this host that share their limits know of each other."""
    if (lock := store.serving_lock) is not None:
        return lock.with_suffix(".workers")
    # Those with a database of their own in memory have the same Redis. Its password is not part of the name.
    parts = urlsplit(settings.redis or "")
    shared = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path} {settings.redis_prefix}"
    return Path(gettempdir()) / f"machpay-{sha256(shared.encode()).hexdigest()[:16]}.workers"


def _issuers_for(settings: Settings) -> TokenVerifier | None:
    if not settings.issuers:
        return None
    require_extra("tokens", "[[issuers]]")
    from machpay_gateway.keysets.issued import IssuedTokens

    return IssuedTokens(settings.issuers, settings.tiers)


def _identifier_for(settings: Settings) -> "IdentifiedCredentials | None":
    return identifier_for(settings, UnverifiedTokens())


def tokens_for(
    settings: Settings, signing: "SigningKeys | None", keys: KeyPrincipals, grants: "GrantCache | None"
) -> TokenVerifier:
    """Return the verifier of tokens from the issuers in the settings and of our own."""
    if signing is None:
        _issuers_for(settings)  # raises if there are any: their tokens must not be refused without a word
        return UnverifiedTokens()
    from machpay_gateway.keysets.issued import IssuedTokens
    from machpay_gateway.keysets.own import OwnTokens

    own = OwnTokens(signing, keys=keys, tiers=settings.tiers, oauth_settings=settings.oauth, grants=grants)
    return IssuedTokens(settings.issuers, settings.tiers, own=own)


def hooks_for(settings: Settings) -> "CheckHooks | None":
    """Return the application's checks, None without any."""
    if not settings.checks:
        return None
    from machpay_gateway.hooks import CheckHooks

    return CheckHooks(_hook(check, settings) for check in settings.checks)


def identifier_for(settings: Settings, tokens: TokenVerifier) -> "IdentifiedCredentials | None":
    """Return what has the application identify what is neither a key nor one of *tokens*; None without `identify`."""
    if settings.identify is None:
        return None
    from machpay_gateway.keysets.identified import IdentifiedCredentials

    return IdentifiedCredentials(_hook(settings.identify, settings), tokens, settings.tiers)


def _hook(hook: "Callable[..., Any] | str", settings: Settings) -> "Callable[..., Any]":
    return import_function(hook, settings.file.parent) if isinstance(hook, str) else hook


def signing_for(settings: Settings, opened: SigningKeyStore, store: "Store") -> "SigningKeys | None":
    """Return our signing keys; None where the extra `tokens` is not installed, and so none can be used."""
    try:
        require_extra("tokens", "A signing key")
    except MissingExtra:
        return None
    from machpay_gateway.keysets.signing import SigningKeys

    def secret_key() -> bytes:
        secret = settings.secret_key.encode() if settings.secret_key else store.secret_key()
        if secret is None:
            raise ConfigurationError(
                "The signing keys are stored in the database, encrypted with a secret that is not: set "
                "MACHPAY_SECRET_KEY, the same for every worker, as from `openssl rand -hex 32`"
            )
        return secret

    life = MAX_SECONDS if settings.oauth is None else max(MAX_SECONDS, settings.oauth.access_token_seconds)
    return SigningKeys(opened, secret_key=secret_key, life_seconds=life + LEEWAY_SECONDS, clock=time.time)


def grants_for(settings: Settings, opened: "GrantLookup", changes: "ChangePoller") -> "GrantCache | None":
    """Return the cache of grants, None without an authorization server."""
    if settings.oauth is None:
        return None
    from machpay_gateway.stores.grant_cache import GrantCache

    life = settings.oauth.access_token_seconds + LEEWAY_SECONDS
    return GrantCache(opened, changes, life_seconds=life, clock=time.time)


def proofs_for(settings: Settings, limiter: Limiter) -> "Proofs | None":
    """Return who judges proofs of possession, None without an authorization server: no token is bound then."""
    if settings.oauth is None:
        return None
    require_extra("tokens", "[oauth]")
    from machpay_gateway.keysets.proofs import Proofs

    return Proofs(settings.oauth, limiter, clock=time.time)


def reports_for(settings: Settings) -> "SignedReports | None":
    """Return the verifier of leak reports, None when none are accepted."""
    if settings.leaks is None:
        return None
    require_extra("tokens", "[leaks]")
    from machpay_gateway.keysets.reports import SignedReports

    return SignedReports(settings.leaks)


def assertions_for(settings: Settings) -> "SignedAssertions | None":
    """Return the signer of assertions for upstreams, None when there is none."""
    if settings.assertion is None:
        return None
    require_extra("tokens", "[assertion]")
    from machpay_gateway.keysets.assertions import SignedAssertions

    return SignedAssertions(settings.assertion)


def traces_for(settings: Settings) -> "Traces | None":
    """Return the tracer of requests, None when tracing is off."""
    if not settings.traces:
        return None
    require_extra("otel", "traces = true")
    from machpay_gateway.telemetry.traces import Traces

    return Traces()
