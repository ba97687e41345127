"""Statements on grants, and on the codes and refresh tokens that came of them."""

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    bindparam,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from machpay_gateway.core.accounts.account import key_tier
from machpay_gateway.core.oauth.grant import Grant
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.stores.schema import (
    ACCOUNTS,
    OAUTH_CLIENTS,
    OAUTH_GRANTS,
    TOKEN_FAMILIES,
    USERS,
)
from machpay_gateway.stores.sql.paging import coming_after, newest_first
from machpay_gateway.stores.sql.upsert import insert_or

# Longer than any access token of an ended family lives, so that each is refused until its own end.
ENDED_SECONDS = 86_400 + 600

GRANT_FIELDS = (
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
JOINED = (
    OAUTH_GRANTS.join(OAUTH_CLIENTS, OAUTH_GRANTS.c.client_id == OAUTH_CLIENTS.c.id)
    .join(ACCOUNTS, OAUTH_CLIENTS.c.account_id == ACCOUNTS.c.id)
    .outerjoin(USERS, OAUTH_GRANTS.c.user_id == USERS.c.id)
)
_GRANTS = select(*GRANT_FIELDS).select_from(JOINED)
# What every token request asks is written once, because SQLAlchemy takes longer to put a statement together than a
# database to answer it.
_GRANT_BY_ID = _GRANTS.where(OAUTH_GRANTS.c.id == bindparam("asked"))
_GRANT_OF = _GRANTS.where(
    OAUTH_GRANTS.c.client_id == bindparam("client"), OAUTH_GRANTS.c.holder_id == bindparam("holder")
)
_ENDED = select(TOKEN_FAMILIES.c.id).where(
    TOKEN_FAMILIES.c.grant_id == bindparam("grant"), TOKEN_FAMILIES.c.ended_at >= bindparam("since")
)
_MARK = OAUTH_GRANTS.alias("mark")


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
    return [grant_in(list(row), frozenset()) for row in await connection.execute(statement)]


async def versions_since(connection: AsyncConnection, since: float) -> Sequence[tuple[str, int]]:
    """Return (id, version) of each grant changed at or after *since*."""
    statement = select(OAUTH_GRANTS.c.id, OAUTH_GRANTS.c.version).where(OAUTH_GRANTS.c.changed_at >= since)
    return [(grant_id, version) for grant_id, version in await connection.execute(statement)]


async def put_grant(connection: AsyncConnection, grant: Grant, at: float) -> bool:
    """Insert a grant of version 1, or write one over the version before its own; it is not revoked any more.

    False when its client and holder have one already, or not of that version.
    """
    values = {
        "scopes": dumped(grant.scopes),
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
        added = insert_or(connection.dialect.name, OAUTH_GRANTS).values(fixed | values).on_conflict_do_nothing()
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


async def _one(connection: AsyncConnection, statement: Select[Any], asked: dict[str, str], now: float) -> Grant | None:
    row = (await connection.execute(statement, asked)).one_or_none()
    if row is None:
        return None
    if row[_USER] is None:  # a family comes of a user's consent only
        return grant_in(list(row), frozenset())
    ended = await connection.execute(_ENDED, {"grant": row[0], "since": now - ENDED_SECONDS})
    return grant_in(list(row), frozenset(ended.scalars()))


def grant_in(row: Sequence[Any], ended: frozenset[str]) -> Grant:
    """Return the grant in *row*, whose columns are `GRANT_FIELDS`, with the *ended* families."""
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


def dumped(values: Scopes | tuple[str, ...]) -> str:
    """Return the text that *values* are stored as."""
    return orjson.dumps(list(values)).decode()
