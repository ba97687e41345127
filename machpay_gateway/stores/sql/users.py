"""Statements on users and where they are signed in."""

from collections.abc import Collection, Sequence
from dataclasses import asdict

from sqlalchemy import ColumnElement, delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from machpay_gateway.core.accounts.user import SignIn, User
from machpay_gateway.stores.schema import FAMILIAR_BLOCKS, SIGN_INS, USERS
from machpay_gateway.stores.sql.collation import bytewise
from machpay_gateway.stores.sql.upsert import insert_or

_FIELDS = [USERS.c[name] for name in User.__slots__]
_SIGN_IN_FIELDS = [SIGN_INS.c[name] for name in SignIn.__slots__]


async def insert_user(connection: AsyncConnection, user: User) -> bool:
    """Insert *user*; False when the e-mail is taken. Raises IntegrityError for an account that does not exist."""
    statement = insert_or(connection.dialect.name, USERS).values(asdict(user)).on_conflict_do_nothing()
    return (await connection.execute(statement)).rowcount == 1


async def user_by(connection: AsyncConnection, account_id: str | None, id_or_email: str) -> User | None:
    """Return the user with that id or e-mail: no id has the `@` that every e-mail has."""
    statement = select(*_FIELDS).where(or_(USERS.c.id == id_or_email, USERS.c.email == id_or_email))
    if account_id is not None:
        statement = statement.where(USERS.c.account_id == account_id)
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else User(*row)


async def all_users(connection: AsyncConnection, account_id: str | None) -> Sequence[User]:
    """Return the users of the account, or of all, oldest first."""
    statement = select(*_FIELDS).order_by(USERS.c.created_at, bytewise(USERS.c.id))
    if account_id is not None:
        statement = statement.where(USERS.c.account_id == account_id)
    return [User(*row) for row in await connection.execute(statement)]


async def emails_of(connection: AsyncConnection, account_id: str, user_ids: Collection[str]) -> dict[str, str]:
    """Return the e-mails of those of *user_ids* who are users of the account."""
    statement = select(USERS.c.id, USERS.c.email).where(USERS.c.account_id == account_id, USERS.c.id.in_(user_ids))
    return {row.id: row.email for row in await connection.execute(statement)}


async def update_user(connection: AsyncConnection, known: User, user: User) -> bool:
    """Write what of *user* can be changed; False when it is not there as *known*."""
    statement = update(USERS).where(*_same(known))
    values = {"password": user.password, "disabled_at": user.disabled_at, "role": user.role}
    values["devices_from"] = user.devices_from
    return (await connection.execute(statement.values(values))).rowcount == 1


async def is_as_known(connection: AsyncConnection, known: User) -> bool:
    """Tell whether the user is there as *known*, which stays so until the transaction ends."""
    here = select(USERS.c.id).where(*_same(known)).with_for_update(read=True)
    return (await connection.execute(here)).one_or_none() is not None


async def insert_sign_in(connection: AsyncConnection, sign_in: SignIn) -> None:
    """Insert *sign_in*, and drop those that have ended."""
    await connection.execute(delete(SIGN_INS).where(SIGN_INS.c.expires_at <= sign_in.created_at))
    await connection.execute(insert(SIGN_INS), asdict(sign_in))


async def session_by(connection: AsyncConnection, digest: bytes, now: float) -> tuple[User, SignIn] | None:
    """Return the sign-in and its user, if neither has ended."""
    statement = (
        select(*_FIELDS, *_SIGN_IN_FIELDS)
        .join(SIGN_INS, SIGN_INS.c.user_id == USERS.c.id)
        .where(SIGN_INS.c.digest == digest, SIGN_INS.c.expires_at > now, USERS.c.disabled_at.is_(None))
    )
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else (User(*row[: len(_FIELDS)]), SignIn(*row[len(_FIELDS) :]))


async def mark_sign_in(connection: AsyncConnection, sign_in: SignIn) -> None:
    """Write when the sign-in was last seen and confirmed. One that has ended meanwhile stays so."""
    values = {"seen_at": sign_in.seen_at, "confirmed_at": sign_in.confirmed_at}
    await connection.execute(update(SIGN_INS).where(SIGN_INS.c.digest == sign_in.digest).values(values))


async def insert_familiar(connection: AsyncConnection, user_id: str, block: str, now: float) -> None:
    """Remember that the user signed in from the address *block* at *now*."""
    seen = insert_or(connection.dialect.name, FAMILIAR_BLOCKS).values(user_id=user_id, block=block, seen_at=now)
    await connection.execute(seen.on_conflict_do_update(index_elements=["user_id", "block"], set_={"seen_at": now}))


async def delete_familiar(connection: AsyncConnection, user_id: str, *, before: float | None = None) -> None:
    """Forget the user's address blocks, those only that were not seen since *before* if it is given."""
    statement = delete(FAMILIAR_BLOCKS).where(FAMILIAR_BLOCKS.c.user_id == user_id)
    await connection.execute(statement if before is None else statement.where(FAMILIAR_BLOCKS.c.seen_at < before))


async def is_familiar(connection: AsyncConnection, user_id: str, block: str, since: float) -> bool:
    """Tell whether the user has signed in from the address *block* at or after *since*."""
    columns = FAMILIAR_BLOCKS.c
    here = select(columns.user_id).where(columns.user_id == user_id, columns.block == block, columns.seen_at >= since)
    return (await connection.execute(here)).one_or_none() is not None


async def sign_ins_of(connection: AsyncConnection, user_id: str, now: float) -> Sequence[SignIn]:
    """Return the user's sign-ins that have not ended, newest first."""
    statement = (
        select(*_SIGN_IN_FIELDS)
        .where(SIGN_INS.c.user_id == user_id, SIGN_INS.c.expires_at > now)
        .order_by(SIGN_INS.c.created_at.desc(), SIGN_INS.c.digest)
    )
    return [SignIn(*row) for row in await connection.execute(statement)]


async def delete_sign_in(connection: AsyncConnection, digest: bytes) -> None:
    """Delete the sign-in with this *digest*."""
    await connection.execute(delete(SIGN_INS).where(SIGN_INS.c.digest == digest))


async def delete_sign_ins(connection: AsyncConnection, user_id: str, *, but: bytes = b"") -> None:
    """Delete every sign-in of the user, *but* the one with that digest."""
    await connection.execute(delete(SIGN_INS).where(SIGN_INS.c.user_id == user_id, SIGN_INS.c.digest != but))


def _same(known: User) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions that a row is *known*'s, and that nothing of it was changed that can be."""
    return (
        USERS.c.id == known.id,
        USERS.c.account_id == known.account_id,
        USERS.c.password.is_not_distinct_from(known.password),
        USERS.c.disabled_at.is_not_distinct_from(known.disabled_at),
        USERS.c.role == known.role,
    )
