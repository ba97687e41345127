"""Statements on signing keys."""

from collections.abc import Collection, Sequence
from dataclasses import asdict

from sqlalchemy import delete, func, insert, select
from typing_extensions import override

from machpay_gateway.core.jose.ports import SigningKeyStore
from machpay_gateway.core.jose.signing import SigningKey
from machpay_gateway.core.keys.audit import Change
from machpay_gateway.stores.schema import SIGNING_KEYS
from machpay_gateway.stores.sql.audit import change_transaction, insert_change
from machpay_gateway.stores.sql.engine import Statements

_FIELDS = [SIGNING_KEYS.c[name] for name in SigningKey.__slots__]


class SqlSigningKeys(Statements, SigningKeyStore):
    """The signing keys of a database."""

    @override
    async def signing_keys(self) -> Sequence[SigningKey]:
        statement = select(*_FIELDS).order_by(SIGNING_KEYS.c.signs_from.desc(), SIGNING_KEYS.c.kid)
        async with self._database.read_connection("signing keys") as connection:
            return [
                SigningKey(kid, bytes(public), bytes(sealed), created_at, signs_from)
                for kid, public, sealed, created_at, signs_from in await connection.execute(statement)
            ]

    @override
    async def add_signing_key(self, key: SigningKey, change: Change, *, instead_of: Collection[str] | None) -> bool:
        count = select(func.count()).select_from(SIGNING_KEYS)
        async with change_transaction(self._database, "signing key") as connection:
            if instead_of is None and (await connection.execute(count)).scalar_one():
                return False
            await connection.execute(delete(SIGNING_KEYS).where(SIGNING_KEYS.c.kid.in_(instead_of or ())))
            await connection.execute(insert(SIGNING_KEYS), asdict(key))
            await insert_change(connection, change)
            return True
