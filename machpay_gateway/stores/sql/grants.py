"""Statements on grants, and on the codes and refresh tokens that came of them."""

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Select, and_, bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from machpay_gateway.core.oauth.grant import CODE_SECONDS, Code, Family, Grant, Held, RefreshToken
from machpay_gateway.core.ports import key_tier
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.stores.schema import (
    ACCOUNTS,
    AUTHORIZATION_CODES,
    OAUTH_CLIENTS,
    OAUTH_GRANTS,
    REFRESH_TOKENS,
    TOKEN_FAMILIES,
    USERS,
)
from machpay_gateway.stores.sql.paging import coming_after, newest_first
from machpay_gateway.stores.sql.upsert import insert_or

# Longer than any access token of an ended family lives, so that each is refused until its own end.
_ENDED_SECONDS = 86_400 + 600
_KEPT_CODE_SECONDS = 86_400  # a code that is presented again is told from one that never was

_GRANT_FIELDS = (
    OAUTH_GRANTS.c.id,
    OAUTH_GRANTS.c.client_id,
    OAUTH_GRANTS.c.user_id,
    OAUTH_GRANTS.c.account_id,
    OAUTH_CLIENTS.c.environment,
    ACCOUNTS.c.tier,
    OAUTH_GRANTS.c.scopes,
    OAUTH_CLIENTS.c.scopes,
    OAUTH_GRANTS.c.created_at,
    OAUTH_GRANTS.c.version,
    OAUTH_GRANTS.c.valid_from,
    OAUTH_GRANTS.c.revoked_at,
    OAUTH_CLIENTS.c.deleted_at,
    USERS.c.disabled_at,
)
_USER = 2  # where its user is in a row
_JOINED = (
    OAUTH_GRANTS.join(OAUTH_CLIENTS, OAUTH_GRANTS.c.client_id == OAUTH_CLIENTS.c.id)
    .join(ACCOUNTS, OAUTH_CLIENTS.c.account_id == ACCOUNTS.c.id)
    .outerjoin(USERS, OAUTH_GRANTS.c.user_id == USERS.c.id)
)
_GRANTS = select(*_GRANT_FIELDS).select_from(_JOINED)
# What every token request asks is written once, because SQLAlchemy takes longer to put a statement together than a
# database to answer it.
_GRANT_BY_ID = _GRANTS.where(OAUTH_GRANTS.c.id == bindparam("asked"))
_GRANT_OF = _GRANTS.where(
    OAUTH_GRANTS.c.client_id == bindparam("client"), OAUTH_GRANTS.c.holder_id == bindparam("holder")
)
_ENDED = select(TOKEN_FAMILIES.c.id).where(
    TOKEN_FAMILIES.c.grant_id == bindparam("grant"), TOKEN_FAMILIES.c.ended_at >= bindparam("since")
)
_FAMILY_FIELDS = [TOKEN_FAMILIES.c[name] for name in Family.__slots__]
_CODE_FIELDS = [AUTHORIZATION_CODES.c[name] for name in Code.__slots__]
_TOKEN_FIELDS = [REFRESH_TOKENS.c[name] for name in RefreshToken.__slots__]
_MARK = OAUTH_GRANTS.alias("mark")
_NEXT = REFRESH_TOKENS.alias("next")
_HELD = (
    select(*_TOKEN_FIELDS, _NEXT.c.used_at, *_FAMILY_FIELDS, *_GRANT_FIELDS)
    .select_from(
        REFRESH_TOKENS.join(TOKEN_FAMILIES, REFRESH_TOKENS.c.family_id == TOKEN_FAMILIES.c.id)
        .join(_JOINED, TOKEN_FAMILIES.c.grant_id == OAUTH_GRANTS.c.id)
        .outerjoin(_NEXT, _NEXT.c.digest == REFRESH_TOKENS.c.next_digest)
    )
    .where(REFRESH_TOKENS.c.digest == bindparam("asked"))
)  # fmt: skip
_ALIVE = select(TOKEN_FAMILIES.c.id).where(
    TOKEN_FAMILIES.c.id == REFRESH_TOKENS.c.family_id, TOKEN_FAMILIES.c.ended_at.is_(None)
)
_USE_TOKEN = (
    update(REFRESH_TOKENS)
    .where(
        REFRESH_TOKENS.c.digest == bindparam("presented"),
        REFRESH_TOKENS.c.used_at.is_(None),
        REFRESH_TOKENS.c.family_id.in_(_ALIVE),
    )
    .values(used_at=bindparam("at"), seed=bindparam("of"), next_digest=bindparam("following"))
)
_INSERT_TOKEN = insert(REFRESH_TOKENS)


