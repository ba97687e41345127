"""Statements on the keys that we sign by."""

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from machpay_gateway.core.jose.signing import SigningKey
from machpay_gateway.stores.schema import SIGNING_KEYS

_FIELDS = [SIGNING_KEYS.c[name] for name in SigningKey.__slots__]


async def all_keys(connection: AsyncConnection) -> Sequence[SigningKey]:
    """Return every key, those that sign last first."""
    statement = select(*_FIELDS).order_by(SIGNING_KEYS.c.signs_from.desc(), SIGNING_KEYS.c.kid)
    return [
        SigningKey(kid, bytes(public), bytes(sealed), created_at, signs_from)
        for kid, public, sealed, created_at, signs_from in await connection.execute(statement)
    ]


async def is_empty(connection: AsyncConnection) -> bool:
    """Tell whether there is no key at all."""
    return not (await connection.execute(select(func.count()).select_from(SIGNING_KEYS))).scalar_one()


async def insert_key(connection: AsyncConnection, key: SigningKey) -> None:
    """Insert *key*."""
    await connection.execute(insert(SIGNING_KEYS), asdict(key))


async def delete_keys(connection: AsyncConnection, kids: Sequence[str]) -> None:
    """Delete the keys with these *kids*."""
    await connection.execute(delete(SIGNING_KEYS).where(SIGNING_KEYS.c.kid.in_(kids)))
