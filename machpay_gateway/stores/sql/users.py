"""Statements on users and where they are signed in."""

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from machpay_gateway.core.oauth.user import SignIn, User
from machpay_gateway.stores.schema import SIGN_INS, USERS
from machpay_gateway.stores.sql.collation import bytewise
from machpay_gateway.stores.sql.upsert import insert_or

_FIELDS = [USERS.c[name] for name in User.__slots__]


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


async def update_user(connection: AsyncConnection, known: User, user: User) -> bool:
    """Write the password and role of *user* and whether it is disabled; False when it is not there as *known*."""
    statement = update(USERS).where(
        USERS.c.id == known.id,
        USERS.c.account_id == known.account_id,
        USERS.c.password.is_not_distinct_from(known.password),
        USERS.c.disabled_at.is_not_distinct_from(known.disabled_at),
        USERS.c.role == known.role,
    )
    values = {"password": user.password, "disabled_at": user.disabled_at, "role": user.role}
    return (await connection.execute(statement.values(values))).rowcount == 1


async def insert_sign_in(connection: AsyncConnection, sign_in: SignIn) -> None:
    """Insert *sign_in*, and drop those that have ended."""
    await connection.execute(delete(SIGN_INS).where(SIGN_INS.c.expires_at <= sign_in.created_at))
    await connection.execute(insert(SIGN_INS), asdict(sign_in))


async def signed_in(connection: AsyncConnection, digest: bytes, now: float) -> User | None:
    """Return the user of the sign-in, if neither has ended."""
    statement = (
        select(*_FIELDS)
        .join(SIGN_INS, SIGN_INS.c.user_id == USERS.c.id)
        .where(SIGN_INS.c.digest == digest, SIGN_INS.c.expires_at > now, USERS.c.disabled_at.is_(None))
    )
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else User(*row)


async def is_signed_in_from(connection: AsyncConnection, user_id: str, address: str, now: float) -> bool:
    """Tell whether the user has a sign-in at *address* that has not ended."""
    here = select(SIGN_INS.c.user_id).where(SIGN_INS.c.user_id == user_id, SIGN_INS.c.address == address)
    return (await connection.execute(here.where(SIGN_INS.c.expires_at > now).limit(1))).one_or_none() is not None


async def sign_ins_of(connection: AsyncConnection, user_id: str, now: float) -> Sequence[SignIn]:
    """Return the user's sign-ins that have not ended, newest first."""
    statement = (
        select(*(SIGN_INS.c[name] for name in SignIn.__slots__))
        .where(SIGN_INS.c.user_id == user_id, SIGN_INS.c.expires_at > now)
        .order_by(SIGN_INS.c.created_at.desc(), SIGN_INS.c.digest)
    )
    return [SignIn(*row) for row in await connection.execute(statement)]


async def delete_sign_in(connection: AsyncConnection, digest: bytes) -> None:
    """Delete the sign-in with this *digest*."""
    await connection.execute(delete(SIGN_INS).where(SIGN_INS.c.digest == digest))


async def delete_sign_ins(connection: AsyncConnection, user_id: str) -> None:
    """Delete every sign-in of the user."""
    await connection.execute(delete(SIGN_INS).where(SIGN_INS.c.user_id == user_id))
