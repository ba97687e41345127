"""Statements on authorization codes, token families and refresh tokens."""

from functools import cache
from itertools import islice
from typing import Any

import orjson
from sqlalchemy import Double, Insert, LargeBinary, bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from machpay_gateway.core.keys.audit import Change
from machpay_gateway.core.keys.ports import ChangedRecord
from machpay_gateway.core.oauth.grant import AuthorizationCode, RefreshToken, StoredRefreshToken, TokenFamily
from machpay_gateway.core.oauth.ports import TokenStore
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.stores.schema import AUTHORIZATION_CODES, OAUTH_GRANTS, REFRESH_TOKENS, TOKEN_FAMILIES
from machpay_gateway.stores.sql.audit import change_transaction, insert_change
from machpay_gateway.stores.sql.engine import Statements
from machpay_gateway.stores.sql.grants import (
    ENDED_SECONDS,
    GRANT_FIELDS,
    JOINED,
    dumped,
    grant_from,
    raise_grant_versions,
)
from machpay_gateway.stores.sql.upsert import dialect_insert

_EXPIRED_CODE_SECONDS = 86_400  # for so long, a code that is presented again is recognized

_FAMILY_FIELDS = [TOKEN_FAMILIES.c[name] for name in TokenFamily.__slots__]
_CODE_FIELDS = [AUTHORIZATION_CODES.c[name] for name in AuthorizationCode.__slots__]
# The row of a refresh token never changes: it is used when another row names it as its predecessor. So a refresh is one
# INSERT, and the unique predecessor admits one of any number of concurrent ones.
_NEXT, _AFTER_NEXT = REFRESH_TOKENS.alias("next"), REFRESH_TOKENS.alias("after_next")
_TOKEN_FIELDS = (
    REFRESH_TOKENS.c.digest,
    REFRESH_TOKENS.c.family_id,
    REFRESH_TOKENS.c.created_at,
    REFRESH_TOKENS.c.expires_at,
    _NEXT.c.created_at,
    _NEXT.c.seed,
)
_STORED = (
    select(*_TOKEN_FIELDS, _AFTER_NEXT.c.created_at, *_FAMILY_FIELDS, *GRANT_FIELDS)
    .select_from(
        REFRESH_TOKENS.join(TOKEN_FAMILIES, REFRESH_TOKENS.c.family_id == TOKEN_FAMILIES.c.id)
        .join(JOINED, TOKEN_FAMILIES.c.grant_id == OAUTH_GRANTS.c.id)
        .outerjoin(_NEXT, _NEXT.c.predecessor == REFRESH_TOKENS.c.digest)
        .outerjoin(_AFTER_NEXT, _AFTER_NEXT.c.predecessor == _NEXT.c.digest)
    )
    .where(REFRESH_TOKENS.c.digest == bindparam("presented"))
)  # fmt: skip
_SUCCESSOR = select(
    bindparam("digest", type_=LargeBinary),
    REFRESH_TOKENS.c.family_id,
    bindparam("created_at", type_=Double),
    bindparam("expires_at", type_=Double),
    REFRESH_TOKENS.c.digest,
    bindparam("seed", type_=LargeBinary),
).where(
    REFRESH_TOKENS.c.digest == bindparam("presented"),
    REFRESH_TOKENS.c.family_id == TOKEN_FAMILIES.c.id,
    TOKEN_FAMILIES.c.ended_at.is_(None),
)


