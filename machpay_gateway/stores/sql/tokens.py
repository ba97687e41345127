"""Statements on what comes of a grant: codes, families of tokens, and refresh tokens."""

from functools import cache
from typing import Any

import orjson
from sqlalchemy import Double, Insert, LargeBinary, and_, bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from machpay_gateway.core.oauth.grant import (
    CODE_SECONDS,
    AuthorizationCode,
    RefreshToken,
    StoredRefreshToken,
    TokenFamily,
)
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.stores.schema import AUTHORIZATION_CODES, OAUTH_GRANTS, REFRESH_TOKENS, TOKEN_FAMILIES
from machpay_gateway.stores.sql.grants import ENDED_SECONDS, GRANT_FIELDS, JOINED, dumped, grant_in
from machpay_gateway.stores.sql.upsert import insert_or

_KEPT_CODE_SECONDS = 86_400  # a code that is presented again is told from one that never was

_FAMILY_FIELDS = [TOKEN_FAMILIES.c[name] for name in TokenFamily.__slots__]
_CODE_FIELDS = [AUTHORIZATION_CODES.c[name] for name in AuthorizationCode.__slots__]
# A refresh token's row is never changed: that it was used, and when, is told by the row of the one after it. So using
# it is one statement, and of many at once the first to have it for a predecessor is the only one.
_NEXT, _AFTER_NEXT = REFRESH_TOKENS.alias("next"), REFRESH_TOKENS.alias("after_next")
_TOKEN_FIELDS = (
    REFRESH_TOKENS.c.digest,
    REFRESH_TOKENS.c.family_id,
    REFRESH_TOKENS.c.created_at,
    REFRESH_TOKENS.c.expires_at,
    _NEXT.c.created_at,
    _NEXT.c.seed,
)
_HELD = (
    select(*_TOKEN_FIELDS, _AFTER_NEXT.c.created_at, *_FAMILY_FIELDS, *GRANT_FIELDS)
    .select_from(
        REFRESH_TOKENS.join(TOKEN_FAMILIES, REFRESH_TOKENS.c.family_id == TOKEN_FAMILIES.c.id)
        .join(JOINED, TOKEN_FAMILIES.c.grant_id == OAUTH_GRANTS.c.id)
        .outerjoin(_NEXT, _NEXT.c.predecessor == REFRESH_TOKENS.c.digest)
        .outerjoin(_AFTER_NEXT, _AFTER_NEXT.c.predecessor == _NEXT.c.digest)
    )
    .where(REFRESH_TOKENS.c.digest == bindparam("asked"))
)  # fmt: skip
_FOLLOWING = select(
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


async def insert_code(connection: AsyncConnection, code: AuthorizationCode) -> None:
    """Insert *code*, and drop those that have long expired."""
    old = AUTHORIZATION_CODES.c.expires_at < code.created_at - _KEPT_CODE_SECONDS
    await connection.execute(delete(AUTHORIZATION_CODES).where(old))
    await connection.execute(
        insert(AUTHORIZATION_CODES), _dumped_in({n: getattr(code, n) for n in AuthorizationCode.__slots__})
    )


async def code_by(connection: AsyncConnection, digest: bytes) -> AuthorizationCode | None:
    """Return the code with this *digest*, used or not."""
    row = (await connection.execute(select(*_CODE_FIELDS).where(AUTHORIZATION_CODES.c.digest == digest))).one_or_none()
    if row is None:
        return None
    values = dict(zip(AuthorizationCode.__slots__, row, strict=True))
    return AuthorizationCode(**_loaded_in(values))


async def use_code(connection: AsyncConnection, digest: bytes, at: float) -> bool:
    """Mark the code as used; False when it was used before."""
    fresh = and_(AUTHORIZATION_CODES.c.digest == digest, AUTHORIZATION_CODES.c.used_at.is_(None))
    return (await connection.execute(update(AUTHORIZATION_CODES).where(fresh).values(used_at=at))).rowcount == 1


async def delete_codes(connection: AsyncConnection, grant_id: str, at: float) -> None:
    """Delete the codes of the grant that may be good at *at*, or for a host whose clock is behind."""
    alive = and_(AUTHORIZATION_CODES.c.grant_id == grant_id, AUTHORIZATION_CODES.c.expires_at > at - CODE_SECONDS)
    await connection.execute(delete(AUTHORIZATION_CODES).where(alive))


async def insert_family(connection: AsyncConnection, family: TokenFamily) -> None:
    """Insert *family*, and drop what has long expired."""
    expired = select(TOKEN_FAMILIES.c.id).where(TOKEN_FAMILIES.c.expires_at < family.created_at - ENDED_SECONDS)
    await connection.execute(delete(REFRESH_TOKENS).where(REFRESH_TOKENS.c.family_id.in_(expired)))
    await connection.execute(delete(TOKEN_FAMILIES).where(TOKEN_FAMILIES.c.id.in_(expired)))
    await connection.execute(insert(TOKEN_FAMILIES), _dumped_in({n: getattr(family, n) for n in TokenFamily.__slots__}))


async def insert_token(connection: AsyncConnection, token: RefreshToken) -> None:
    """Insert *token*, the first of its family."""
    values = {name: getattr(token, name) for name in ("digest", "family_id", "created_at", "expires_at")}
    await connection.execute(insert(REFRESH_TOKENS), values)


async def insert_following(connection: AsyncConnection, presented: bytes, seed: bytes, token: RefreshToken) -> bool:
    """Insert *token* as the one after that with the digest *presented*; False when there is one or the family ended."""
    statement = _insert_following(connection.dialect.name)
    values = {"created_at": token.created_at, "expires_at": token.expires_at, "seed": seed, "presented": presented}
    return (await connection.execute(statement, values | {"digest": token.digest})).rowcount == 1


@cache
def _insert_following(dialect: str) -> Insert:
    columns = ["digest", "family_id", "created_at", "expires_at", "predecessor", "seed"]
    return insert_or(dialect, REFRESH_TOKENS).from_select(columns, _FOLLOWING).on_conflict_do_nothing()


async def held(connection: AsyncConnection, digest: bytes) -> StoredRefreshToken | None:
    """Return the refresh token and what it depends on; its grant without the families that ended."""
    row = (await connection.execute(_HELD, {"asked": digest})).one_or_none()
    if row is None:
        return None
    fields = list(row)
    tokens, families = len(_TOKEN_FIELDS), len(_FAMILY_FIELDS)
    token = RefreshToken(*fields[:tokens])
    family = dict(zip(TokenFamily.__slots__, fields[tokens + 1 : tokens + 1 + families], strict=True))
    return StoredRefreshToken(
        token, TokenFamily(**_loaded_in(family)), grant_in(fields[tokens + 1 + families :], frozenset()), fields[tokens]
    )


async def end_family(connection: AsyncConnection, family_id: str, at: float) -> str | None:
    """End the family and return its grant's id; None when it is not there or ended before."""
    alive = and_(TOKEN_FAMILIES.c.id == family_id, TOKEN_FAMILIES.c.ended_at.is_(None))
    statement = update(TOKEN_FAMILIES).where(alive).values(ended_at=at).returning(TOKEN_FAMILIES.c.grant_id)
    grant_id: str | None = (await connection.execute(statement)).scalar_one_or_none()
    return grant_id


async def end_families(connection: AsyncConnection, grant_id: str, at: float) -> None:
    """End every family of the grant."""
    alive = and_(TOKEN_FAMILIES.c.grant_id == grant_id, TOKEN_FAMILIES.c.ended_at.is_(None))
    await connection.execute(update(TOKEN_FAMILIES).where(alive).values(ended_at=at))


def _dumped_in(values: dict[str, Any]) -> dict[str, Any]:
    return values | {name: dumped(values[name]) for name in ("scopes", "resources")}


def _loaded_in(values: dict[str, Any]) -> dict[str, Any]:
    return values | {
        "scopes": Scopes(frozenset(orjson.loads(values["scopes"]))),
        "resources": tuple(orjson.loads(values["resources"])),
    }
