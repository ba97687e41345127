"""Statements on accounts."""

from collections.abc import Sequence

from sqlalchemy import RowMapping, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from machpay_gateway.core.accounts.account import Account
from machpay_gateway.stores.schema import ACCOUNTS, KEYS
from machpay_gateway.stores.sql.collation import bytewise
from machpay_gateway.stores.sql.upsert import insert_or


async def insert_account(connection: AsyncConnection, account: Account) -> bool:
    """Insert *account*; False when its id or its name is taken."""
    values = {"id": account.id, "name": account.name, "tier": account.tier, "created_at": account.created_at}
    statement = insert_or(connection.dialect.name, ACCOUNTS).values(values).on_conflict_do_nothing()
    return (await connection.execute(statement)).rowcount == 1


async def account_by(connection: AsyncConnection, id_or_name: str) -> Account | None:
    """Return the account with that id or name; the id wins."""
    statement = select(ACCOUNTS).where(or_(ACCOUNTS.c.id == id_or_name, ACCOUNTS.c.name == id_or_name))
    found = [_account(row) for row in (await connection.execute(statement)).mappings()]
    return min(found, key=lambda account: account.id != id_or_name, default=None)


async def all_accounts(connection: AsyncConnection) -> Sequence[Account]:
    """Return every account, oldest first."""
    statement = select(ACCOUNTS).order_by(ACCOUNTS.c.created_at, bytewise(ACCOUNTS.c.id))
    return [_account(row) for row in (await connection.execute(statement)).mappings()]


async def update_tier(connection: AsyncConnection, account: Account, tier: str) -> bool:
    """Give *account* another tier; False when it is not there with the tier that it has here."""
    statement = update(ACCOUNTS).where(ACCOUNTS.c.id == account.id, ACCOUNTS.c.tier == account.tier)
    return (await connection.execute(statement.values(tier=tier))).rowcount == 1


async def raise_versions(connection: AsyncConnection, account_id: str, changed_at: float) -> None:
    """Raise the version of every key of the account."""
    statement = update(KEYS).where(KEYS.c.account_id == account_id)
    await connection.execute(statement.values(version=KEYS.c.version + 1, changed_at=changed_at))


async def key_versions(connection: AsyncConnection, account_id: str) -> Sequence[tuple[str, int]]:
    """Return (id, version) of each key of the account."""
    statement = select(KEYS.c.id, KEYS.c.version).where(KEYS.c.account_id == account_id)
    return [(key_id, version) for key_id, version in await connection.execute(statement)]


def _account(row: RowMapping) -> Account:
    return Account(id=row["id"], name=row["name"], tier=row["tier"], created_at=row["created_at"])
