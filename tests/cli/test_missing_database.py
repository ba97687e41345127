"""Commands that read a database never create one, and lists say which one they have read."""

from pathlib import Path

import pytest

from tests.cli.conftest import Invoke

KEY = "key_" + "a" * 22
READING = [
    ("keys", "list"),
    ("keys", "list", "--json"),
    ("keys", "show", KEY),
    ("keys", "usage", KEY),
    ("keys", "create", "--name", "a", "--environment", "test"),
    ("keys", "update", KEY, "--owner", "ada"),
    ("keys", "rotate", KEY),
    ("keys", "revoke", KEY, "--yes"),
    ("accounts", "list"),
    ("accounts", "set-tier", "main", "standard"),
    ("users", "list"),
    ("users", "create", "ada@example.com", "--generate"),
    ("clients", "list"),
    ("clients", "show", "app_" + "a" * 22),
    ("grants", "list"),
    ("signing-keys", "list"),
    ("signing-keys", "rotate"),
    ("audit", "list"),
    ("audit", "verify"),
]
CHECKS = [
    ("doctor",),
    ("doctor", "--key", KEY),
    ("policy", "check"),
    ("policy", "explain", "GET", "/"),
    ("backup", "copy.db"),
]
LISTS = ["keys", "accounts", "users", "clients", "grants", "signing-keys", "audit"]


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_a_command_without_a_database_makes_none_and_says_how_to(invoke_bare: Invoke, command: tuple[str, ...]) -> None:
    result = invoke_bare(*command)

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: machpay.db is not there: run `machpay-gateway init`")
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("command", CHECKS, ids=" ".join)
def test_a_check_without_a_database_makes_none(invoke_bare: Invoke, command: tuple[str, ...]) -> None:
    invoke_bare(*command)
    assert list(Path().iterdir()) == []


def test_a_secret_is_inspected_without_making_a_database(invoke_bare: Invoke) -> None:
    assert "is not there" in invoke_bare("keys", "inspect", stdin="sk_live_mp1_x").stderr
    assert list(Path().iterdir()) == []


def test_another_database_is_named_by_its_path(invoke_bare: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Path.cwd().parent / "other.db"
    monkeypatch.setenv("MACHPAY_DATABASE", f"sqlite:///{other}")
    assert f"Error: {other} is not there" in invoke_bare("keys", "list").stderr


@pytest.mark.parametrize("group", LISTS)
def test_a_list_says_which_database_it_is_of(invoke: Invoke, group: str) -> None:
    assert "machpay.db" in invoke(group, "list").stderr
    assert "machpay.db" not in invoke(group, "list", "--json").stderr
