"""What can be done with accounts: the use cases that the Console and the command line share.

It must not learn where accounts are kept. An account that is not there is None; a request that cannot be carried out
as asked is an InputError.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace

from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.accounts.ports import AccountStore
from machpay_gateway.core.errors import InputError
from machpay_gateway.core.keys.audit import APPLICATION, Actor, Change
from machpay_gateway.core.keys.key import ACCOUNT, ENTROPY_BYTES, mint_id
from machpay_gateway.core.keys.validation import validate_name
from machpay_gateway.core.text import quoted

__all__ = ["Accounts"]


class Accounts:
    """The use cases on accounts. *announce* is told (key id, version) of each key that a stored change concerns.

    *tiers* are the names an account can have; *entropy* returns as many bytes of the system's randomness as it is
    asked for; *clock* is in seconds since the epoch.
    """

    def __init__(
        self,
        store: AccountStore,
        *,
        tiers: Iterable[str],
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        announce: Callable[[str, int], Awaitable[None]],
    ) -> None:
        self._store = store
        self._tiers = tuple(tiers)
        self._clock = clock
        self._entropy = entropy
        self._announce = announce

    async def create(self, name: str, tier: str, *, actor: Actor = APPLICATION) -> Account:
        """Create an account. Raises InputError for a tier that is not configured, or a name that is taken."""
        account = Account(
            id=mint_id(ACCOUNT, self._entropy(ENTROPY_BYTES)),
            name=_account_name(name),
            tier=self._known_tier(tier),
            created_at=self._clock(),
        )
        state = {"name": account.name, "tier": account.tier}
        change = Change(account.created_at, actor, "account.create", account.id, account.id, {}, state)
        if not await self._store.add_account(account, change):
            raise InputError(f"An account named {quoted(account.name)} exists already: choose another name.")
        return account

    async def list(self) -> Sequence[Account]:
        """Return all accounts, oldest first."""
        return await self._store.accounts()

    async def find(self, id_or_name: str) -> Account | None:
        """Return the account with that id or name."""
        # What no account can be called must not reach a database that chokes on it (NUL, surrogates).
        return await self._store.account(id_or_name) if id_or_name.isprintable() else None

    async def set_tier(self, id_or_name: str, tier: str, *, actor: Actor = APPLICATION) -> Account | None:
        """Give the account another tier: it holds from the next request of its live keys. Raises InputError."""
        tier = self._known_tier(tier)
        while (account := await self.find(id_or_name)) is not None:
            if account.tier == tier:
                return account
            states = {"tier": account.tier}, {"tier": tier}
            change = Change(self._clock(), actor, "account.set_tier", account.id, account.id, *states)
            raised = await self._store.set_tier(account, tier, change)
            if raised is None:  # it was given another one in between
                continue
            for key_id, version in raised:
                await self._announce(key_id, version)
            return replace(account, tier=tier)
        return None

    def _known_tier(self, tier: str) -> str:
        if tier not in self._tiers:
            raise InputError(f"Tier {quoted(tier)} is not configured; known tiers: {', '.join(self._tiers)}.")
        return tier


def _account_name(name: str) -> str:
    name = validate_name(name)
    if name.startswith(f"{ACCOUNT}_"):  # accounts are found by id or name: one must not pass for the other
        raise InputError(f"The name {quoted(name)} looks like an account's id: choose one without {ACCOUNT}_ in front.")
    return name
