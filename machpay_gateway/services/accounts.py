"""The use cases on accounts, shared by the Console and the command line.

An account that does not exist is None; an invalid request raises InputError. Nothing here depends on how accounts are
stored.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.accounts.ports import AccountStore
from machpay_gateway.core.errors import InputError
from machpay_gateway.core.keys.audit import APPLICATION, Actor, Change
from machpay_gateway.core.keys.key import ACCOUNT, ENTROPY_BYTES, mint_id
from machpay_gateway.core.keys.ports import ChangedRecord
from machpay_gateway.core.keys.validation import validate_name, validate_tier
from machpay_gateway.core.text import quote_value
from machpay_gateway.services.optimistic_locking import Invalidate, update_record

__all__ = ["Accounts"]


class Accounts:
    """The use cases on accounts.

    *invalidate* is called with the account and the grants that a change affects.
    *tiers* are the tiers an account can have; *entropy* returns that many random bytes; *clock* returns seconds since
    the epoch.
    """

    def __init__(
        self,
        store: AccountStore,
        *,
        tiers: Iterable[str],
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        invalidate: Invalidate,
    ) -> None:
        self._store = store
        self._tiers = tuple(tiers)
        self._clock = clock
        self._entropy = entropy
        self._invalidate = invalidate

    async def create(self, name: str, tier: str, *, actor: Actor = APPLICATION) -> Account:
        """Create an account. Raises InputError for a tier that is not configured, or a name that is taken."""
        account = Account(
            id=mint_id(ACCOUNT, self._entropy(ENTROPY_BYTES)),
            name=_account_name(name),
            tier=validate_tier(tier, self._tiers),
            created_at=self._clock(),
        )
        state = {"name": account.name, "tier": account.tier}
        change = Change(account.created_at, actor, "account.create", account.id, account.id, {}, state)
        if not await self._store.add_account(account, change):
            raise InputError(f"An account named {quote_value(account.name)} exists already: choose another name.")
        return account

    async def list(self) -> Sequence[Account]:
        """Return all accounts, oldest first."""
        return await self._store.accounts()

    async def find(self, id_or_name: str) -> Account | None:
        """Return the account with that id or name."""
        # NUL and surrogates are in no name, and some databases raise on them.
        return await self._store.account(id_or_name) if id_or_name.isprintable() else None

    async def set_tier(self, id_or_name: str, tier: str, *, actor: Actor = APPLICATION) -> Account | None:
        """Give the account another tier, in force from the next request of its live keys on. Raises InputError."""
        tier = validate_tier(tier, self._tiers)

        def describe(before: Account, after: Account) -> Change:
            states = {"tier": before.tier}, {"tier": after.tier}
            return Change(self._clock(), actor, "account.set_tier", before.id, before.id, *states)

        async def write(before: Account, after: Account, change: Change) -> Sequence[ChangedRecord] | None:
            return await self._store.set_tier(before, after.tier, change)

        return await update_record(
            f"account {id_or_name}",
            partial(self.find, id_or_name),
            partial(replace, tier=tier),
            write,
            describe=describe,
            invalidate=self._invalidate,
        )


def _account_name(name: str) -> str:
    name = validate_name(name)
    if name.startswith(f"{ACCOUNT}_"):  # `find` takes an id or a name: a name must not pass for an id
        raise InputError(
            f"The name {quote_value(name)} looks like an account's id: choose one without {ACCOUNT}_ in front."
        )
    return name
