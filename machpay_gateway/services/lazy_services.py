"""The use cases on records. Decisions alone need none, so each is imported and built when it is first asked for.

All of them together take 50 ms and more to import.
"""

import os
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from machpay_gateway.core.decision.policy import Policy
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.jose.ports import TokenVerifier
from machpay_gateway.core.limits.ports import Limiter
from machpay_gateway.core.scopes import DefinedScopes
from machpay_gateway.extras import require_extra
from machpay_gateway.services.optimistic_locking import Invalidate
from machpay_gateway.settings import Settings
from machpay_gateway.settings.console import IDLE_MINUTES

if TYPE_CHECKING:
    from machpay_gateway.core.store import Store
    from machpay_gateway.services.accounts import Accounts
    from machpay_gateway.services.consents import Consents
    from machpay_gateway.services.keys import Keys
    from machpay_gateway.services.oauth_clients import OAuthClients
    from machpay_gateway.services.revocation import Revocation
    from machpay_gateway.services.token_issuance import DPoPProofs, TokenIssuance, TokenSigner
    from machpay_gateway.services.users import Users


@dataclass(frozen=True)  # without slots, which `cached_property` cannot do with
class LazyServices:
    """Builds each service once. *invalidate* publishes the records that changed."""

    settings: Settings
    policy: Policy
    scopes: DefinedScopes
    store: "Store"
    limiter: Limiter
    signing: "TokenSigner | None"
    tokens: TokenVerifier
    proofs: "DPoPProofs | None"
    invalidate: Invalidate

    @cached_property
    def keys(self) -> "Keys":
        """The use cases on keys."""
        from machpay_gateway.services.keys import Keys

        return Keys(
            self.store,
            scopes=self.scopes,
            tiers=self.policy.tiers,
            clock=time.time,
            entropy=os.urandom,
            invalidate=self.invalidate,
            brand=self.settings.brand,
        )

    @cached_property
    def accounts(self) -> "Accounts":
        """The use cases on accounts."""
        from machpay_gateway.services.accounts import Accounts

        return Accounts(
            self.store, tiers=self.policy.tiers, clock=time.time, entropy=os.urandom, invalidate=self.invalidate
        )

    @cached_property
    def users(self) -> "Users":
        """The use cases on users. Raises MissingExtra where the extra `console` is not installed."""
        require_extra("console", "A user with a password")
        from machpay_gateway.services.passwords import Passwords
        from machpay_gateway.services.users import Users

        console = self.settings.console
        idle_minutes = IDLE_MINUTES if console is None else console.idle_minutes
        return Users(
            self.store,
            limiter=self.limiter,
            passwords=Passwords(),
            clock=time.time,
            entropy=os.urandom,
            invalidate=self.invalidate,
            account_name=self._account_name,
            idle_seconds=idle_minutes * 60.0,
        )

    async def _account_name(self, account_id: str) -> str:
        account = await self.store.account(account_id)
        return "" if account is None else account.name

    @cached_property
    def oauth_clients(self) -> "OAuthClients":
        """The use cases on OAuth clients."""
        from machpay_gateway.services.oauth_clients import OAuthClients

        return OAuthClients(
            self.store,
            scopes=self.scopes,
            clock=time.time,
            entropy=os.urandom,
            invalidate=self.invalidate,
            brand=self.settings.brand,
        )

    @cached_property
    def consents(self) -> "Consents":
        """The use cases on what users allow OAuth clients."""
        from machpay_gateway.services.consents import Consents

        return Consents(
            self.store,
            clock=time.time,
            entropy=os.urandom,
            invalidate=self.invalidate,
            brand=self.settings.brand,
        )

    @cached_property
    def revocation(self) -> "Revocation":
        """Ends grants and tokens."""
        from machpay_gateway.services.revocation import Revocation

        return Revocation(
            self.store,
            issuer="" if self.settings.oauth is None else self.settings.oauth.issuer,
            verifier=self.tokens,
            clock=time.time,
            invalidate=self.invalidate,
        )

    @cached_property
    def token_issuance(self) -> "TokenIssuance":
        """Issues access and refresh tokens. Raises ConfigurationError without an authorization server."""
        from machpay_gateway.services.token_issuance import TokenIssuance

        if self.settings.oauth is None or self.proofs is None or self.signing is None:
            raise ConfigurationError("There is no authorization server here: set oauth.issuer to have one")
        return TokenIssuance(
            self.store,
            settings=self.settings.oauth,
            consents=self.consents,
            revocation=self.revocation,
            signer=self.signing,
            proofs=self.proofs,
            scopes=self.scopes,
            clock=time.time,
            entropy=os.urandom,
            brand=self.settings.brand,
        )
