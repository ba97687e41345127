import getpass
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke


def meddle(statement: str) -> None:
    with closing(sqlite3.connect(Path("machpay.db"))) as connection, connection:
        assert connection.execute(statement).rowcount == 1


def test_what_the_command_line_changes_is_told_with_who_did_it(invoke: Invoke) -> None:
    invoke("accounts", "set-tier", "main", "enterprise")

    listed = json.loads(invoke("audit", "list", "--json").stdout)
    assert [entry["action"] for entry in listed["data"]] == ["account.set_tier", "key.create", "account.create"]
    newest = listed["data"][0]
    assert newest["actor"] == {"kind": "operator", "id": getpass.getuser(), "address": None, "request_id": None}
    assert (newest["number"], newest["before"], newest["after"]) == (3, {"tier": "standard"}, {"tier": "enterprise"})


def test_changes_are_a_plain_table_in_pages(invoke: Invoke) -> None:
    first = invoke("audit", "list", "--limit", "1")
    header, row = first.stdout.splitlines()
    assert header.split() == ["NUMBER", "TIME", "WHO", "FROM", "ACTION", "OBJECT", "CHANGED"]
    assert row.split()[0] == "2"
    assert first.stderr == "There are more: add --before 2\n"
    assert invoke("audit", "list", "--limit", "1", "--before", "2").stdout.splitlines()[1].split()[0] == "1"


def test_the_changes_of_one_account_can_be_listed_alone(invoke: Invoke) -> None:
    invoke("accounts", "create", "acme")
    (entry,) = json.loads(invoke("audit", "list", "--account", "acme", "--json").stdout)["data"]
    assert (entry["action"], entry["after"]) == ("account.create", {"name": "acme", "tier": "standard"})


def test_a_whole_log_is_told_with_a_head_to_note(invoke: Invoke) -> None:
    result = invoke("audit", "verify")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("2 rows, whole. Head: 2:")

    earlier_head = result.stdout.split()[-1]
    invoke("accounts", "create", "acme")
    assert invoke("audit", "verify", "--expect", earlier_head).exit_code == 0
    verified = json.loads(invoke("audit", "verify", "--json").stdout)
    assert (verified["rows"], verified["mistake"]) == (3, None)


@pytest.mark.parametrize(
    "statement, mistake, held",
    [
        ("UPDATE audit_log SET actor_id = 'nobody' WHERE sequence = 2", "row 2 was changed", 1),
        ("DELETE FROM audit_log WHERE sequence = 1", "row 1 is missing", 0),
        ("DELETE FROM audit_log WHERE sequence = 2", "row 2 is missing", 1),  # the last one: the head tells
        ("UPDATE audit_head SET digest = x'00'", "the log was replaced: row 2 is another one", 2),
    ],
)
def test_a_log_that_was_meddled_with_is_an_error_that_says_where(
    invoke: Invoke, statement: str, mistake: str, held: int
) -> None:
    meddle(statement)
    result = invoke("audit", "verify")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: The audit log is not whole: {mistake}. It holds up to row {held}.\n"


@pytest.mark.parametrize("column, value", [("after", "no JSON"), ("at", "no time")])
def test_a_row_that_cannot_be_read_is_an_error_that_names_the_way_out(invoke: Invoke, column: str, value: str) -> None:
    meddle(f"UPDATE audit_log SET {column} = '{value}' WHERE sequence = 2")  # noqa: S608 - ours
    for options in ((), ("--json",)):
        result = invoke("audit", "list", *options)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == "Error: A row cannot be read: `machpay-gateway audit verify` says which.\n"
    assert "row 2 was changed" in invoke("audit", "verify").stderr


@pytest.mark.parametrize("error", [KeyError, OSError])
def test_a_user_without_a_name_is_told_by_number(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def nameless() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", nameless)
    invoke("accounts", "create", "acme")
    assert f"operator uid {os.getuid()}" in invoke("audit", "list", "--limit", "1").stdout


def test_a_log_written_anew_does_not_hold_the_head_that_was_noted(invoke: Invoke) -> None:
    earlier_head = f"2:{'0' * 64}"
    result = invoke("audit", "verify", "--expect", earlier_head)
    assert result.exit_code == 1
    assert "the log was replaced: row 2 is another one" in result.stderr


@pytest.mark.parametrize("head", ["2", "2:", "x:00", "2:zz", ""])
def test_what_is_no_head_is_refused_with_the_way_out(invoke: Invoke, head: str) -> None:
    result = invoke("audit", "verify", "--expect", head)
    assert result.exit_code == 2
    assert "copy it from what `audit verify` printed" in result.stderr
