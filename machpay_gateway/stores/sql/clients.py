"""Statements on OAuth clients and their secrets."""

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TypeVarTuple

import orjson
from sqlalchemy import RowMapping, Select, and_, bindparam, delete, exists, func, insert, not_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from machpay_gateway.core.accounts.account import key_tier
from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.core.oauth.client import OAuthClient
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.stores.schema import ACCOUNTS, OAUTH_CLIENT_SECRETS, OAUTH_CLIENTS, OAUTH_GRANTS
from machpay_gateway.stores.sql.paging import coming_after, newest_first
from machpay_gateway.stores.sql.secrets import secret_in, secret_values

Columns = TypeVarTuple("Columns")

_MARK = OAUTH_CLIENTS.alias("mark")
_RECORDS = (
    select(
        OAUTH_CLIENTS,
        ACCOUNTS.c.tier,
        OAUTH_CLIENT_SECRETS.c.digest,
        OAUTH_CLIENT_SECRETS.c.masked,
        OAUTH_CLIENT_SECRETS.c.created_at.label("secret_created_at"),
        OAUTH_CLIENT_SECRETS.c.expires_at.label("secret_expires_at"),
    )
    .join(ACCOUNTS, OAUTH_CLIENTS.c.account_id == ACCOUNTS.c.id)
    .outerjoin(OAUTH_CLIENT_SECRETS, OAUTH_CLIENT_SECRETS.c.client_id == OAUTH_CLIENTS.c.id)
    .order_by(*newest_first(OAUTH_CLIENTS), OAUTH_CLIENT_SECRETS.c.position)
)
_BY_ID = _RECORDS.where(OAUTH_CLIENTS.c.id == bindparam("asked"))  # put together once: every token request asks it

_UNUSED = and_(
    OAUTH_CLIENTS.c.is_self_registered,
    # A grant of its own, from before such clients were refused any, is no user's.
    not_(exists().where(OAUTH_GRANTS.c.client_id == OAUTH_CLIENTS.c.id, OAUTH_GRANTS.c.user_id.is_not(None))),
)


async def client_by_id(connection: AsyncConnection, account_id: str | None, client_id: str) -> OAuthClient | None:
    """Return the client, when it is of the account or *account_id* is None."""
    rows = await connection.execute(_within(_BY_ID, account_id), {"asked": client_id})
    return next(iter(_clients(rows.mappings())), None)


async def clients_page(
    connection: AsyncConnection, account_id: str | None, *, environment: str | None, after: str | None, limit: int
) -> Sequence[OAuthClient]:
    """Return at most *limit* clients that are not deleted, newest first, those that come after *after*."""
    page = _within(select(OAUTH_CLIENTS.c.id), account_id).where(OAUTH_CLIENTS.c.deleted_at.is_(None))
    if environment is not None:
        page = page.where(OAUTH_CLIENTS.c.environment == environment)
    if after is not None:
        moment = select(_MARK.c.created_at).where(_MARK.c.id == after).scalar_subquery()
        page = page.where(coming_after(OAUTH_CLIENTS, moment, after))
    page = page.order_by(*newest_first(OAUTH_CLIENTS)).limit(limit)
    return _clients((await connection.execute(_RECORDS.where(OAUTH_CLIENTS.c.id.in_(page)))).mappings())


async def insert_client(connection: AsyncConnection, client: OAuthClient) -> None:
    """Insert *client*. Raises IntegrityError for an id that exists or an account that does not."""
    fixed = {
        "id": client.id,
        "account_id": client.account_id,
        "environment": client.environment,
        "is_public": client.is_public,
        "is_self_registered": client.is_self_registered,
        "created_at": client.created_at,
    }
    await connection.execute(insert(OAUTH_CLIENTS), fixed | _settings(client))


async def update_client(connection: AsyncConnection, client: OAuthClient) -> bool:
    """Write the settings of *client* over the version before its own; False when that is not the stored one."""
    statement = (
        update(OAUTH_CLIENTS)
        .where(OAUTH_CLIENTS.c.id == client.id, OAUTH_CLIENTS.c.account_id == client.account_id)
        .where(OAUTH_CLIENTS.c.version == client.version - 1)
        .values(**_settings(client))
    )
    return (await connection.execute(statement)).rowcount == 1


async def rewrite_secrets(connection: AsyncConnection, client: OAuthClient) -> None:
    """Store the secrets of *client* in place of those that it had."""
    await connection.execute(delete(OAUTH_CLIENT_SECRETS).where(OAUTH_CLIENT_SECRETS.c.client_id == client.id))
    values = secret_values(client.secrets, client_id=client.id)
    if values:
        await connection.execute(insert(OAUTH_CLIENT_SECRETS), values)


