"""SQL statements for users, their sign-ins, and the address blocks that they sign in from."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict

from sqlalchemy import ColumnElement, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from machpay_gateway.core.accounts.ports import UserStore
from machpay_gateway.core.accounts.user import FAMILIAR_SECONDS, SignIn, User
from machpay_gateway.core.errors import InputError
from machpay_gateway.core.keys.audit import Change
from machpay_gateway.core.keys.ports import ChangedRecord
from machpay_gateway.stores.schema import FAMILIAR_BLOCKS, OAUTH_GRANTS, SIGN_INS, USERS
from machpay_gateway.stores.sql.audit import change_transaction, insert_change
from machpay_gateway.stores.sql.collation import bytewise
from machpay_gateway.stores.sql.engine import Statements
from machpay_gateway.stores.sql.grants import raise_grant_versions
from machpay_gateway.stores.sql.upsert import dialect_insert

_FIELDS = [USERS.c[name] for name in User.__slots__]
_SIGN_IN_FIELDS = [SIGN_INS.c[name] for name in SignIn.__slots__]


class SqlUsers(Statements, UserStore):
    """The user store on a SQL database."""

    @override
    async def add_user(self, user: User, change: Change) -> bool:
        async with change_transaction(self._database, "user creation") as connection:
            statement = dialect_insert(connection.dialect.name, USERS).values(asdict(user)).on_conflict_do_nothing()
            try:
                if (await connection.execute(statement)).rowcount == 0:
                    return False
            except IntegrityError as exc:
                raise InputError(f"Account {user.account_id} is unknown.") from exc
            await insert_change(connection, change)
            return True

    @override
    async def user(self, account_id: str | None, id_or_email: str) -> User | None:
        # No ID contains the `@` that every e-mail address has.
        statement = select(*_FIELDS).where(or_(USERS.c.id == id_or_email, USERS.c.email == id_or_email))
        if account_id is not None:
            statement = statement.where(USERS.c.account_id == account_id)
        async with self._database.read_connection("user") as connection:
            row = (await connection.execute(statement)).one_or_none()
        return None if row is None else User(*row)

    @override
    async def users(self, account_id: str | None) -> Sequence[User]:
        statement = select(*_FIELDS).order_by(USERS.c.created_at, bytewise(USERS.c.id))
        if account_id is not None:
            statement = statement.where(USERS.c.account_id == account_id)
        async with self._database.read_connection("users") as connection:
            return [User(*row) for row in await connection.execute(statement)]

    @override
    async def emails(self, account_id: str, user_ids: Collection[str]) -> Mapping[str, str]:
        statement = select(USERS.c.id, USERS.c.email).where(USERS.c.account_id == account_id, USERS.c.id.in_(user_ids))
        async with self._database.read_connection("users") as connection:
            return {row.id: row.email for row in await connection.execute(statement)}

    @override
    async def replace_user(self, expected: User, user: User, change: Change) -> Sequence[ChangedRecord] | None:
        values = {
            "password": user.password,
            "disabled_at": user.disabled_at,
            "role": user.role,
            "devices_from": user.devices_from,
        }
        async with change_transaction(self._database, "user change") as connection:
            if (
                await connection.execute(update(USERS).where(*_unchanged_conditions(expected)).values(values))
            ).rowcount == 0:
                return None
            await connection.execute(delete(SIGN_INS).where(SIGN_INS.c.user_id == user.id))
            if (user.password, user.disabled_at) != (expected.password, expected.disabled_at):
                await connection.execute(delete(FAMILIAR_BLOCKS).where(FAMILIAR_BLOCKS.c.user_id == user.id))
            await insert_change(connection, change)
            return await raise_grant_versions(connection, OAUTH_GRANTS.c.user_id == user.id, change.at)

    @override
    async def add_sign_in(
        self, sign_in: SignIn, expected: User, change: Change | None = None, *, block: str | None = None
    ) -> bool:
        operation = "sign-in"
        async with (
            self._database.write_transaction(operation)
            if change is None
            else change_transaction(self._database, operation) as connection
        ):
            # The lock prevents changes until the transaction ends.
            locked_user = select(USERS.c.id).where(*_unchanged_conditions(expected)).with_for_update(read=True)
            if (await connection.execute(locked_user)).one_or_none() is None:
                return False
            await connection.execute(delete(SIGN_INS).where(SIGN_INS.c.expires_at <= sign_in.created_at))
            await connection.execute(insert(SIGN_INS), asdict(sign_in))
            if block is not None:
                await _add_familiar_block(connection, expected.id, block, sign_in.created_at)
            if change is not None:
                await insert_change(connection, change)
            return True

    @override
    async def session(self, digest: bytes, now: float) -> tuple[User, SignIn] | None:
        statement = (
            select(*_FIELDS, *_SIGN_IN_FIELDS)
            .join(SIGN_INS, SIGN_INS.c.user_id == USERS.c.id)
            .where(SIGN_INS.c.digest == digest, SIGN_INS.c.expires_at > now, USERS.c.disabled_at.is_(None))
        )
        async with self._database.read_connection("sign-in") as connection:
            row = (await connection.execute(statement)).one_or_none()
        return None if row is None else (User(*row[: len(_FIELDS)]), SignIn(*row[len(_FIELDS) :]))

    @override
    async def is_familiar_block(self, user_id: str, block: str, since: float) -> bool:
        columns = FAMILIAR_BLOCKS.c
        statement = select(columns.user_id).where(
            columns.user_id == user_id, columns.block == block, columns.seen_at >= since
        )
        async with self._database.read_connection("sign-in") as connection:
            return (await connection.execute(statement)).one_or_none() is not None

    @override
    async def update_sign_in(self, sign_in: SignIn) -> None:
        values = {"seen_at": sign_in.seen_at, "confirmed_at": sign_in.confirmed_at}
        async with self._database.write_transaction("sign-in") as connection:
            await connection.execute(update(SIGN_INS).where(SIGN_INS.c.digest == sign_in.digest).values(values))

    @override
    async def sign_ins(self, user_id: str, now: float) -> Sequence[SignIn]:
        statement = (
            select(*_SIGN_IN_FIELDS)
            .where(SIGN_INS.c.user_id == user_id, SIGN_INS.c.expires_at > now)
            .order_by(SIGN_INS.c.created_at.desc(), SIGN_INS.c.digest)
        )
        async with self._database.read_connection("sign-ins") as connection:
            return [SignIn(*row) for row in await connection.execute(statement)]

    @override
    async def delete_sign_in(self, digest: bytes, change: Change) -> None:
        async with change_transaction(self._database, "sign-out") as connection:
            await connection.execute(delete(SIGN_INS).where(SIGN_INS.c.digest == digest))
            await insert_change(connection, change)

    @override
    async def delete_other_sign_ins(self, user_id: str, digest: bytes, change: Change) -> None:
        others = (SIGN_INS.c.user_id == user_id) & (SIGN_INS.c.digest != digest)
        async with change_transaction(self._database, "sign-out") as connection:
            await connection.execute(delete(SIGN_INS).where(others))
            await insert_change(connection, change)

    @override
    async def add_audit_entry(self, change: Change) -> None:
        async with change_transaction(self._database, "audit log") as connection:
            await insert_change(connection, change)


async def _add_familiar_block(connection: AsyncConnection, user_id: str, block: str, now: float) -> None:
    statement = dialect_insert(connection.dialect.name, FAMILIAR_BLOCKS).values(
        user_id=user_id, block=block, seen_at=now
    )
    await connection.execute(
        statement.on_conflict_do_update(index_elements=["user_id", "block"], set_={"seen_at": now})
    )
    outdated = (FAMILIAR_BLOCKS.c.user_id == user_id) & (FAMILIAR_BLOCKS.c.seen_at < now - FAMILIAR_SECONDS)
    await connection.execute(delete(FAMILIAR_BLOCKS).where(outdated))


def _unchanged_conditions(expected: User) -> tuple[ColumnElement[bool], ...]:
    """Return the optimistic locking conditions: the row of the user still has the values of *expected*."""
    return (
        USERS.c.id == expected.id,
        USERS.c.account_id == expected.account_id,
        USERS.c.password.is_not_distinct_from(expected.password),
        USERS.c.disabled_at.is_not_distinct_from(expected.disabled_at),
        USERS.c.role == expected.role,
    )
