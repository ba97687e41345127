"""Statements on grants."""

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Select, bindparam, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from machpay_gateway.core.accounts.account import key_tier
from machpay_gateway.core.errors import InputError
from machpay_gateway.core.keys.audit import Change
from machpay_gateway.core.keys.ports import ChangedRecord
from machpay_gateway.core.oauth.grant import CODE_SECONDS, Grant
from machpay_gateway.core.oauth.ports import GrantStore
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.stores.schema import (
    ACCOUNTS,
    AUTHORIZATION_CODES,
    OAUTH_CLIENTS,
    OAUTH_GRANTS,
    TOKEN_FAMILIES,
    USERS,
)
from machpay_gateway.stores.sql.audit import change_transaction, insert_change
from machpay_gateway.stores.sql.engine import Statements
from machpay_gateway.stores.sql.paging import coming_after, newest_first
from machpay_gateway.stores.sql.upsert import dialect_insert

# Longer than the longest life of an access token, so that every token of an ended family is refused until it expires.
ENDED_SECONDS = 86_400 + 600

_HOLDERS = ACCOUNTS.alias("holders")  # the accounts of grants, whose users may use clients of other accounts

GRANT_FIELDS = (
    OAUTH_GRANTS.c.id,
    OAUTH_GRANTS.c.client_id,
    OAUTH_GRANTS.c.user_id,
    OAUTH_GRANTS.c.account_id,
    OAUTH_CLIENTS.c.environment,
    ACCOUNTS.c.tier,
    _HOLDERS.c.tier,
    OAUTH_GRANTS.c.scopes,
    OAUTH_CLIENTS.c.scopes,
    OAUTH_GRANTS.c.created_at,
    OAUTH_GRANTS.c.version,
    OAUTH_GRANTS.c.valid_from,
    OAUTH_GRANTS.c.revoked_at,
    OAUTH_CLIENTS.c.deleted_at,
    USERS.c.disabled_at,
)
_USER_ID = 2  # its index in a row
JOINED = (
    OAUTH_GRANTS.join(OAUTH_CLIENTS, OAUTH_GRANTS.c.client_id == OAUTH_CLIENTS.c.id)
    .join(ACCOUNTS, OAUTH_CLIENTS.c.account_id == ACCOUNTS.c.id)
    .join(_HOLDERS, OAUTH_GRANTS.c.account_id == _HOLDERS.c.id)
    .outerjoin(USERS, OAUTH_GRANTS.c.user_id == USERS.c.id)
)
_GRANTS = select(*GRANT_FIELDS).select_from(JOINED)
# What every token request runs is built once: SQLAlchemy takes longer to build a statement than a database to run it.
_GRANT_BY_ID = _GRANTS.where(OAUTH_GRANTS.c.id == bindparam("grant_id"))
_GRANT_OF = _GRANTS.where(
    OAUTH_GRANTS.c.client_id == bindparam("client"), OAUTH_GRANTS.c.holder_id == bindparam("holder")
)
_ENDED = select(TOKEN_FAMILIES.c.id).where(
    TOKEN_FAMILIES.c.grant_id == bindparam("grant"), TOKEN_FAMILIES.c.ended_at >= bindparam("since")
)
_CURSOR = OAUTH_GRANTS.alias("cursor")  # the last grant of the page before


class SqlGrants(Statements, GrantStore):
    """The grants of a database."""

    @override
    async def grant(self, grant_id: str, now: float) -> Grant | None:
        async with self._database.read_connection("grant") as connection:
            return await _grant(connection, _GRANT_BY_ID, {"grant_id": grant_id}, now)

    @override
    async def grant_of(self, client_id: str, holder_id: str, now: float) -> Grant | None:
        async with self._database.read_connection("grant") as connection:
            return await _grant(connection, _GRANT_OF, {"client": client_id, "holder": holder_id}, now)

    @override
    async def grants(
        self,
        account_id: str | None,
        *,
        client_id: str | None,
        environment: str | None,
        after: str | None,
        limit: int,
    ) -> Sequence[Grant]:
        selection = {OAUTH_GRANTS.c.account_id: account_id, OAUTH_GRANTS.c.client_id: client_id}
        selection[OAUTH_CLIENTS.c.environment] = environment
        statement = _GRANTS.where(*(column == value for column, value in selection.items() if value is not None))
        if after is not None:
            created_at = select(_CURSOR.c.created_at).where(_CURSOR.c.id == after).scalar_subquery()
            statement = statement.where(coming_after(OAUTH_GRANTS, created_at, after))
        statement = statement.order_by(*newest_first(OAUTH_GRANTS)).limit(limit)
        async with self._database.read_connection("grants") as connection:
            return [grant_from(list(row), frozenset()) for row in await connection.execute(statement)]

    @override
    async def put_grant(self, grant: Grant, change: Change) -> bool:
        async with change_transaction(self._database, "grant") as connection:
            try:
                if not await _write_grant(connection, grant, change.at):
                    return False
            except IntegrityError as exc:
                raise InputError(f"Client {grant.client_id} or user {grant.user_id} is unknown.") from exc
            if grant.valid_from == grant.version:
                await _end_codes_and_families(connection, grant.id, change.at)
            await insert_change(connection, change)
            return True

    @override
    async def revoke_grant(self, account_id: str | None, grant_id: str, change: Change) -> ChangedRecord | None:
        is_alive = (OAUTH_GRANTS.c.id == grant_id) & OAUTH_GRANTS.c.revoked_at.is_(None)
        if account_id is not None:
            is_alive &= OAUTH_GRANTS.c.account_id == account_id
        async with change_transaction(self._database, "grant's end") as connection:
            raised = await raise_grant_versions(connection, is_alive, change.at, revoked_at=change.at)
            if not raised:
                return None
            await _end_families(connection, grant_id, change.at)
            await insert_change(connection, change)
            return raised[0]