async def grant_by_id(connection: AsyncConnection, grant_id: str, now: float) -> Grant | None:
    """Return the grant, with the families that ended lately at *now*."""
    return await _one(connection, _GRANT_BY_ID, {"asked": grant_id}, now)


async def grant_of(connection: AsyncConnection, client_id: str, holder_id: str, now: float) -> Grant | None:
    """Return the grant of the client and its user, or of the client itself."""
    return await _one(connection, _GRANT_OF, {"client": client_id, "holder": holder_id}, now)


async def grants_page(
    connection: AsyncConnection,
    account_id: str | None,
    *,
    client_id: str | None,
    environment: str | None,
    after: str | None,
    limit: int,
) -> Sequence[Grant]:
    """Return at most *limit* grants, newest first, those that come after *after*, without the families that ended."""
    asked = {OAUTH_GRANTS.c.account_id: account_id, OAUTH_GRANTS.c.client_id: client_id}
    asked[OAUTH_CLIENTS.c.environment] = environment
    statement = _GRANTS.where(*(column == value for column, value in asked.items() if value is not None))
    if after is not None:
        moment = select(_MARK.c.created_at).where(_MARK.c.id == after).scalar_subquery()
        statement = statement.where(coming_after(OAUTH_GRANTS, moment, after))
    statement = statement.order_by(*newest_first(OAUTH_GRANTS)).limit(limit)
    return [_grant(list(row), frozenset()) for row in await connection.execute(statement)]


async def versions_since(connection: AsyncConnection, since: float) -> Sequence[tuple[str, int]]:
    """Return (id, version) of each grant changed at or after *since*."""
    statement = select(OAUTH_GRANTS.c.id, OAUTH_GRANTS.c.version).where(OAUTH_GRANTS.c.changed_at >= since)
    return [(grant_id, version) for grant_id, version in await connection.execute(statement)]


async def put_grant(connection: AsyncConnection, grant: Grant, at: float) -> bool:
    """Insert a grant of version 1, or write one over the version before its own; it is not revoked any more.

    False when its client and holder have one already, or not of that version.
    """
    values = {
        "scopes": _dumped(grant.scopes),
        "version": grant.version,
        "valid_from": grant.valid_from,
        "changed_at": at,
        "revoked_at": None,
    }
    fixed = {
        "id": grant.id,
        "client_id": grant.client_id,
        "holder_id": grant.user_id or grant.client_id,
        "user_id": grant.user_id,
        "account_id": grant.account_id,
        "created_at": grant.created_at,
    }
    if grant.version == 1:
        added = insert_or(connection, OAUTH_GRANTS).values(fixed | values).on_conflict_do_nothing()
        return (await connection.execute(added)).rowcount == 1
    known = and_(OAUTH_GRANTS.c.id == grant.id, OAUTH_GRANTS.c.version == grant.version - 1)
    return (await connection.execute(update(OAUTH_GRANTS).where(known).values(values))).rowcount == 1


def of_clients_of(account_id: str) -> ColumnElement[bool]:
    """Return the condition that a grant's client belongs to the account."""
    return OAUTH_GRANTS.c.client_id.in_(select(OAUTH_CLIENTS.c.id).where(OAUTH_CLIENTS.c.account_id == account_id))


async def raise_versions(
    connection: AsyncConnection,
    which: ColumnElement[bool],
    at: float,
    **values: Any,  # noqa: ANN401 - a column's
) -> Sequence[tuple[str, int]]:
    """Raise the version of the grants for *which* the condition holds, and set *values*; return (id, new version)."""
    changed = {"version": OAUTH_GRANTS.c.version + 1, "changed_at": at, **values}
    statement = update(OAUTH_GRANTS).where(which).values(changed).returning(OAUTH_GRANTS.c.id, OAUTH_GRANTS.c.version)
    return [(grant_id, version) for grant_id, version in await connection.execute(statement)]


async def insert_code(connection: AsyncConnection, code: Code) -> None:
    """Insert *code*, and drop those that have long expired."""
    old = AUTHORIZATION_CODES.c.expires_at < code.created_at - _KEPT_CODE_SECONDS
    await connection.execute(delete(AUTHORIZATION_CODES).where(old))
    await connection.execute(insert(AUTHORIZATION_CODES), _dumped_in({n: getattr(code, n) for n in Code.__slots__}))


async def code_by(connection: AsyncConnection, digest: bytes) -> Code | None:
    """Return the code with this *digest*, used or not."""
    row = (await connection.execute(select(*_CODE_FIELDS).where(AUTHORIZATION_CODES.c.digest == digest))).one_or_none()
    if row is None:
        return None
    values = dict(zip(Code.__slots__, row, strict=True))
    return Code(**_loaded_in(values))


