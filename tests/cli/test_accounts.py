import json
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke


def test_an_account_is_created_listed_and_given_another_tier(invoke: Invoke) -> None:
    created = json.loads(invoke("accounts", "create", "acme", "--json").stdout)
    assert (created["object"], created["name"], created["tier"]) == ("account", "acme", "standard")

    changed = json.loads(invoke("accounts", "set-tier", "acme", "enterprise", "--json").stdout)
    assert changed == {**created, "tier": "enterprise"}

    listed = json.loads(invoke("accounts", "list", "--json").stdout)
    assert listed["data"][-1] == changed
    assert [account["name"] for account in listed["data"]] == ["main", "acme"]


def test_accounts_are_a_plain_table_in_a_pipe(invoke: Invoke) -> None:
    result = invoke("accounts", "list")

    header, row = result.stdout.splitlines()
    assert header.split() == ["ID", "NAME", "TIER", "CREATED"]
    assert row.split()[1:3] == ["main", "standard"]
    assert "\x1b" not in result.output


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("create", "main"), 'An account named "main" exists already'),
        (("create", "acme", "--tier", "gold"), 'Tier "gold" is not configured; known tiers: test, standard'),
        (("set-tier", "nobody", "standard"), 'There is no account "nobody": `machpay-gateway accounts list`'),
        (("set-tier", "main", "gold"), 'Tier "gold" is not configured'),
    ],
)
def test_a_mistake_is_one_line_that_names_the_way_out(invoke: Invoke, arguments: tuple[str, ...], message: str) -> None:
    result = invoke("accounts", *arguments)

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {message}")
    assert result.stderr.count("\n") == 1


def test_no_accounts_say_how_to_make_one(invoke_bare: Invoke) -> None:
    assert invoke_bare("migrate").exit_code == 0
    result = invoke_bare("accounts", "list")

    assert (result.exit_code, result.stdout) == (0, "")
    assert "No accounts yet in machpay.db: `machpay-gateway accounts create NAME`" in result.stderr


def test_an_account_is_created_without_a_database(invoke_bare: Invoke) -> None:
    assert invoke_bare("accounts", "create", "acme").exit_code == 0
    assert Path("machpay.db").is_file()
