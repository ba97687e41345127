import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.cli.conftest import Invoke

KEY_FIELDS = [
    "id",
    "object",
    "account_id",
    "name",
    "owner",
    "environment",
    "tier",
    "own_tier",
    "tier_configured",
    "scopes",
    "allowed_ips",
    "status",
    "masked",
    "created_at",
    "last_used_at",
    "last_rotated_at",
    "rotation_due",
    "expires_at",
    "metadata",
    "secrets",
]
UTC = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
SCOPED = ("--name", "reader", "--scope", "skills:list,account:read")


def created(invoke: Invoke, *options: str) -> dict[str, Any]:
    result = invoke("keys", "create", *SCOPED, "--environment", "live", "--json", *options)
    assert result.exit_code == 0, result.output
    made: dict[str, Any] = json.loads(result.stdout)
    return made


def test_a_created_key_has_the_documented_shape_and_its_secret(invoke: Invoke) -> None:
    made = created(invoke, "--scope", "webhooks:manage", "--allow-ip", "203.0.113.10", "--expires-in", "90d")

    assert list(made) == [*KEY_FIELDS, "secret"]
    assert made["scopes"] == ["account:read", "skills:list", "webhooks:manage"]
    assert (made["object"], made["tier"], made["status"]) == ("key", "standard", "active")
    assert (made["allowed_ips"], made["metadata"], made["last_rotated_at"]) == (["203.0.113.10"], {}, None)
    assert UTC.fullmatch(made["created_at"])
    assert UTC.fullmatch(made["expires_at"])
    assert made["secrets"] == [
        {
            "masked": made["masked"],
            "current": True,
            "created_at": made["created_at"],
            "expires_at": None,
            "last_used_at": None,
        }
    ]
    assert not made["rotation_due"]
    assert made["masked"] == f"{made['secret'][:8]}…{made['secret'][-4:]}"


def test_in_a_pipe_stdout_is_the_secret_alone(invoke: Invoke) -> None:
    result = invoke("keys", "create", *SCOPED, "--environment", "test", "--account", "main")

    assert re.fullmatch(r"sk_test_mp1_[0-9A-Za-z]{38}\n", result.stdout)
    assert "not shown again" in result.stderr
    assert result.stdout.strip() not in result.stderr
    assert re.search(r"^tier +test$", result.stderr, re.MULTILINE), "test keys have the tier test"


def test_no_secret_is_shown_again(invoke: Invoke) -> None:
    made = created(invoke)

    for command in (("list",), ("list", "--json"), ("show", made["id"]), ("show", made["id"], "--json")):
        output = invoke("keys", *command).output
        assert made["id"] in output
        assert made["secret"] not in output


def test_show_and_list_agree_on_the_shape(invoke: Invoke) -> None:
    made = created(invoke)
    del made["secret"]

    assert json.loads(invoke("keys", "show", made["id"], "--json").stdout) == made
    listed = json.loads(invoke("keys", "list", "--json").stdout)
    assert (listed["object"], listed["has_more"], listed["data"][0]) == ("list", False, made)


def test_a_list_is_filtered_and_paged(invoke: Invoke) -> None:
    newest = created(invoke)["id"]
    invoke("keys", "revoke", newest, "--yes")

    page = json.loads(invoke("keys", "list", "--limit", "1", "--json").stdout)
    older = json.loads(invoke("keys", "list", "--after", newest, "--json").stdout)

    assert (page["has_more"], page["data"][0]["id"]) == (True, newest)
    assert (older["has_more"], [key["name"] for key in older["data"]]) == (False, ["admin"])
    assert f"--after {newest}" in invoke("keys", "list", "--limit", "1").stderr
    revoked = json.loads(invoke("keys", "list", "--status", "revoked", "--json").stdout)
    assert [key["id"] for key in revoked["data"]] == [newest]
    nothing = invoke("keys", "list", "--environment", "test", "--account", "main")
    assert (nothing.exit_code, nothing.stdout) == (0, "")


def test_a_rotation_gives_a_new_secret_and_keeps_the_old_one_for_its_grace(invoke: Invoke) -> None:
    made = created(invoke)

    rotated = invoke("keys", "rotate", made["id"], "--grace", "12h")

    secret = rotated.stdout.strip()
    assert secret != made["secret"]
    assert "previous secret" in rotated.stderr
    current = json.loads(invoke("keys", "inspect", "--json", stdin=secret).stdout)
    previous = json.loads(invoke("keys", "inspect", "--json", stdin=f"{made['secret']}\n").stdout)
    assert (current["position"], previous["position"]) == ("current", "previous")
    assert current["key"] == previous["key"]
    assert list(current["key"]) == KEY_FIELDS
    assert "previous, works until" in invoke("keys", "inspect", stdin=made["secret"]).stdout