async def use_code(connection: AsyncConnection, digest: bytes, at: float) -> bool:
    """Mark the code as used; False when it was used before."""
    fresh = and_(AUTHORIZATION_CODES.c.digest == digest, AUTHORIZATION_CODES.c.used_at.is_(None))
    return (await connection.execute(update(AUTHORIZATION_CODES).where(fresh).values(used_at=at))).rowcount == 1


async def delete_codes(connection: AsyncConnection, grant_id: str, at: float) -> None:
    """Delete the codes of the grant that may be good at *at*, or for a host whose clock is behind."""
    alive = and_(AUTHORIZATION_CODES.c.grant_id == grant_id, AUTHORIZATION_CODES.c.expires_at > at - CODE_SECONDS)
    await connection.execute(delete(AUTHORIZATION_CODES).where(alive))


async def insert_family(connection: AsyncConnection, family: Family) -> None:
    """Insert *family*, and drop what has long expired."""
    expired = select(TOKEN_FAMILIES.c.id).where(TOKEN_FAMILIES.c.expires_at < family.created_at - _ENDED_SECONDS)
    await connection.execute(delete(REFRESH_TOKENS).where(REFRESH_TOKENS.c.family_id.in_(expired)))
    await connection.execute(delete(TOKEN_FAMILIES).where(TOKEN_FAMILIES.c.id.in_(expired)))
    await connection.execute(insert(TOKEN_FAMILIES), _dumped_in({n: getattr(family, n) for n in Family.__slots__}))


async def insert_token(connection: AsyncConnection, token: RefreshToken) -> None:
    """Insert *token*."""
    await connection.execute(_INSERT_TOKEN, {name: getattr(token, name) for name in RefreshToken.__slots__})


async def use_token(connection: AsyncConnection, digest: bytes, at: float, seed: bytes, following: bytes) -> bool:
    """Mark the refresh token as used, with the *seed* and digest of the one after it; False when it was used before."""
    values = {"presented": digest, "at": at, "of": seed, "following": following}
    return (await connection.execute(_USE_TOKEN, values)).rowcount == 1


async def held(connection: AsyncConnection, digest: bytes) -> Held | None:
    """Return the refresh token and what it depends on; its grant without the families that ended."""
    row = (await connection.execute(_HELD, {"asked": digest})).one_or_none()
    if row is None:
        return None
    fields = list(row)
    tokens, families = len(_TOKEN_FIELDS), len(_FAMILY_FIELDS)
    token = RefreshToken(*fields[:tokens])
    family = dict(zip(Family.__slots__, fields[tokens + 1 : tokens + 1 + families], strict=True))
    return Held(
        token, Family(**_loaded_in(family)), _grant(fields[tokens + 1 + families :], frozenset()), fields[tokens]
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


async def _one(connection: AsyncConnection, statement: Select[Any], asked: dict[str, str], now: float) -> Grant | None:
    row = (await connection.execute(statement, asked)).one_or_none()
    if row is None:
        return None
    if row[_USER] is None:  # a family comes of a user's consent only
        return _grant(list(row), frozenset())
    ended = await connection.execute(_ENDED, {"grant": row[0], "since": now - _ENDED_SECONDS})
    return _grant(list(row), frozenset(ended.scalars()))


def _grant(row: list[Any], ended: frozenset[str]) -> Grant:
    (
        grant_id, client_id, user_id, account_id, environment, tier, scopes, client_scopes, created_at, version,
        valid_from, revoked_at, deleted_at, disabled_at,
    ) = row  # fmt: skip
    consented, allowed = orjson.loads(scopes), frozenset(orjson.loads(client_scopes))
    return Grant(
        id=grant_id,
        client_id=client_id,
        user_id=user_id,
        account_id=account_id,
        environment=environment,
        tier=key_tier(environment, tier),
        scopes=Scopes(frozenset(name for name in consented if name in allowed)),
        created_at=created_at,
        version=version,
        valid_from=valid_from,
        is_alive=revoked_at is None and deleted_at is None and disabled_at is None,
        ended_families=ended,
    )


def _dumped(values: Scopes | tuple[str, ...]) -> str:
    return orjson.dumps(list(values)).decode()


def _dumped_in(values: dict[str, Any]) -> dict[str, Any]:
    return values | {name: _dumped(values[name]) for name in ("scopes", "resources")}


def _loaded_in(values: dict[str, Any]) -> dict[str, Any]:
    return values | {
        "scopes": Scopes(frozenset(orjson.loads(values["scopes"]))),
        "resources": tuple(orjson.loads(values["resources"])),
    }
