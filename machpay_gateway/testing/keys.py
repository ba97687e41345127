"""Keys for tests, on a gateway that is real."""

from collections.abc import Sequence

from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.errors import InputError
from machpay_gateway.gateway import Gateway

_TIER = "standard"


async def create_key(
    gateway: Gateway,
    *,
    scopes: str | Sequence[str] = (),
    tier: str | None = None,
    owner: str | None = None,
    account: str | None = None,
    environment: str = "live",
    name: str = "test",
) -> str:
    """Return the secret of a new key of *gateway*, for `Authorization: Bearer …`. Opens it meanwhile if it is not open.

    *scopes* are names, or one text of names separated by spaces. *account* is the name of the key's account, by default
    one for each *tier*. An account that is not there is created, with this tier, which is `standard` unless given. Test
    keys have the tier `test`, whatever their account has. Raises InputError for what no key can have, such as an
    unknown scope, and for an account of another tier.
    """
    if not gateway.lifecycle.is_open:
        async with gateway:
            return await create_key(
                gateway, scopes=scopes, tier=tier, owner=owner, account=account, environment=environment, name=name
            )
    names = scopes.split() if isinstance(scopes, str) else scopes
    owned_by = await _account(gateway, account or f"{tier or _TIER} account", tier)
    _, secret = await gateway.keys.create(owned_by.id, name=name, owner=owner, scopes=names, environment=environment)
    return secret


async def _account(gateway: Gateway, name: str, tier: str | None) -> Account:
    account = await gateway.accounts.find(name)
    if account is None:
        return await gateway.accounts.create(name, tier or _TIER)
    if tier not in {None, account.tier}:
        raise InputError(f"Account {name!r} has the tier {account.tier}: name another account for a key of {tier}.")
    return account
