"""What a gateway is made of, beside what `core.ports` asks for."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from machpay_gateway.core.accounts.ports import AccountStore
from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.jose.ports import SigningKeyStore
from machpay_gateway.core.keys.leak import LeakSettings
from machpay_gateway.core.keys.ports import AuditLog, KeyStore
from machpay_gateway.core.oauth.ports import OAuthStore
from machpay_gateway.core.usage.ports import UsageStore
from machpay_gateway.settings import Settings

OwnRoutes = Callable[[Settings], Sequence[Route]]


class Store(KeyStore, AccountStore, AuditLog, UsageStore, SigningKeyStore, Protocol):
    """The source of truth, as something to open and close."""

    @property
    def oauth(self) -> OAuthStore | None:
        """What the authorization server is kept in; None for a store that has no room for it."""

    def secret_key(self) -> bytes | None:
        """Return what only those who serve from this store can know, None when it is for the settings to say."""

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
    def leaks(self) -> LeakSettings:
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


def oauth_of(store: Store) -> OAuthStore:
    """Return what the authorization server is kept in. Raises ConfigurationError."""
    if store.oauth is None:
        raise ConfigurationError("memory:// has no room for users and apps: use sqlite:// (in memory) instead")
    return store.oauth