async def count_self_registered(connection: AsyncConnection) -> int:
    """Return how many clients there are that registered themselves, without those that were deleted."""
    which = OAUTH_CLIENTS.c.is_self_registered & OAUTH_CLIENTS.c.deleted_at.is_(None)
    return (await connection.execute(select(func.count()).select_from(OAUTH_CLIENTS).where(which))).scalar_one()


async def unused_clients(connection: AsyncConnection, registered_before: float, limit: int) -> Sequence[OAuthClient]:
    """Return at most *limit* clients that registered themselves by then and that no user allowed, oldest first."""
    oldest = select(OAUTH_CLIENTS.c.id).where(_UNUSED, OAUTH_CLIENTS.c.created_at <= registered_before)
    oldest = oldest.order_by(OAUTH_CLIENTS.c.created_at).limit(limit)
    found = _clients((await connection.execute(_RECORDS.where(OAUTH_CLIENTS.c.id.in_(oldest)))).mappings())
    return found[::-1]


async def count_unused(connection: AsyncConnection, client_ids: Collection[str]) -> int:
    """Return how many of the clients are there, registered themselves and were allowed by no user."""
    which = OAUTH_CLIENTS.c.id.in_(client_ids) & _UNUSED
    return (await connection.execute(select(func.count()).select_from(OAUTH_CLIENTS).where(which))).scalar_one()


async def delete_clients(connection: AsyncConnection, client_ids: Collection[str]) -> None:
    """Delete the clients, their secrets, and grants of their own."""
    await connection.execute(delete(OAUTH_GRANTS).where(OAUTH_GRANTS.c.client_id.in_(client_ids)))
    await connection.execute(delete(OAUTH_CLIENT_SECRETS).where(OAUTH_CLIENT_SECRETS.c.client_id.in_(client_ids)))
    await connection.execute(delete(OAUTH_CLIENTS).where(OAUTH_CLIENTS.c.id.in_(client_ids)))


def _within(statement: Select[*Columns], account_id: str | None) -> Select[*Columns]:
    return statement if account_id is None else statement.where(OAUTH_CLIENTS.c.account_id == account_id)


def _settings(client: OAuthClient) -> dict[str, object]:
    return {
        "name": client.name,
        "redirect_uris": orjson.dumps(client.redirect_uris).decode(),
        "scopes": orjson.dumps(list(client.scopes)).decode(),
        "grant_types": orjson.dumps(client.grant_types).decode(),
        "requires_pkce": client.requires_pkce,
        "binds_tokens": client.binds_tokens,
        "version": client.version,
        "deleted_at": client.deleted_at,
    }


def _clients(rows: Iterable[RowMapping]) -> list[OAuthClient]:
    """Return a client for each run of *rows* of one: a row for each of its secrets, or one without."""
    try:
        return [_client(list(secrets)) for _, secrets in groupby(rows, key=itemgetter(OAUTH_CLIENTS.c.id))]
    except (TypeError, ValueError) as exc:  # a column that does not hold what we write
        raise StoreUnavailable("a client as stored") from exc


def _client(rows: Sequence[RowMapping]) -> OAuthClient:
    row = rows[0]
    return OAuthClient(
        id=row[OAUTH_CLIENTS.c.id],
        account_id=row[OAUTH_CLIENTS.c.account_id],
        name=row[OAUTH_CLIENTS.c.name],
        environment=row[OAUTH_CLIENTS.c.environment],
        tier=key_tier(row[OAUTH_CLIENTS.c.environment], row[ACCOUNTS.c.tier]),
        redirect_uris=tuple(orjson.loads(row[OAUTH_CLIENTS.c.redirect_uris])),
        scopes=Scopes(frozenset(orjson.loads(row[OAUTH_CLIENTS.c.scopes]))),
        grant_types=tuple(orjson.loads(row[OAUTH_CLIENTS.c.grant_types])),
        created_at=row[OAUTH_CLIENTS.c.created_at],
        secrets=tuple(secret_in(each) for each in rows if each["digest"] is not None),
        is_public=row[OAUTH_CLIENTS.c.is_public],
        requires_pkce=row[OAUTH_CLIENTS.c.requires_pkce],
        binds_tokens=row[OAUTH_CLIENTS.c.binds_tokens],
        is_self_registered=row[OAUTH_CLIENTS.c.is_self_registered],
        version=row[OAUTH_CLIENTS.c.version],
        deleted_at=row[OAUTH_CLIENTS.c.deleted_at],
    )
