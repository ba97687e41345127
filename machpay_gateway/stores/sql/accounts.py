"""Statements on accounts."""

from collections.abc import Sequence

from sqlalchemy import RowMapping, or_, select, update
from typing_extensions import override

from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.accounts.ports import AccountStore
from machpay_gateway.core.keys.audit import Change
from machpay_gateway.core.keys.ports import ChangedRecord
from machpay_gateway.stores.schema import ACCOUNTS, OAUTH_CLIENTS, OAUTH_GRANTS
from machpay_gateway.stores.sql.audit import change_transaction, insert_change
from machpay_gateway.stores.sql.collation import bytewise
from machpay_gateway.stores.sql.engine import Statements
from machpay_gateway.stores.sql.grants import raise_grant_versions
from machpay_gateway.stores.sql.upsert import dialect_insert


class SqlAccounts(Statements, AccountStore):
    """The accounts of a database."""

    @override
    async def add_account(self, account: Account, change: Change) -> bool:
        values = {"id": account.id, "name": account.name, "tier": account.tier, "created_at": account.created_at}
        async with change_transaction(self._database, "account creation") as connection:
            statement = dialect_insert(connection.dialect.name, ACCOUNTS).values(values).on_conflict_do_nothing()
            if (await connection.execute(statement)).rowcount == 0:
                return False
            await insert_change(connection, change)
            return True

    @override
    async def account(self, id_or_name: str) -> Account | None:
        statement = select(ACCOUNTS).where(or_(ACCOUNTS.c.id == id_or_name, ACCOUNTS.c.name == id_or_name))
        async with self._database.read_connection("account") as connection:
            matches = [_account(row) for row in (await connection.execute(statement)).mappings()]
        # An account's id takes precedence over another account's equal name.
        return min(matches, key=lambda account: account.id != id_or_name, default=None)

    @override
    async def accounts(self) -> Sequence[Account]:
        statement = select(ACCOUNTS).order_by(ACCOUNTS.c.created_at, bytewise(ACCOUNTS.c.id))
        async with self._database.read_connection("accounts") as connection:
            return [_account(row) for row in (await connection.execute(statement)).mappings()]

    @override
    async def set_tier(self, account: Account, tier: str, change: Change) -> Sequence[ChangedRecord] | None:
        unchanged = (ACCOUNTS.c.id == account.id) & (ACCOUNTS.c.tier == account.tier)
        clients = select(OAUTH_CLIENTS.c.id).where(OAUTH_CLIENTS.c.account_id == account.id)
        async with change_transaction(self._database, "tier change") as connection:
            if (await connection.execute(update(ACCOUNTS).where(unchanged).values(tier=tier))).rowcount == 0:
                return None
            sequence = await insert_change(connection, change)
            grants = OAUTH_GRANTS.c.client_id.in_(clients) | (OAUTH_GRANTS.c.account_id == account.id)
            grant_versions = await raise_grant_versions(connection, grants, change.at)
            return [ChangedRecord(account.id, sequence, account.id), *grant_versions]


def _account(row: RowMapping) -> Account:
    return Account(id=row["id"], name=row["name"], tier=row["tier"], created_at=row["created_at"])
