"""Statements on OAuth clients and their secrets."""

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TypeVarTuple

import orjson
from sqlalchemy import (
    ColumnElement,
    RowMapping,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    not_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from machpay_gateway.core.accounts.account import key_tier
from machpay_gateway.core.errors import InputError, StoreUnavailable
from machpay_gateway.core.keys.audit import Change
from machpay_gateway.core.keys.ports import ChangedRecord
from machpay_gateway.core.oauth.client import OAuthClient
from machpay_gateway.core.oauth.ports import ClientStore
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.stores.schema import ACCOUNTS, OAUTH_CLIENT_SECRETS, OAUTH_CLIENTS, OAUTH_GRANTS
from machpay_gateway.stores.sql.audit import change_transaction, insert_change
from machpay_gateway.stores.sql.engine import Statements
from machpay_gateway.stores.sql.grants import raise_grant_versions
from machpay_gateway.stores.sql.idempotency import insert_marker
from machpay_gateway.stores.sql.paging import coming_after, newest_first
from machpay_gateway.stores.sql.secrets import secret_from_row, secret_rows

Columns = TypeVarTuple("Columns")

_CURSOR = OAUTH_CLIENTS.alias("cursor")  # the last client of the page before
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
_BY_ID = _RECORDS.where(OAUTH_CLIENTS.c.id == bindparam("client_id"))  # built once: every token request runs it

_UNUSED = and_(
    OAUTH_CLIENTS.c.is_self_registered,
    # Such a client may have a grant of its own, from a version that allowed them.
    not_(exists().where(OAUTH_GRANTS.c.client_id == OAUTH_CLIENTS.c.id, OAUTH_GRANTS.c.user_id.is_not(None))),
)


class SqlClients(Statements, ClientStore):
    """The OAuth clients of a database."""

    @override
    async def add_client(self, client: OAuthClient, change: Change, once: bytes | None = None) -> None:
        async with change_transaction(self._database, "client creation") as connection:
            await insert_marker(connection, once, change.at)
            await _insert_client(connection, client, change)

    @override
    async def register_client(self, client: OAuthClient, max_clients: int, change: Change) -> bool:
        is_counted = OAUTH_CLIENTS.c.is_self_registered & OAUTH_CLIENTS.c.deleted_at.is_(None)
        # No other change runs at the same time, so that none is added between the count and the insert.
        async with change_transaction(self._database, "client registration") as connection:
            if await _count(connection, is_counted) >= max_clients:
                return False
            await _insert_client(connection, client, change)
            return True

    @override
    async def unused_clients(self, registered_before: float, limit: int) -> Sequence[OAuthClient]:
        oldest = select(OAUTH_CLIENTS.c.id).where(_UNUSED, OAUTH_CLIENTS.c.created_at <= registered_before)
        oldest = oldest.order_by(OAUTH_CLIENTS.c.created_at).limit(limit)
        async with self._database.read_connection("unused clients") as connection:
            rows = (await connection.execute(_RECORDS.where(OAUTH_CLIENTS.c.id.in_(oldest)))).mappings()
            return _clients(rows)[::-1]

    @override
    async def remove_clients(self, client_ids: Collection[str], change: Change) -> bool:
        async with change_transaction(self._database, "removal of clients") as connection:
            if await _count(connection, OAUTH_CLIENTS.c.id.in_(client_ids) & _UNUSED) != len(client_ids):
                return False
            for column in (OAUTH_GRANTS.c.client_id, OAUTH_CLIENT_SECRETS.c.client_id, OAUTH_CLIENTS.c.id):
                await connection.execute(delete(column.table).where(column.in_(client_ids)))
            await insert_change(connection, change)
            return True

    @override
    async def client(self, account_id: str | None, client_id: str) -> OAuthClient | None:
        async with self._database.read_connection("client") as connection:
            rows = await connection.execute(_within(_BY_ID, account_id), {"client_id": client_id})
            return next(iter(_clients(rows.mappings())), None)

    @override
    async def clients(
        self, account_id: str | None, *, environment: str | None, after: str | None, limit: int
    ) -> Sequence[OAuthClient]:
        page = _within(select(OAUTH_CLIENTS.c.id), account_id).where(OAUTH_CLIENTS.c.deleted_at.is_(None))
        if environment is not None:
            page = page.where(OAUTH_CLIENTS.c.environment == environment)
        if after is not None:
            created_at = select(_CURSOR.c.created_at).where(_CURSOR.c.id == after).scalar_subquery()
            page = page.where(coming_after(OAUTH_CLIENTS, created_at, after))
        page = page.order_by(*newest_first(OAUTH_CLIENTS)).limit(limit)
        async with self._database.read_connection("clients") as connection:
            return _clients((await connection.execute(_RECORDS.where(OAUTH_CLIENTS.c.id.in_(page)))).mappings())

    @override
    async def replace_client(
        self, client: OAuthClient, change: Change, once: bytes | None = None
    ) -> Sequence[ChangedRecord] | None:
        unchanged = and_(
            OAUTH_CLIENTS.c.id == client.id,
            OAUTH_CLIENTS.c.account_id == client.account_id,
            OAUTH_CLIENTS.c.version == client.version - 1,
        )
        statement = update(OAUTH_CLIENTS).where(unchanged).values(**_settings(client))
        async with change_transaction(self._database, "client change") as connection:
            if (await connection.execute(statement)).rowcount == 0:
                return None
            await insert_marker(connection, once, change.at)
            await connection.execute(delete(OAUTH_CLIENT_SECRETS).where(OAUTH_CLIENT_SECRETS.c.client_id == client.id))
            await _insert_secrets(connection, client)
            await insert_change(connection, change)
            return await raise_grant_versions(connection, OAUTH_GRANTS.c.client_id == client.id, change.at)


async def _insert_client(connection: AsyncConnection, client: OAuthClient, change: Change) -> None:
    fixed = {
        "id": client.id,
        "account_id": client.account_id,
        "environment": client.environment,
        "is_public": client.is_public,
        "is_self_registered": client.is_self_registered,
        "created_at": client.created_at,
    }
    try:
        await connection.execute(insert(OAUTH_CLIENTS), fixed | _settings(client))
        await _insert_secrets(connection, client)
    except IntegrityError as exc:
        msg = f"Account {client.account_id} is unknown, or the client's id or secret is taken."
        raise InputError(msg) from exc
    await insert_change(connection, change)


async def _insert_secrets(connection: AsyncConnection, client: OAuthClient) -> None:
    if values := secret_rows(client.secrets, client_id=client.id):
        await connection.execute(insert(OAUTH_CLIENT_SECRETS), values)


async def _count(connection: AsyncConnection, condition: ColumnElement[bool]) -> int:
    return (await connection.execute(select(func.count()).select_from(OAUTH_CLIENTS).where(condition))).scalar_one()


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
    """Return a client for each group of adjacent *rows*: a row for each of its secrets, or a single row without one."""
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
        secrets=tuple(secret_from_row(each) for each in rows if each["digest"] is not None),
        is_public=row[OAUTH_CLIENTS.c.is_public],
        requires_pkce=row[OAUTH_CLIENTS.c.requires_pkce],
        binds_tokens=row[OAUTH_CLIENTS.c.binds_tokens],
        is_self_registered=row[OAUTH_CLIENTS.c.is_self_registered],
        version=row[OAUTH_CLIENTS.c.version],
        deleted_at=row[OAUTH_CLIENTS.c.deleted_at],
    )
