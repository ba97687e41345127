"""Backups of a SQLite database, made and restored with SQLite's own copy of pages.

Every function blocks and raises ConfigurationError that says what to do.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.stores.schema import REVISIONS
from machpay_gateway.stores.sql.engine import database_url
from machpay_gateway.stores.sql.secret import secret_path

_BUSY_SECONDS = 5.0


class DatabaseCopy(NamedTuple):
    """A verified copy: its file, and what is in it."""

    file: Path
    size: int  # in bytes
    revision: str
    accounts: int
    keys: int
    signing_keys: int


def sqlite_file(url: str) -> Path:
    """Return the file of the SQLite database at *url*."""
    parsed = database_url(url)
    if parsed.get_backend_name() != "sqlite" or "vfs" in parsed.query:
        raise ConfigurationError(
            "Only a SQLite file is backed up and restored by this command: "
            "for PostgreSQL use pg_dump and pg_restore (docs/operations.md), and memory:// keeps nothing"
        )
    return Path(str(parsed.database))


def secret_beside_is_missing(database: Path) -> bool:
    """Return whether the file with the secret key is not beside *database*."""
    return not secret_path(database).exists()


def back_up(database: Path, file: Path, *, force: bool = False) -> DatabaseCopy:
    """Copy *database*, which may be in use, to *file*, for its owner only; replace an existing file with *force* only.

    The copy is of one moment. It is verified before it gets its name.
    """
    if not database.is_file():
        raise ConfigurationError(f"{database} is not there: `database` names another file?")
    _refuse_existing(file, force=force)
    if not file.absolute().parent.is_dir():
        raise ConfigurationError(f"{file} cannot be made: {file.absolute().parent} is not a directory")
    if file.exists() and file.samefile(database):
        raise ConfigurationError(f"{file} is the database itself: name another file")
    draft = file.with_name(f"{file.name}.{os.getpid()}.{token_hex(4)}")
    with _driver_errors(file):
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            with closing(_connect(database)) as source, closing(_connect(draft)) as target:
                source.backup(target)
                # In one file: a write-ahead log beside it could be left behind.
                target.execute("PRAGMA journal_mode = DELETE")
            copy = verify(draft)
            _sync(draft)
            draft.replace(file)
            _sync(file.absolute().parent)
        finally:
            draft.unlink(missing_ok=True)
    return copy._replace(file=file)


def restore(file: Path, database: Path, *, force: bool = False) -> DatabaseCopy:
    """Replace the contents of *database* by those of the backup *file*; an existing database with *force* only.

    No other process may have *database* open, which is locked meanwhile. It stays as it was unless all is copied.
    """
    if not file.is_file():
        raise ConfigurationError(f"{file} is not there: name a backup")
    if database.exists() and file.samefile(database):
        raise ConfigurationError(f"{file} is the database itself: name a backup")
    verify(file)
    if database.exists() and database.stat().st_size:
        _refuse_existing(database, force=force)
    with _driver_errors(database):
        if not database.exists():
            os.close(os.open(database, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with closing(_connect(file)) as source, closing(_connect(database)) as target:
            _lock(target, database)
            source.backup(target)
        _sync(database)
    return verify(database)._replace(file=database)


def verify(file: Path) -> DatabaseCopy:
    """Return what is in *file*, when it is a whole database of ours with a schema that can be used or upgraded."""
    with _driver_errors(file), closing(_connect(file)) as connection:
        damage = connection.execute("PRAGMA integrity_check(1)").fetchall()
        if damage != [("ok",)]:
            raise ConfigurationError(f"{file} is damaged ({damage[0][0]}): use another backup")
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"alembic_version", "accounts", "keys"} <= tables:
            raise ConfigurationError(f"{file} is not a database of MachPay Gateway: name another file")
        revision = _revision(connection, file, has_version="schema_version" in tables)
        accounts, keys = (
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - names of ours
            for table in ("accounts", "keys")
        )
        signing_keys = 0
        if "signing_keys" in tables:
            (signing_keys,) = connection.execute("SELECT count(*) FROM signing_keys").fetchone()
    return DatabaseCopy(file, file.stat().st_size, revision, accounts, keys, signing_keys)


def _revision(connection: sqlite3.Connection, file: Path, *, has_version: bool) -> str:
    row = connection.execute("SELECT version_num, version_num FROM alembic_version").fetchone()
    if row is not None and has_version:
        newer = connection.execute("SELECT revision, oldest FROM schema_version").fetchone()
        row = newer if newer is not None and row[0] in newer else row
    if row is None or row[1] not in REVISIONS:
        raise ConfigurationError(
            f"{file} has the schema of another version ({'none' if row is None else row[0]}), "
            f"and this version knows up to {REVISIONS[-1]}: use the version that it was made by"
        )
    return str(row[0])


def _refuse_existing(file: Path, *, force: bool) -> None:
    if file.exists() and not force:
        raise ConfigurationError(f"{file} exists already: name another file, or add --force to replace it")


def _lock(target: sqlite3.Connection, database: Path) -> None:
    """Lock *database* until *target* is closed, which fails while any process has it open."""
    target.execute("PRAGMA locking_mode = EXCLUSIVE")
    try:
        # No connection may be open when the write-ahead log goes, not even an idle one.
        target.execute("PRAGMA journal_mode = DELETE")
        target.execute("BEGIN EXCLUSIVE")
        target.execute("COMMIT")
    except sqlite3.OperationalError as exc:
        if exc.sqlite_errorcode not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise
        raise ConfigurationError(
            f"{database} is in use by another process: stop every process that serves from it, and try again"
        ) from exc


def _connect(file: Path) -> sqlite3.Connection:
    # Not mode=ro, which cannot open a write-ahead log that nobody has open. A read-only file is opened as such.
    uri = f"{file.absolute().as_uri()}?mode=rw"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_BUSY_SECONDS)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _driver_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        raise ConfigurationError(f"{file} cannot be read or written ({exc})") from exc
    except OSError as exc:
        raise ConfigurationError(f"{exc.filename or file} cannot be read or written ({exc.strerror})") from exc
