"""`backup` and `restore`: what a command has copied is put back as it was, and nothing is overwritten by mistake."""

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from machpay_gateway.stores.schema import HEAD
from tests.cli.conftest import Invoke
from tests.serving.processes import served

DATABASE = Path("machpay.db")


def executed(statement: str, file: Path = DATABASE) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(file)) as database, database:
        return database.execute(statement).fetchall()


def key_names(invoke: Invoke) -> set[str]:
    return {key["name"] for key in json.loads(invoke("keys", "list", "--json").stdout)["data"]}


def create_key(invoke: Invoke, name: str) -> str:
    result = invoke("keys", "create", "--name", name, "--environment", "live", "--json")
    assert result.exit_code == 0, result.stderr
    return str(json.loads(result.stdout)["id"])


def test_a_backup_is_put_back_as_it_was(invoke: Invoke) -> None:
    first = create_key(invoke, "before")
    made = invoke("backup", "copy.db")
    assert made.exit_code == 0, made.stderr
    assert f"revision {HEAD}, 1 account and 2 keys." in made.stdout
    create_key(invoke, "after")
    assert invoke("keys", "revoke", first, "--yes").exit_code == 0

    restored = invoke("restore", "copy.db", "--force")

    assert restored.exit_code == 0, restored.stderr
    assert "was revoked or disabled since the backup works again" in restored.stderr
    assert "before" in key_names(invoke)
    assert "after" not in key_names(invoke)
    (status,) = [
        key["status"] for key in json.loads(invoke("keys", "list", "--json").stdout)["data"] if key["id"] == first
    ]
    assert status == "active"
    assert invoke("audit", "verify").exit_code == 0
    assert DATABASE.stat().st_mode & 0o777 == 0o600


def test_a_backup_of_a_database_in_use_has_what_is_committed_and_nothing_else(invoke: Invoke) -> None:
    create_key(invoke, "committed")
    with (
        closing(sqlite3.connect(DATABASE, isolation_level=None)) as writer,
        closing(sqlite3.connect(DATABASE)) as reader,
    ):
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        writer.execute("UPDATE accounts SET tier = 'in the write-ahead log'")
        reader.execute("SELECT * FROM accounts").fetchone()
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE accounts SET tier = 'not committed'")
        assert invoke("backup", "copy.db").exit_code == 0
        writer.execute("ROLLBACK")
    assert executed("SELECT tier FROM accounts", Path("copy.db")) == [("in the write-ahead log",)]
    assert executed("PRAGMA journal_mode", Path("copy.db")) == [("delete",)]


