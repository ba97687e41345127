"""What the gateway needs of its database. Imported for its type alone: with all its records it slows a start down."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from machpay_gateway.core.accounts.ports import AccountStore
from machpay_gateway.core.jose.ports import SigningKeyStore
from machpay_gateway.core.keys.ports import AuditLog, KeyStore
from machpay_gateway.core.limits.ports import QuotaStore
from machpay_gateway.core.oauth.ports import OAuthStore
from machpay_gateway.core.pool_use import PoolUse
from machpay_gateway.core.usage.ports import UsageStore


class Store(KeyStore, AccountStore, OAuthStore, AuditLog, UsageStore, QuotaStore, SigningKeyStore, Protocol):
    """The source of truth: all records, and the connection to them."""

    def secret_key(self) -> bytes | None:
        """Return a secret that is kept beside the database, or None when the settings must name it."""

    @property
    def is_read_only(self) -> bool:
        """Whether it refused to be written to, or said that it would, when it was last used."""

    @property
    def serving_lock(self) -> Path | None:
        """The file that is locked by the one process that serves from this store and limits by itself."""

    @property
    def pools(self) -> Mapping[str, PoolUse]:
        """The use of the connection pools of this process, by name."""

    async def server_time(self) -> float | None:
        """Return the server's time in seconds since the epoch; None when this host's clock is its clock."""

    async def open(self, *, upgrade: bool = False) -> None:
        """Connect and check the schema; with *upgrade*, bring it up to date."""

    async def close(self) -> None:
        """Close every connection."""