class SqlTokens(Statements, TokenStore):
    """The authorization codes and refresh tokens of a database. A token request locks no rows but its own."""

    @override
    async def add_code(self, code: AuthorizationCode) -> None:
        is_old = AUTHORIZATION_CODES.c.expires_at < code.created_at - _EXPIRED_CODE_SECONDS
        async with self._database.write_transaction("authorization code") as connection:
            await connection.execute(delete(AUTHORIZATION_CODES).where(is_old))
            await connection.execute(insert(AUTHORIZATION_CODES), _dumped_in(code))

    @override
    async def code(self, digest: bytes) -> AuthorizationCode | None:
        statement = select(*_CODE_FIELDS).where(AUTHORIZATION_CODES.c.digest == digest)
        async with self._database.read_connection("authorization code") as connection:
            row = (await connection.execute(statement)).one_or_none()
        if row is None:
            return None
        return AuthorizationCode(**_loaded_in(dict(zip(AuthorizationCode.__slots__, row, strict=True))))

    @override
    async def use_code(self, digest: bytes, at: float, family: TokenFamily, token: RefreshToken | None) -> bool:
        is_unused = (AUTHORIZATION_CODES.c.digest == digest) & AUTHORIZATION_CODES.c.used_at.is_(None)
        async with self._database.write_transaction("authorization code") as connection:
            statement = update(AUTHORIZATION_CODES).where(is_unused).values(used_at=at)
            if (await connection.execute(statement)).rowcount == 0:
                return False
            await _delete_expired_families(connection, family.created_at - ENDED_SECONDS)
            await connection.execute(insert(TOKEN_FAMILIES), _dumped_in(family))
            if token is not None:
                values = {name: getattr(token, name) for name in ("digest", "family_id", "created_at", "expires_at")}
                await connection.execute(insert(REFRESH_TOKENS), values)
            return True

    @override
    async def refresh_token(self, digest: bytes) -> StoredRefreshToken | None:
        async with self._database.read_connection("refresh token") as connection:
            row = (await connection.execute(_STORED, {"presented": digest})).one_or_none()
        if row is None:
            return None
        fields = iter(row)
        token = RefreshToken(*islice(fields, len(_TOKEN_FIELDS)))
        next_used_at = next(fields)
        family = dict(zip(TokenFamily.__slots__, islice(fields, len(_FAMILY_FIELDS)), strict=True))
        grant = grant_from(list(fields), frozenset())
        return StoredRefreshToken(token, TokenFamily(**_loaded_in(family)), grant, next_used_at)

    @override
    async def use_refresh_token(self, digest: bytes, seed: bytes, successor: RefreshToken) -> bool:
        values = {
            "digest": successor.digest,
            "created_at": successor.created_at,
            "expires_at": successor.expires_at,
            "seed": seed,
            "presented": digest,
        }
        async with self._database.write_connection("refresh token") as connection:
            return (await connection.execute(_insert_successor(connection.dialect.name), values)).rowcount == 1

    @override
    async def revoke_family(self, family_id: str, change: Change) -> ChangedRecord | None:
        is_alive = (TOKEN_FAMILIES.c.id == family_id) & TOKEN_FAMILIES.c.ended_at.is_(None)
        statement = update(TOKEN_FAMILIES).where(is_alive).values(ended_at=change.at)
        async with change_transaction(self._database, "family's end") as connection:
            rows = await connection.execute(statement.returning(TOKEN_FAMILIES.c.grant_id))
            grant_id = rows.scalar_one_or_none()
            if grant_id is None:
                return None
            await insert_change(connection, change)
            return (await raise_grant_versions(connection, OAUTH_GRANTS.c.id == grant_id, change.at))[0]


@cache
def _insert_successor(dialect: str) -> Insert:
    columns = ["digest", "family_id", "created_at", "expires_at", "predecessor", "seed"]
    return dialect_insert(dialect, REFRESH_TOKENS).from_select(columns, _SUCCESSOR).on_conflict_do_nothing()


async def _delete_expired_families(connection: AsyncConnection, before: float) -> None:
    expired = select(TOKEN_FAMILIES.c.id).where(TOKEN_FAMILIES.c.expires_at < before)
    await connection.execute(delete(REFRESH_TOKENS).where(REFRESH_TOKENS.c.family_id.in_(expired)))
    await connection.execute(delete(TOKEN_FAMILIES).where(TOKEN_FAMILIES.c.id.in_(expired)))


def _dumped_in(record: AuthorizationCode | TokenFamily) -> dict[str, Any]:
    values = {name: getattr(record, name) for name in record.__slots__}
    return values | {"scopes": dumped(record.scopes), "resources": dumped(record.resources)}


def _loaded_in(values: dict[str, Any]) -> dict[str, Any]:
    return values | {
        "scopes": Scopes(frozenset(orjson.loads(values["scopes"]))),
        "resources": tuple(orjson.loads(values["resources"])),
    }