def test_a_backup_is_for_its_owner_only_and_names_the_secret_key(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    previous = os.umask(0)
    try:
        made = invoke("backup", "copy.db")
    finally:
        os.umask(previous)
    assert Path("copy.db").stat().st_mode & 0o777 == 0o600
    assert f"keep a copy of {DATABASE.absolute()}.secret too" in made.stderr
    monkeypatch.setenv("MACHPAY_SECRET_KEY", os.urandom(32).hex())
    document = json.loads(invoke("backup", "copy.db", "--force", "--json").stdout)
    assert document == {
        "object": "backup",
        "file": "copy.db",
        "bytes": Path("copy.db").stat().st_size,
        "revision": HEAD,
        "accounts": 1,
        "keys": 1,
        "secret_key": "the setting secret_key",
    }


def test_no_file_is_replaced_without_force(invoke: Invoke) -> None:
    Path("copy.db").write_text("mine")
    assert "copy.db exists already" in invoke("backup", "copy.db").stderr
    assert Path("copy.db").read_text() == "mine"
    assert invoke("backup", "copy.db", "--force").exit_code == 0
    before = DATABASE.read_bytes()
    refused = invoke("restore", "copy.db")
    assert refused.exit_code == 1
    assert "machpay.db exists already: name another file, or add --force to replace it" in refused.stderr
    assert DATABASE.read_bytes() == before
    assert sorted(path.name for path in Path().glob("copy.db*")) == ["copy.db"]


def test_a_backup_is_restored_where_there_is_no_database(invoke: Invoke) -> None:
    create_key(invoke, "kept")
    assert invoke("backup", "copy.db").exit_code == 0
    for file in Path().glob("machpay.db*"):
        file.unlink()

    result = invoke("restore", "copy.db", "--json")

    assert json.loads(result.stdout) == {
        "object": "restore",
        "file": "copy.db",
        "database": str(DATABASE.absolute()),
        "revision": HEAD,
        "accounts": 1,
        "keys": 2,
        "secret_key": None,
    }
    assert "kept" in key_names(invoke)
    assert DATABASE.stat().st_mode & 0o777 == 0o600


def test_a_lost_secret_key_is_named_where_signing_keys_need_it(invoke: Invoke) -> None:
    assert invoke("signing-keys", "rotate").exit_code == 0
    assert invoke("backup", "copy.db").exit_code == 0
    assert "put its copy back" not in invoke("restore", "copy.db", "--force").stderr
    Path("machpay.db.secret").unlink()
    assert f"{DATABASE.absolute()}.secret is not there" in invoke("restore", "copy.db", "--force").stderr


def test_after_a_lost_secret_key_new_signing_keys_are_made(invoke: Invoke) -> None:
    assert invoke("signing-keys", "rotate").exit_code == 0
    Path("machpay.db.secret").unlink()
    assert invoke("signing-keys", "rotate", "--now", "--yes").exit_code == 0
    (key,) = json.loads(invoke("signing-keys", "list", "--json").stdout)["data"]
    assert key["state"] == "signing"


@pytest.mark.parametrize(
    "statements, message",
    [
        (["DROP TABLE alembic_version"], "is not a database of MachPay Gateway"),
        (["UPDATE alembic_version SET version_num = '9999'"], "has the schema of another version (9999)"),
        (
            [
                "UPDATE schema_version SET revision = '9999', oldest = '9998'",
                "UPDATE alembic_version SET version_num = '9998'",
            ],
            "(9999)",
        ),
    ],
)
def test_what_is_no_backup_of_ours_is_refused(invoke: Invoke, statements: list[str], message: str) -> None:
    assert invoke("backup", "copy.db").exit_code == 0
    for statement in statements:
        executed(statement, Path("copy.db"))
    before = DATABASE.read_bytes()
    refused = invoke("restore", "copy.db", "--force")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert message in refused.stderr
    assert DATABASE.read_bytes() == before


def test_a_damaged_backup_is_refused(invoke: Invoke) -> None:
    assert invoke("backup", "copy.db").exit_code == 0
    copy = bytearray(Path("copy.db").read_bytes())
    copy[len(copy) // 2 :: 7] = b"x" * len(copy[len(copy) // 2 :: 7])
    Path("copy.db").write_bytes(copy)
    before = DATABASE.read_bytes()
    refused = invoke("restore", "copy.db", "--force")
    assert refused.exit_code == 1
    assert "copy.db is damaged" in refused.stderr or "copy.db cannot be read" in refused.stderr
    assert DATABASE.read_bytes() == before
    Path("text.db").write_text("no database at all")
    assert (
        "text.db cannot be read or written (file is not a database)" in invoke("restore", "text.db", "--force").stderr
    )
    assert "missing.db is not there" in invoke("restore", "missing.db").stderr
    assert "is the database itself" in invoke("restore", "machpay.db", "--force").stderr
    assert "is the database itself" in invoke("backup", "machpay.db", "--force").stderr


def test_a_damaged_database_gives_no_backup(invoke: Invoke) -> None:
    database = bytearray(DATABASE.read_bytes())
    database[len(database) // 2 :: 7] = b"x" * len(database[len(database) // 2 :: 7])
    DATABASE.write_bytes(database)
    assert invoke("backup", "copy.db").exit_code == 1
    assert list(Path().glob("copy.db*")) == []


@pytest.mark.parametrize("url", ["memory://", "sqlite://", "postgresql://127.0.0.1/keys"])
@pytest.mark.parametrize("command", ["backup", "restore"])
def test_another_kind_of_database_is_refused_with_the_way_out(
    invoke: Invoke, command: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MACHPAY_DATABASE", url)
    assert "for PostgreSQL use pg_dump and pg_restore" in invoke(command, "copy.db").stderr


def test_under_a_process_that_serves_a_backup_is_made_and_none_is_restored(
    tmp_path: Path, invoke_bare: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "served"
    folder.mkdir()
    with served(folder) as gateway:
        key_id, _ = gateway.key()
        monkeypatch.chdir(gateway.folder)
        assert invoke_bare("backup", "copy.db").exit_code == 0
        refused = invoke_bare("restore", "copy.db", "--force")
        assert refused.exit_code == 1
        assert "machpay.db is in use by another process: stop every process that serves from it" in refused.stderr
        assert executed("SELECT id FROM keys", Path("machpay.db")) == [(key_id,)]
    assert invoke_bare("restore", "copy.db", "--force").exit_code == 0
    assert executed("SELECT id FROM keys", Path("machpay.db")) == [(key_id,)]