def test_a_grace_of_zero_ends_the_old_secret(invoke: Invoke) -> None:
    made = created(invoke)
    assert json.loads(invoke("keys", "rotate", made["id"], "--grace", "0", "--json").stdout)["secret"]

    inspected = invoke("keys", "inspect", stdin=made["secret"])

    assert inspected.exit_code == 1
    assert "No key here has this live secret" in inspected.stderr


@pytest.mark.parametrize("arguments, message", [((), "Standard input is empty"), (("sk_live_x",), "never from arg")])
def test_a_secret_is_read_from_standard_input_only(invoke: Invoke, arguments: tuple[str, ...], message: str) -> None:
    result = invoke("keys", "inspect", *arguments, stdin="")

    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert "sk_live_x" not in result.stderr


@pytest.mark.parametrize(
    "junk", ["sk_live_", "Bearer x", "\x00\ud800"], ids=["prefix alone", "something else", "not text"]
)
def test_what_is_no_secret_is_said_to_be_none(invoke: Invoke, junk: str) -> None:
    encoded = junk.encode(errors="surrogatepass").decode(errors="replace")

    result = invoke("keys", "inspect", stdin=encoded)

    assert (result.exit_code, result.stdout) == (1, "")
    assert "not a secret of MachPay Gateway" in result.stderr
    inspected = json.loads(invoke("keys", "inspect", "--json", stdin=encoded).stdout)
    assert inspected == {"object": "inspection", "environment": None, "position": None, "key": None}


def test_a_key_is_revoked_without_being_asked_only_by_yes(invoke: Invoke) -> None:
    key_id = created(invoke)["id"]

    unasked = invoke("keys", "revoke", key_id)
    assert unasked.exit_code == 2
    assert "--yes" in unasked.stderr

    assert json.loads(invoke("keys", "revoke", key_id, "--yes", "--json").stdout)["status"] == "revoked"
    assert invoke("keys", "rotate", key_id).exit_code == 1


@pytest.mark.parametrize("answer, exit_code, status", [("y\n", 0, "revoked"), ("n\n", 1, "active")])
def test_on_a_terminal_a_person_is_asked(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, answer: str, exit_code: int, status: str
) -> None:
    key_id = created(invoke)["id"]
    monkeypatch.setattr("machpay_gateway.cli.prompts.is_terminal", lambda: True)

    assert invoke("keys", "revoke", key_id, stdin=answer).exit_code == exit_code
    assert json.loads(invoke("keys", "show", key_id, "--json").stdout)["status"] == status


def test_the_owner_of_a_key_is_set_changed_cleared_and_shown(invoke: Invoke) -> None:
    made = created(invoke, "--owner", " customer 17 ")
    assert made["owner"] == "customer 17"
    assert "customer 17" in invoke("keys", "list").stdout
    changed = json.loads(invoke("keys", "update", made["id"], "--owner", "customer 18", "--json").stdout)
    assert (changed["owner"], changed["name"]) == ("customer 18", "reader")
    assert re.search(r"^owner +customer 18$", invoke("keys", "show", made["id"]).stdout, re.MULTILINE)
    cleared = invoke("keys", "update", made["id"], "--owner", "")
    assert re.search(r"^owner +none$", cleared.stdout, re.MULTILINE)
    assert created(invoke, "--owner", "")["owner"] is None
    logged = json.loads(invoke("audit", "list", "--json").stdout)["data"]
    changes = [(row["before"], row["after"]) for row in logged if row["action"] == "key.update"]
    assert changes == [
        ({"owner": "customer 18"}, {"owner": None}),
        ({"owner": "customer 17"}, {"owner": "customer 18"}),
    ]


def test_an_operator_gives_a_key_a_tier_of_its_own_and_the_accounts_back(invoke: Invoke) -> None:
    made = created(invoke)
    changed = json.loads(invoke("keys", "update", made["id"], "--tier", "enterprise", "--json").stdout)
    assert (changed["tier"], changed["own_tier"], changed["tier_configured"]) == ("enterprise", "enterprise", True)
    assert "enterprise (own)" in invoke("keys", "list").stdout
    assert re.search(r"^tier +enterprise \(own\)$", invoke("keys", "show", made["id"]).stdout, re.MULTILINE)
    both = json.loads(invoke("keys", "update", made["id"], "--tier", "", "--owner", "a", "--json").stdout)
    assert (both["tier"], both["own_tier"], both["owner"]) == ("standard", None, "a")
    logged = json.loads(invoke("audit", "list", "--json").stdout)["data"]
    last, first = [(row["before"], row["after"]) for row in logged if row["action"] == "key.update"]
    assert first == ({"own_tier": None}, {"own_tier": "enterprise"})
    assert last == ({"owner": None, "own_tier": "enterprise"}, {"owner": "a", "own_tier": None})