async def raise_grant_versions(
    connection: AsyncConnection,
    condition: ColumnElement[bool],
    at: float,
    **values: Any,  # noqa: ANN401 - a column's
) -> Sequence[ChangedRecord]:
    """Raise the version of each grant that meets *condition* and set *values*; return these grants."""
    values |= {"version": OAUTH_GRANTS.c.version + 1, "changed_at": at}
    statement = update(OAUTH_GRANTS).where(condition).values(values)
    returned = statement.returning(OAUTH_GRANTS.c.id, OAUTH_GRANTS.c.version, OAUTH_GRANTS.c.account_id)
    return [ChangedRecord(*row) for row in await connection.execute(returned)]


async def _grant(
    connection: AsyncConnection, statement: Select[Any], parameters: dict[str, str], now: float
) -> Grant | None:
    row = (await connection.execute(statement, parameters)).one_or_none()
    if row is None:
        return None
    if row[_USER_ID] is None:  # only a user's consent leads to token families
        return grant_from(list(row), frozenset())
    ended = await connection.execute(_ENDED, {"grant": row[0], "since": now - ENDED_SECONDS})
    return grant_from(list(row), frozenset(ended.scalars()))


async def _write_grant(connection: AsyncConnection, grant: Grant, at: float) -> bool:
    values = {
        "scopes": dumped(grant.scopes),
        "version": grant.version,
        "valid_from": grant.valid_from,
        "changed_at": at,
        "revoked_at": None,
    }
    if grant.version > 1:
        unchanged = (OAUTH_GRANTS.c.id == grant.id) & (OAUTH_GRANTS.c.version == grant.version - 1)
        return (await connection.execute(update(OAUTH_GRANTS).where(unchanged).values(values))).rowcount == 1
    fixed = {
        "id": grant.id,
        "client_id": grant.client_id,
        "holder_id": grant.user_id or grant.client_id,
        "user_id": grant.user_id,
        "account_id": grant.account_id,
        "created_at": grant.created_at,
    }
    insertion = dialect_insert(connection.dialect.name, OAUTH_GRANTS).values(fixed | values).on_conflict_do_nothing()
    return (await connection.execute(insertion)).rowcount == 1


async def _end_codes_and_families(connection: AsyncConnection, grant_id: str, at: float) -> None:
    # Codes first: this waits for a transaction that redeems one, whose family then exists and is ended too. Codes that
    # expired a short while ago may still be valid for a host whose clock is behind.
    codes = AUTHORIZATION_CODES.c
    is_valid = (codes.grant_id == grant_id) & (codes.expires_at > at - CODE_SECONDS)
    await connection.execute(delete(AUTHORIZATION_CODES).where(is_valid))
    await _end_families(connection, grant_id, at)


async def _end_families(connection: AsyncConnection, grant_id: str, at: float) -> None:
    is_alive = (TOKEN_FAMILIES.c.grant_id == grant_id) & TOKEN_FAMILIES.c.ended_at.is_(None)
    await connection.execute(update(TOKEN_FAMILIES).where(is_alive).values(ended_at=at))


def grant_from(row: Sequence[Any], ended: frozenset[str]) -> Grant:
    """Return the grant in *row*, whose columns are `GRANT_FIELDS`, with the *ended* families."""
    (
        grant_id, client_id, user_id, account_id, environment, tier, account_tier, scopes, client_scopes, created_at,
        version, valid_from, revoked_at, deleted_at, disabled_at,
    ) = row  # fmt: skip
    consented, permitted = orjson.loads(scopes), frozenset(orjson.loads(client_scopes))
    return Grant(
        id=grant_id,
        client_id=client_id,
        user_id=user_id,
        account_id=account_id,
        environment=environment,
        tier=key_tier(environment, tier),
        scopes=Scopes(frozenset(name for name in consented if name in permitted)),
        created_at=created_at,
        version=version,
        valid_from=valid_from,
        is_alive=revoked_at is None and deleted_at is None and disabled_at is None,
        ended_families=ended,
        account_tier=key_tier(environment, account_tier),
    )


def dumped(values: Scopes | tuple[str, ...]) -> str:
    """Return the text that *values* are stored as."""
    return orjson.dumps(list(values)).decode()
