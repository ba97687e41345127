"""Statements on keys and their secrets, and how rows become a KeyRecord."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TypeVarTuple

import orjson
from sqlalchemy import (
    ColumnElement,
    FromClause,
    RowMapping,
    Select,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from machpay_gateway.core.accounts.account import key_tier
from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.core.keys.key import KeyRecord, KeyStatus, StatusAt
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.stores.schema import ACCOUNTS, KEY_SECRETS, KEYS, SECRET_USES
from machpay_gateway.stores.sql.paging import coming_after, newest_first
from machpay_gateway.stores.sql.secrets import secret_in, secret_values

Columns = TypeVarTuple("Columns")

_MARK = KEYS.alias("mark")  # the key that a page comes after
# Over all secrets that the key ever had: those that a rotation has ended too.
_LAST_USE = (
    select(func.max(SECRET_USES.c.last_used_at))
    .where(SECRET_USES.c.key_id == KEYS.c.id)
    .correlate(KEYS)
    .scalar_subquery()
    .label("key_last_used_at")
)

# Every read is this one statement: so a key, its account's tier and its secrets are those of one moment.
_RECORDS = (
    select(
        KEYS,
        ACCOUNTS.c.tier,
        KEY_SECRETS.c.digest,
        KEY_SECRETS.c.masked,
        KEY_SECRETS.c.created_at.label("secret_created_at"),
        KEY_SECRETS.c.expires_at.label("secret_expires_at"),
        SECRET_USES.c.last_used_at.label("secret_last_used_at"),
        _LAST_USE,
    )
    .join(ACCOUNTS, KEYS.c.account_id == ACCOUNTS.c.id)
    .join(KEY_SECRETS, KEY_SECRETS.c.key_id == KEYS.c.id)
    .outerjoin(SECRET_USES, SECRET_USES.c.digest == KEY_SECRETS.c.digest)
    .order_by(*newest_first(KEYS), KEY_SECRETS.c.position)
)
# Put together once: every request with a key that is not in the cache asks it.
_OWNER = select(KEY_SECRETS.c.key_id).where(KEY_SECRETS.c.digest == bindparam("asked")).scalar_subquery()
_BY_DIGEST = _RECORDS.where(KEYS.c.id == _OWNER)


async def key_by_digest(connection: AsyncConnection, digest: bytes) -> KeyRecord | None:
    """Return the key that has a secret with *digest*."""
    return await _one(connection, _BY_DIGEST, {"asked": digest})


async def key_by_id(connection: AsyncConnection, account_id: str | None, key_id: str) -> KeyRecord | None:
    """Return the key, when it is of the account or *account_id* is None."""
    statement = _RECORDS.where(KEYS.c.id == key_id)
    return await _one(connection, _within(statement, account_id))


async def keys_page(
    connection: AsyncConnection,
    account_id: str | None,
    *,
    environment: str | None,
    status: StatusAt | None = None,
    search: str | None = None,
    after: str | None,
    limit: int,
) -> Sequence[KeyRecord]:
    """Return at most *limit* keys, newest first, those that come after *after*: none when that is no key of theirs."""
    page = _within(select(KEYS.c.id), account_id)
    if environment is not None:
        page = page.where(KEYS.c.environment == environment)
    if status is not None:
        page = page.where(_has(status))
    if search is not None:
        page = page.where(_matches_search(search))
    if after is not None:
        moment = _within(select(_MARK.c.created_at).where(_MARK.c.id == after), account_id, _MARK).scalar_subquery()
        page = page.where(coming_after(KEYS, moment, after))
    page = page.order_by(*newest_first(KEYS)).limit(limit)
    rows = (await connection.execute(_RECORDS.where(KEYS.c.id.in_(page)))).mappings()
    return _records(rows)


async def versions_since(connection: AsyncConnection, since: float) -> Sequence[tuple[str, int]]:
    """Return (id, version) of each key changed at or after *since*."""
    statement = select(KEYS.c.id, KEYS.c.version).where(KEYS.c.changed_at >= since).order_by(KEYS.c.changed_at)
    return [(key_id, version) for key_id, version in await connection.execute(statement)]


async def insert_key(connection: AsyncConnection, record: KeyRecord) -> None:
    """Insert *record*. Raises IntegrityError for an id that exists or an account that does not."""
    fixed = {
        "id": record.id,
        "account_id": record.account_id,
        "environment": record.environment,
        "created_at": record.created_at,
        "changed_at": record.created_at,
    }
    await connection.execute(insert(KEYS), fixed | _settings(record))


async def update_key(connection: AsyncConnection, record: KeyRecord, changed_at: float) -> bool:
    """Write the settings of *record* over the version before its own; False when that is not the stored one."""
    statement = (
        update(KEYS)
        .where(KEYS.c.id == record.id, KEYS.c.account_id == record.account_id)
        .where(KEYS.c.version == record.version - 1)
        .values(changed_at=changed_at, **_settings(record))
    )
    return (await connection.execute(statement)).rowcount == 1


async def delete_secrets(connection: AsyncConnection, key_id: str) -> None:
    """Delete all secrets of the key."""
    await connection.execute(delete(KEY_SECRETS).where(KEY_SECRETS.c.key_id == key_id))


async def insert_secrets(connection: AsyncConnection, record: KeyRecord) -> None:
    """Insert the secrets of *record*, the current one first. Raises IntegrityError for a digest that exists."""
    await connection.execute(insert(KEY_SECRETS), secret_values(record.secrets, key_id=record.id))


def _within(statement: Select[*Columns], account_id: str | None, keys: FromClause = KEYS) -> Select[*Columns]:
    return statement if account_id is None else statement.where(keys.c.account_id == account_id)


def _has(status: StatusAt) -> ColumnElement[bool]:
    """Return what `KeyRecord.status` says, as a condition on keys."""
    is_expired = and_(KEYS.c.expires_at.is_not(None), KEYS.c.expires_at <= status.at)
    match status.status:
        case KeyStatus.REVOKED:
            return KEYS.c.revoked_at.is_not(None)
        case KeyStatus.EXPIRED:
            return and_(KEYS.c.revoked_at.is_(None), is_expired)
        case KeyStatus.ACTIVE:
            return and_(KEYS.c.revoked_at.is_(None), ~is_expired)


def _matches_search(search: str) -> ColumnElement[bool]:
    """Return what `KeyRecord.matches_search` says, as a condition on keys."""
    ends = select(KEY_SECRETS.c.key_id).where(
        KEY_SECRETS.c.position == 0, KEY_SECRETS.c.masked.endswith(search, autoescape=True)
    )
    return or_(KEYS.c.id == search, KEYS.c.name.icontains(search, autoescape=True), KEYS.c.id.in_(ends))


async def _one(
    connection: AsyncConnection, statement: Select[*Columns], asked: dict[str, bytes] | None = None
) -> KeyRecord | None:
    rows = (await connection.execute(statement, asked)).mappings()
    return next(iter(_records(rows)), None)


def _settings(record: KeyRecord) -> dict[str, object]:
    return {
        "name": record.name,
        "scopes": orjson.dumps(list(record.scopes)).decode(),
        "allowed_ips": orjson.dumps(record.allowed_ips).decode(),
        "metadata": orjson.dumps(dict(record.metadata)).decode(),
        "version": record.version,
        "expires_at": record.expires_at,
        "revoked_at": record.revoked_at,
        "last_rotated_at": record.last_rotated_at,
    }


def _records(rows: Iterable[RowMapping]) -> list[KeyRecord]:
    """Return a record for each run of *rows* of one key: a row for each of its secrets."""
    try:
        return [_record(list(secrets)) for _, secrets in groupby(rows, key=itemgetter(KEYS.c.id))]
    except (TypeError, ValueError) as exc:  # a column that does not hold what we write
        raise StoreUnavailable("a key as stored") from exc


def _record(rows: Sequence[RowMapping]) -> KeyRecord:
    row = rows[0]
    return KeyRecord(
        id=row[KEYS.c.id],
        account_id=row[KEYS.c.account_id],
        name=row[KEYS.c.name],
        environment=row[KEYS.c.environment],
        tier=key_tier(row[KEYS.c.environment], row[ACCOUNTS.c.tier]),
        scopes=Scopes(frozenset(orjson.loads(row[KEYS.c.scopes]))),
        allowed_ips=tuple(orjson.loads(row[KEYS.c.allowed_ips])),
        created_at=row[KEYS.c.created_at],
        secrets=tuple(map(secret_in, rows)),
        version=row[KEYS.c.version],
        expires_at=row[KEYS.c.expires_at],
        revoked_at=row[KEYS.c.revoked_at],
        last_rotated_at=row[KEYS.c.last_rotated_at],
        metadata=orjson.loads(row[KEYS.c.metadata]),
        last_used_at=row["key_last_used_at"],
    )