def test_a_tier_that_is_not_configured_is_marked_where_keys_and_accounts_are_listed(
    invoke: Invoke, empty_folder: Path
) -> None:
    settings = (empty_folder / "machpay.toml").read_text()
    basic = '\n[tiers.basic]\nrate = "200/minute"\nconcurrency = 2\n'
    (empty_folder / "machpay.toml").write_text(settings + basic)
    invoke("accounts", "set-tier", "main", "basic")
    made = created(invoke)
    owned = created(invoke)
    invoke("keys", "update", owned["id"], "--tier", "basic")
    assert "unknown" not in invoke("keys", "list").stdout

    (empty_folder / "machpay.toml").write_text(settings)
    listed = invoke("keys", "list").stdout
    assert (listed.count("basic (unknown)"), listed.count("basic (own, unknown)")) == (2, 1)
    shown = invoke("keys", "show", made["id"]).stdout
    assert re.search(r"^tier +basic \(unknown\)$", shown, re.MULTILINE)
    assert json.loads(invoke("keys", "show", made["id"], "--json").stdout)["tier_configured"] is False
    assert "basic (unknown)" in invoke("accounts", "list").stdout


def test_an_operator_is_bound_to_the_number_of_keys_too(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACHPAY_TIERS__STANDARD__MAX_KEYS", "2")
    created(invoke)  # beside the admin key of `init`

    refused = invoke("keys", "create", *SCOPED, "--environment", "live")

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr == (
        "Error: The account has 2 working live keys, and its tier standard allows 2: "
        "revoke a key, or ask for a higher tier.\n"
    )
    invoke("accounts", "set-tier", "main", "enterprise")
    created(invoke)


def test_an_update_without_a_setting_is_refused(invoke: Invoke) -> None:
    result = invoke("keys", "update", created(invoke)["id"])

    assert (result.exit_code, result.stdout) == (2, "")
    assert "Nothing to change: give --name, --scope, --owner or --tier." in result.stderr


@pytest.mark.parametrize(
    "arguments, exit_code, message",
    [
        (("show", "key_nobody"), 1, 'There is no key "key_nobody"'),
        (("show", "\x1b[31m"), 1, r'There is no key "\u001b[31m"'),
        (("rotate", "key_nobody"), 1, 'There is no key "key_nobody"'),
        (("update", "key_nobody", "--owner", "a"), 1, 'There is no key "key_nobody"'),
        (("update", "key_nobody", "--tier", "gold"), 1, 'There is no key "key_nobody"'),
        (("create", *SCOPED, "--environment", "live", "--owner", " "), 1, "has 0 characters: use 1 to 200"),
        (("create", *SCOPED, "--environment", "live", "--owner", "a\x1bb"), 1, "characters that cannot be shown"),
        (("revoke", "key_nobody", "--yes"), 1, 'There is no key "key_nobody"'),
        (("list", "--after", "key_nobody"), 1, 'There is no key "key_nobody"'),
        (("list", "--account", "nobody"), 1, 'There is no account "nobody"'),
        (("create", *SCOPED), 2, "Missing option '--environment'"),
        (("create", *SCOPED, "--environment", "prod"), 2, "'prod' is not one of 'live', 'test'"),
        (("create", *SCOPED, "--environment", "live", "--expires-in", "90"), 2, "'90' is not a duration"),
        (("create", *SCOPED, "--environment", "live", "--allow-ip", "10.0.0.0/33"), 1, "prefix is 0–32"),
        (("create", *SCOPED, "--environment", "live", "--scope", "skills:run"), 1, "known scopes: account:read"),
        (("create", *SCOPED, "--environment", "live", "--expires-in", "0"), 1, "is past"),
        (("create", *SCOPED, "--environment", "live", "--expires-in", "999999999w"), 1, "year 10000"),
        (("create", *SCOPED, "--environment", "live", "--account", "nobody"), 1, 'There is no account "nobody"'),
    ],
)
def test_a_mistake_is_told_on_stderr_alone(
    invoke: Invoke, arguments: tuple[str, ...], exit_code: int, message: str
) -> None:
    result = invoke("keys", *arguments)

    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert message in result.stderr


def test_with_several_accounts_one_must_be_chosen(invoke: Invoke) -> None:
    invoke("accounts", "create", "acme")

    result = invoke("keys", "create", *SCOPED, "--environment", "live")

    assert result.exit_code == 1
    assert "choose one with --account, such as main, acme" in result.stderr


def test_without_accounts_one_must_be_made(invoke_bare: Invoke) -> None:
    result = invoke_bare("keys", "create", *SCOPED, "--environment", "live")

    assert result.exit_code == 1
    assert "accounts create NAME" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
def test_a_secret_typed_on_a_terminal_is_not_echoed(invoke: Invoke) -> None:
    secret = created(invoke)["secret"]
    ours, theirs = os.openpty()
    program = Path(sys.executable).with_name("machpay-gateway")
    with subprocess.Popen(
        [program, "keys", "inspect"], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        seen = b""
        while b"Secret: " not in seen:
            seen += os.read(ours, 1024)
        os.write(ours, secret.encode() + b"\n")
        while b"expires" not in seen:
            seen += os.read(ours, 1024)
        assert process.wait(10) == 0
    os.close(ours)

    assert b"\x1b[1m" in seen, "a terminal gets bold names"
    assert secret.encode() not in seen


APPLICATION = """
from typing import Annotated
from fastapi import FastAPI, Security
from machpay_gateway.fastapi import current_principal

def create_app() -> FastAPI:
    app = FastAPI()
    app.get("/orders", dependencies=[Security(current_principal, scopes=["orders:read"])])(lambda: [])
    return app

app = create_app()
"""


def create(invoke: Invoke, scope: str) -> Result:
    return invoke("create", "--name", "a", "--environment", "test", "--scope", scope)


@pytest.fixture
def keys_invoke(invoke: Invoke) -> Iterator[Invoke]:
    """Run commands on keys, and forget the modules that they import."""
    imported = set(sys.modules)
    yield lambda *arguments: invoke("keys", *arguments)
    for name in {"shop", "broken", "settled"} & (sys.modules.keys() - imported):
        del sys.modules[name]


def test_a_scope_that_is_not_defined_is_told_with_the_lines_to_add(keys_invoke: Invoke) -> None:
    result = create(keys_invoke, "orders:read")

    assert (result.exit_code, result.stdout) == (1, "")
    text = "\n".join(line.strip() for line in result.stderr.splitlines())
    assert 'add to machpay.toml:\n\n[scopes]\n"orders:read" = "What it allows"' in text
    assert 'application = "main:app"' in text
    with Path("machpay.toml").open("a", encoding="utf-8") as file:
        file.write('\n[scopes]\n"orders:read" = "What it allows"\n')
    assert create(keys_invoke, "orders:read").exit_code == 0, "the way out is one"
    assert 'Did you mean "orders:read"?' in create(keys_invoke, "orders:raed").stderr


@pytest.mark.parametrize("place", ["shop:app", "shop:create_app()"])
def test_what_the_application_requires_is_defined_for_commands(keys_invoke: Invoke, place: str) -> None:
    Path("shop.py").write_text(APPLICATION, encoding="utf-8")
    settings = Path("machpay.toml").read_text(encoding="utf-8")
    Path("machpay.toml").write_text(f'application = "{place}"\n{settings}', encoding="utf-8")

    assert create(keys_invoke, "orders:read").exit_code == 0
    refused = create(keys_invoke, "orders:raed")
    assert 'Did you mean "orders:read"?' in refused.stderr
    assert "main:app" not in refused.stderr, "there is one already"


@pytest.mark.parametrize(
    "place, told",
    [
        ("missing_shop:app", "'missing_shop:app' cannot be imported (ModuleNotFoundError: No module named"),
        ("broken:app", "'broken:app' cannot be imported (ZeroDivisionError: division by zero)"),
        ("settled:app", "'settled:app' cannot be imported (AttributeError: module 'settled' has no attribute 'app')"),
    ],
)
def test_an_application_that_cannot_be_imported_is_named(keys_invoke: Invoke, place: str, told: str) -> None:
    Path("broken.py").write_text("1 / 0\n", encoding="utf-8")
    Path("settled.py").write_text("", encoding="utf-8")
    settings = Path("machpay.toml").read_text(encoding="utf-8")
    Path("machpay.toml").write_text(f'application = "{place}"\n{settings}', encoding="utf-8")

    assert f"Error: application: {told}" in create(keys_invoke, "orders:read").stderr
    assert create(keys_invoke, "skills:list").exit_code == 0, "it is not needed for this one"


def test_the_name_and_the_scopes_of_a_key_are_changed(invoke: Invoke) -> None:
    key = created(invoke)
    changed = json.loads(
        invoke("keys", "update", key["id"], "--name", "new", "--scope", "skills:*,keys:manage", "--json").stdout
    )
    assert (changed["name"], changed["scopes"]) == ("new", ["keys:manage", "skills:*"])
    assert json.loads(invoke("keys", "update", key["id"], "--scope", "", "--json").stdout)["scopes"] == []
    assert "is not defined" in invoke("keys", "update", key["id"], "--scope", "orders:read").stderr
