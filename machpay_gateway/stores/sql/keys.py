"""Statements on keys and their secrets, and how rows become a KeyRecord."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeVarTuple

import orjson
from sqlalchemy import (
    BindParameter,
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
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from machpay_gateway.core.accounts.account import key_tier
from machpay_gateway.core.errors import InputError, UnreadableRecord
from machpay_gateway.core.keys.audit import Change
from machpay_gateway.core.keys.cap import KeyCap
from machpay_gateway.core.keys.idempotency import ResponseFactory, StoredResponse
from machpay_gateway.core.keys.key import KeyRecord, KeyStatus, StatusAt
from machpay_gateway.core.keys.ports import KeyStore
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.stores.schema import ACCOUNTS, AUDIT_LOG, KEPT_ANSWERS, KEY_SECRETS, KEYS, SECRET_USES
from machpay_gateway.stores.sql.audit import change_transaction, insert_change
from machpay_gateway.stores.sql.engine import Statements
from machpay_gateway.stores.sql.idempotency import insert_response
from machpay_gateway.stores.sql.paging import coming_after, newest_first
from machpay_gateway.stores.sql.secrets import secret_from_row, secret_rows

Columns = TypeVarTuple("Columns")

_CURSOR = KEYS.alias("cursor")  # the last key of the page before
# Of all secrets that the key ever had, also those that a rotation has ended.
_LAST_USE = (
    select(func.max(SECRET_USES.c.last_used_at))
    .where(SECRET_USES.c.key_id == KEYS.c.id)
    .correlate(KEYS)
    .scalar_subquery()
    .label("key_last_used_at")
)
# The number of its last change: a column of its own would tell the same once more.
_ACCOUNT_VERSION = (
    select(func.coalesce(func.max(AUDIT_LOG.c.sequence), 0))
    .where(AUDIT_LOG.c.object_id == KEYS.c.account_id)
    .correlate(KEYS)
    .scalar_subquery()
    .label("account_version")
)

# One statement for every read, so that a key, its account's tier and its secrets are from the same moment.
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
        _ACCOUNT_VERSION,
    )
    .join(ACCOUNTS, KEYS.c.account_id == ACCOUNTS.c.id)
    .join(KEY_SECRETS, KEY_SECRETS.c.key_id == KEYS.c.id)
    .outerjoin(SECRET_USES, SECRET_USES.c.digest == KEY_SECRETS.c.digest)
    .order_by(*newest_first(KEYS), KEY_SECRETS.c.position)
)
# Built once, because every request with a key that is not cached runs them.
_VALUES: BindParameter[Any] = bindparam("values", expanding=True)
_BY_DIGESTS = _RECORDS.where(KEYS.c.id.in_(select(KEY_SECRETS.c.key_id).where(KEY_SECRETS.c.digest.in_(_VALUES))))
_BY_IDS = _RECORDS.where(KEYS.c.id.in_(_VALUES))
_LENGTHS = (1, 10, 100)


class SqlKeys(Statements, KeyStore):
    """The keys of a database."""

    @override
    async def find_by_digest(self, digest: bytes) -> KeyRecord | None:
        return next(iter(await self.find_by_digests([digest])), None)

    @override
    async def find_by_digests(self, digests: Sequence[bytes]) -> Sequence[KeyRecord]:
        return await self._find(_BY_DIGESTS, digests)

    @override
    async def find_by_ids(self, key_ids: Sequence[str]) -> Sequence[KeyRecord]:
        return await self._find(_BY_IDS, key_ids)

    @override
    async def add_key(
        self,
        record: KeyRecord,
        change: Change,
        make_response: ResponseFactory | None = None,
        *,
        cap: KeyCap | None = None,
    ) -> None:
        fixed = {
            "id": record.id,
            "account_id": record.account_id,
            "environment": record.environment,
            "created_at": record.created_at,
            "changed_at": record.created_at,
        }
        async with change_transaction(self._database, "key creation") as connection:
            with _integrity_as_input_error(record):
                await connection.execute(insert(KEYS), fixed | _settings(record))
                await connection.execute(insert(KEY_SECRETS), secret_rows(record.secrets, key_id=record.id))
            await insert_change(connection, change)
            if make_response is not None:
                stored = await _record(connection, _RECORDS.where(KEYS.c.id == record.id))
                await insert_response(connection, make_response(stored or record))
            await _check_cap(connection, record, change.at, cap)

    @override
    async def key(self, account_id: str | None, key_id: str) -> KeyRecord | None:
        async with self._database.read_connection("key") as connection:
            return await _record(connection, _within(_RECORDS.where(KEYS.c.id == key_id), account_id))

    @override
    async def keys(
        self,
        account_id: str | None,
        *,
        environment: str | None = None,
        status: StatusAt | None = None,
        search: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Sequence[KeyRecord]:
        page = _within(select(KEYS.c.id), account_id)
        if environment is not None:
            page = page.where(KEYS.c.environment == environment)
        if status is not None:
            page = page.where(_has_status(status))
        if search is not None:
            page = page.where(_matches(search))
        if after is not None:
            # No key comes after one of another account: its moment is NULL then.
            created_at = select(_CURSOR.c.created_at).where(_CURSOR.c.id == after)
            page = page.where(coming_after(KEYS, _within(created_at, account_id, _CURSOR).scalar_subquery(), after))
        page = page.order_by(*newest_first(KEYS)).limit(limit)
        async with self._database.read_connection("keys") as connection:
            return _records((await connection.execute(_RECORDS.where(KEYS.c.id.in_(page)))).mappings())

    @override
    async def replace_key(
        self,
        record: KeyRecord,
        change: Change,
        make_response: ResponseFactory | None = None,
        *,
        cap: KeyCap | None = None,
    ) -> bool:
        unchanged = and_(
            KEYS.c.id == record.id, KEYS.c.account_id == record.account_id, KEYS.c.version == record.version - 1
        )
        statement = update(KEYS).where(unchanged).values(changed_at=change.at, **_settings(record))
        async with change_transaction(self._database, "key change") as connection:
            if (await connection.execute(statement)).rowcount == 0:
                return False
            await connection.execute(delete(KEY_SECRETS).where(KEY_SECRETS.c.key_id == record.id))
            with _integrity_as_input_error(record):
                await connection.execute(insert(KEY_SECRETS), secret_rows(record.secrets, key_id=record.id))
            await insert_change(connection, change)
            if make_response is not None:
                await insert_response(connection, make_response(record))
            await _check_cap(connection, record, change.at, cap)
            return True

    async def _find(self, statement: Select[*Columns], values: Sequence[bytes | str]) -> Sequence[KeyRecord]:
        # Few lengths, because each is a statement of its own that the driver prepares.
        length = next((length for length in _LENGTHS if length >= len(values)), len(values))
        padded = [*values, *[values[-1]] * (length - len(values))]
        async with self._database.read_connection("key lookup") as connection:
            return _records((await connection.execute(statement, {"values": padded})).mappings())

    @override
    async def stored_response(self, name: bytes, since: float) -> StoredResponse | None:
        fields = [KEPT_ANSWERS.c[field] for field in StoredResponse.__slots__]
        statement = select(*fields).where(KEPT_ANSWERS.c.name == name, KEPT_ANSWERS.c.at >= since)
        async with self._database.read_connection("stored response") as connection:
            row = (await connection.execute(statement)).one_or_none()
        return None if row is None else StoredResponse(*row)


async def _check_cap(connection: AsyncConnection, record: KeyRecord, at: float, cap: KeyCap | None) -> None:
    """Raise KeyLimitReached, which undoes the change, when *record* is one working key more than *cap* allows.

    No other change runs beside the transaction, so the count holds until it is committed. It comes last: a request that
    is sent again is a DuplicateRequest, even if its own key was the last one allowed.
    """
    if cap is None:
        return
    of_account = KEYS.c.account_id == record.account_id
    account_tier = await connection.scalar(select(ACCOUNTS.c.tier).where(ACCOUNTS.c.id == record.account_id))
    tier = key_tier(record.environment, str(account_tier))
    if cap.max_keys(tier) is None:
        return  # counting would read all keys of the account
    is_working = and_(KEYS.c.environment == record.environment, _has_status(StatusAt(KeyStatus.ACTIVE, at)))
    others = select(func.count()).select_from(KEYS).where(of_account, is_working, KEYS.c.id != record.id)
    cap.check(record.environment, tier, await connection.scalar(others) or 0)


@contextmanager
def _integrity_as_input_error(record: KeyRecord) -> Iterator[None]:
    try:
        yield
    except IntegrityError as exc:
        raise InputError(
            f"Key {record.id} does not fit: account {record.account_id} is unknown, or the id or a secret is taken"
        ) from exc


def _within(statement: Select[*Columns], account_id: str | None, keys: FromClause = KEYS) -> Select[*Columns]:
    return statement if account_id is None else statement.where(keys.c.account_id == account_id)


def _has_status(status: StatusAt) -> ColumnElement[bool]:
    """Return what `KeyRecord.status` computes, as a condition on keys."""
    is_expired = and_(KEYS.c.expires_at.is_not(None), KEYS.c.expires_at <= status.at)
    match status.status:
        case KeyStatus.REVOKED:
            return KEYS.c.revoked_at.is_not(None)
        case KeyStatus.EXPIRED:
            return and_(KEYS.c.revoked_at.is_(None), is_expired)
        case KeyStatus.ACTIVE:
            return and_(KEYS.c.revoked_at.is_(None), ~is_expired)


def _matches(search: str) -> ColumnElement[bool]:
    """Return what `KeyRecord.matches_search` checks, as a condition on keys."""
    ends = select(KEY_SECRETS.c.key_id).where(
        KEY_SECRETS.c.position == 0, KEY_SECRETS.c.masked.endswith(search, autoescape=True)
    )
    return or_(KEYS.c.id == search, KEYS.c.name.icontains(search, autoescape=True), KEYS.c.id.in_(ends))


async def _record(connection: AsyncConnection, statement: Select[*Columns]) -> KeyRecord | None:
    rows = (await connection.execute(statement)).mappings()
    return next(iter(_records(rows)), None)


def _settings(record: KeyRecord) -> dict[str, object]:
    return {
        "name": record.name,
        "owner": record.owner,
        "own_tier": record.own_tier,
        "scopes": orjson.dumps(list(record.scopes)).decode(),
        "allowed_ips": orjson.dumps(record.allowed_ips).decode(),
        "metadata": orjson.dumps(dict(record.metadata)).decode(),
        "version": record.version,
        "expires_at": record.expires_at,
        "revoked_at": record.revoked_at,
        "last_rotated_at": record.last_rotated_at,
    }


def _records(rows: Iterable[RowMapping]) -> list[KeyRecord]:
    """Return a record for each group of adjacent *rows* of one key: there is a row for each of its secrets."""
    try:
        return [_record_from(list(secrets)) for _, secrets in groupby(rows, key=itemgetter(KEYS.c.id))]
    except (TypeError, ValueError) as exc:  # a column that does not hold what we write
        raise UnreadableRecord("a key as stored") from exc


def _record_from(rows: Sequence[RowMapping]) -> KeyRecord:
    row = rows[0]
    account_tier, own_tier = key_tier(row[KEYS.c.environment], row[ACCOUNTS.c.tier]), row[KEYS.c.own_tier]
    return KeyRecord(
        id=row[KEYS.c.id],
        account_id=row[KEYS.c.account_id],
        name=row[KEYS.c.name],
        environment=row[KEYS.c.environment],
        tier=account_tier if own_tier is None else own_tier,
        scopes=Scopes(frozenset(orjson.loads(row[KEYS.c.scopes]))),
        allowed_ips=tuple(orjson.loads(row[KEYS.c.allowed_ips])),
        created_at=row[KEYS.c.created_at],
        secrets=tuple(map(secret_from_row, rows)),
        version=row[KEYS.c.version],
        expires_at=row[KEYS.c.expires_at],
        revoked_at=row[KEYS.c.revoked_at],
        last_rotated_at=row[KEYS.c.last_rotated_at],
        metadata=orjson.loads(row[KEYS.c.metadata]),
        owner=row[KEYS.c.owner],
        own_tier=own_tier,
        account_tier=account_tier,
        last_used_at=row["key_last_used_at"],
        account_version=row["account_version"],
    )
