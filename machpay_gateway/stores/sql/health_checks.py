"""Health checks of the database for `machpay-gateway doctor`, which creates and changes nothing."""

import os
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from machpay_gateway.core.check_result import CheckResult, CheckStatus
from machpay_gateway.core.jose.signing import SigningKey
from machpay_gateway.stores.lookup_queue import finish_within
from machpay_gateway.stores.schema import ACCOUNTS, HEAD, KEY_SECRETS, KEYS, REVISIONS
from machpay_gateway.stores.sql.engine import Database
from machpay_gateway.stores.sql.revision import database_revision, is_usable, migration_command
from machpay_gateway.stores.sql.secret import secret_beside, secret_path
from machpay_gateway.stores.sql.signing import SqlSigningKeys
from machpay_gateway.stores.sql.write_checks import check_disk, read_only_reason, write_findings

_BUSY_SECONDS = 5.0
_ANSWER_SECONDS = 5.0  # for each part: a table may be locked, or the server hang
_OTHERS = 0o077  # the mode bits of everyone but the file's owner
_WRITABLE = "name the primary, or all servers and ?target_session_attrs=read-write"
_INIT = migration_command(None)


async def database_findings(url: str, tiers: Collection[str]) -> Sequence[CheckResult]:
    """Return the results for the database at *url*; *tiers* are the configured ones.

    Raises StoreUnavailable, ConfigurationError.
    """
    database = Database(url, busy_timeout_seconds=_BUSY_SECONDS)
    name = database.server_name
    results: list[CheckResult] = []
    if database.is_in_memory:
        return [_in_memory()]
    if database.is_sqlite:
        path = Path(str(database.url.database))
        if database.is_missing:
            return [CheckResult("database", CheckStatus.WRONG, f"{path} is not there", f"{_INIT}, which makes it")]
        database.check_file()  # it exists, so this creates nothing, and refuses what is not a database
        name, results = str(path), _check_file_mode(path)
        disk = check_disk(path)
        if disk is not None and disk.status is CheckStatus.WRONG:
            return [disk, *results]
    try:
        content = await finish_within(_ANSWER_SECONDS, _check_content(database, name), "schema revision")
        # Another version's schema may lack what is asked for.
        if content.status is CheckStatus.WRONG:
            return [content, *results]
        writes = await finish_within(_ANSWER_SECONDS, write_findings(database), "doctor")
        await finish_within(_ANSWER_SECONDS, _look_up_key(database), "key lookup")
        unknown = await finish_within(_ANSWER_SECONDS, _check_tiers(database, tiers), "tiers in use")
        return [content, *results, *writes, *unknown]
    finally:
        await database.close()


async def stored_signing_keys(url: str) -> Sequence[SigningKey]:
    """Return the signing keys in the database at *url*; none where there is no such table yet.

    Raises StoreUnavailable, ConfigurationError.
    """
    database = Database(url, busy_timeout_seconds=_BUSY_SECONDS)
    if database.is_in_memory or database.is_missing:
        return []
    try:
        async with database.read_connection("schema revision") as connection:
            if not is_usable(await database_revision(connection)):
                return []
        return await SqlSigningKeys(database).signing_keys()
    finally:
        await database.close()


def existing_secret_key(url: str) -> bytes | None:
    """Return the secret key beside a SQLite file, None if there is none; creates none. Raises ConfigurationError."""
    database = Database(url, busy_timeout_seconds=_BUSY_SECONDS)
    file = Path(str(database.url.database))
    if not database.is_sqlite or database.is_in_memory or not secret_path(file).exists():
        return None
    return secret_beside(file)


def _in_memory() -> CheckResult:
    """Return the warning about a database in memory."""
    text = "it is in memory: every key and account is gone with the process"
    return CheckResult("database", CheckStatus.WARNING, text, 'name a file, as in database = "sqlite:///machpay.db"')


async def _check_content(database: Database, name: str) -> CheckResult:
    async with database.read_connection("schema revision") as connection:
        revision = await database_revision(connection)
        reason = None if database.is_sqlite else await read_only_reason(connection)
    if reason is not None:
        text = f"{name} is read-only ({reason}): keys are verified, and nothing is changed or counted"
        return CheckResult("database", CheckStatus.WRONG, text, _WRITABLE)
    if not is_usable(revision):
        text = f"{name} has schema revision {revision or 'none'}, and this version needs {HEAD}"
        return CheckResult("database", CheckStatus.WRONG, text, migration_command(revision))
    async with database.read_connection("number of accounts") as connection:
        count = await _account_count(connection)
    text = f"{name} has schema revision {revision} and {count} account{'' if count == 1 else 's'}"
    if not count:
        return CheckResult("database", CheckStatus.WARNING, f"{text}: there is no API key", _INIT)
    if revision == HEAD:
        return CheckResult("database", CheckStatus.OK, text)
    if revision in REVISIONS:
        text += f"; this version works with it, and has revision {HEAD}"
        return CheckResult("database", CheckStatus.WARNING, text, migration_command(revision))
    text += f"; this version has revision {HEAD} and works with it, until the next upgrade"
    return CheckResult("database", CheckStatus.WARNING, text, "upgrade machpay-gateway on this host too")


async def _look_up_key(database: Database) -> None:
    """Read the tables of each look-up of a key: one of them may be locked while all others are read."""
    statement = select(KEYS.c.id).join(ACCOUNTS).join(KEY_SECRETS).limit(1)
    async with database.read_connection("key lookup") as connection:
        await connection.execute(statement)


async def _check_tiers(database: Database, tiers: Collection[str]) -> list[CheckResult]:
    """Return a warning when accounts or working keys have tiers that are not among *tiers*."""
    accounts = select(ACCOUNTS.c.tier, func.count()).group_by(ACCOUNTS.c.tier)
    keys = select(KEYS.c.own_tier, func.count()).where(KEYS.c.own_tier.is_not(None), KEYS.c.revoked_at.is_(None))
    unknown: dict[str, list[str]] = {}
    async with database.read_connection("tiers in use") as connection:
        for noun, statement in (("account", accounts), ("key", keys.group_by(KEYS.c.own_tier))):
            for tier, count in await connection.execute(statement):
                if tier not in tiers:
                    unknown.setdefault(tier, []).append(f"{count} {noun}{'' if count == 1 else 's'}")
    if not unknown:
        return []
    text = ", ".join(f"{tier} ({' and '.join(counts)})" for tier, counts in sorted(unknown.items()))
    way_out = "define them, or `machpay-gateway accounts set-tier` and `machpay-gateway keys update --tier`"
    return [CheckResult("tiers", CheckStatus.WARNING, f"these are in use and not configured: {text}", way_out)]


async def _account_count(connection: AsyncConnection) -> int:
    return (await connection.execute(select(func.count()).select_from(ACCOUNTS))).scalar_one()


def _check_file_mode(path: Path) -> list[CheckResult]:
    if os.name != "posix":
        return []  # elsewhere, the mode does not say who may read
    # The latest writes are in the write-ahead log beside it.
    files = [file for file in (path, Path(f"{path}-wal")) if file.exists() and file.stat().st_mode & _OTHERS]
    if not files:
        return [CheckResult("database file", CheckStatus.OK, "only its owner may read it")]
    text = f"others on this host have rights to {', '.join(map(str, files))} (mode {files[0].stat().st_mode & 0o777:o})"
    return [CheckResult("database file", CheckStatus.WARNING, text, f"chmod 600 {shlex.join(map(str, files))}")]
