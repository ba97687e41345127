"""Users, apps, grants and signing keys on the command line."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke

EMAIL, PASSWORD = "ada@example.org", "correct horse battery"
APP = ("clients", "create", "Ada's app", "--scope", "skills:execute", "--redirect-uri", "https://app.example.org/cb")


def made(invoke: Invoke, *arguments: str) -> dict[str, object]:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    document: dict[str, object] = json.loads(result.stdout)
    return document


def test_a_user_is_made_shut_out_and_let_in_again(invoke: Invoke) -> None:
    result = invoke("users", "create", EMAIL.upper(), "--json", stdin=PASSWORD + "\n")
    user = json.loads(result.stdout)
    assert (user["object"], user["email"], user["status"]) == ("user", EMAIL, "active")
    assert PASSWORD not in result.output
    assert made(invoke, "users", "disable", EMAIL)["status"] == "disabled"
    assert made(invoke, "users", "enable", str(user["id"]))["status"] == "active"
    assert [each["email"] for each in json.loads(invoke("users", "list", "--json").stdout)["data"]] == [EMAIL]
    assert EMAIL in invoke("users", "list").stdout


def test_a_generated_password_alone_goes_to_stdout(invoke: Invoke) -> None:
    result = invoke("users", "create", EMAIL, "--generate")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.strip()) == 36
    assert result.stdout.strip() not in result.stderr
    changed = invoke("users", "set-password", EMAIL, "--generate")
    assert changed.stdout != result.stdout


@pytest.mark.parametrize(
    "arguments, stdin, told",
    [
        (("create", "nobody"), PASSWORD, "is not an e-mail address"),
        (("create", EMAIL), "short", "has 5 characters: use 12 to 1024"),
        (("create", EMAIL), "", "Nothing came on standard input"),
        (("set-password", EMAIL), PASSWORD, "There is no user"),
        (("disable", "user_x"), "", "`machpay-gateway users list` shows them"),
    ],
)
def test_a_mistake_about_users_is_one_line_with_the_way_out(
    invoke: Invoke, arguments: tuple[str, ...], stdin: str, told: str
) -> None:
    result = invoke("users", *arguments, stdin=stdin)
    assert result.exit_code in {1, 2}
    assert told in result.stderr
    assert PASSWORD not in result.output


def test_an_e_mail_is_one_users_alone(invoke: Invoke) -> None:
    assert invoke("users", "create", EMAIL, stdin=PASSWORD).exit_code == 0
    assert "exists already" in invoke("users", "create", EMAIL, stdin=PASSWORD).stderr


def test_an_app_is_made_and_its_secret_alone_goes_to_stdout(invoke: Invoke) -> None:
    result = invoke(*APP)
    assert result.exit_code == 0, result.output
    secret = result.stdout.strip()
    assert secret.startswith("cs_mp1_")
    assert secret not in result.stderr
    assert "https://app.example.org/cb" in result.stderr
    assert "not shown again" in result.stderr
    (client,) = json.loads(invoke("clients", "list", "--json").stdout)["data"]
    assert (client["name"], client["grant_types"]) == ("Ada's app", ["authorization_code", "refresh_token"])
    assert secret not in json.dumps(client)
    assert "Ada's app" in invoke("clients", "list").stdout
    assert "PKCE" in invoke("clients", "show", client["id"]).stdout


def test_an_app_is_changed_given_a_new_secret_and_deleted(invoke: Invoke) -> None:
    client = made(invoke, *APP)
    name = str(client["id"])
    changed = made(invoke, "clients", "update", name, "--name", "Another name", "--no-pkce", "--scope", "account:read")
    assert (changed["name"], changed["require_pkce"], changed["scopes"]) == ("Another name", False, ["account:read"])
    assert changed["redirect_uris"] == client["redirect_uris"]
    rotated = made(invoke, "clients", "rotate-secret", name, "--grace", "1h")
    assert rotated["client_secret"] != client["client_secret"]
    assert len(rotated["secrets"]) == 2  # type: ignore[arg-type]  # a list
    refused = invoke("clients", "delete", name)
    assert (refused.exit_code, "add --yes" in refused.stderr) == (2, True)
    assert invoke("clients", "delete", name, "--yes").exit_code == 0
    assert "There is no app" in invoke("clients", "show", name).stderr
    assert json.loads(invoke("clients", "list", "--json").stdout)["data"] == []


def test_a_public_app_has_no_secret(invoke: Invoke) -> None:
    result = invoke(*APP, "--public")
    assert (result.exit_code, result.stdout) == (0, "")
    client = json.loads(invoke("clients", "list", "--json").stdout)["data"][0]
    assert "is public: it has no secret" in invoke("clients", "rotate-secret", client["id"]).stderr


@pytest.mark.parametrize(
    "arguments, told",
    [
        (("--scope", "unknown"), "is not defined; known scopes"),
        (("--scope", "keys:manage"), "is not for apps"),
        (("--redirect-uri", "http://app.example.org"), "use https://"),
        (("--public", "--no-pkce"), "A public client needs PKCE"),
        (("--grant-type", "client_credentials"), "Redirect URIs are for authorization_code"),
    ],
)
def test_a_mistake_about_apps_is_one_line_with_the_way_out(
    invoke: Invoke, arguments: tuple[str, ...], told: str
) -> None:
    result = invoke(*APP, *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert told in result.stderr


def test_grants_are_listed_and_what_is_not_there_cannot_be_ended(invoke: Invoke) -> None:
    assert json.loads(invoke("grants", "list", "--json").stdout) == {"object": "list", "data": [], "has_more": False}
    assert "they come of users" in invoke("grants", "list").stderr
    assert "There is no grant" in invoke("grants", "revoke", "grant_x").stderr


def test_signing_keys_are_rotated_with_notice_or_at_once(invoke: Invoke) -> None:
    assert "the first is made when one is needed" in invoke("signing-keys", "list").stderr
    first = made(invoke, "signing-keys", "rotate")
    assert first["state"] == "signing"  # there was none to go on by
    second = made(invoke, "signing-keys", "rotate")
    assert second["state"] == "next"
    states = {key["id"]: key["state"] for key in json.loads(invoke("signing-keys", "list", "--json").stdout)["data"]}
    assert states == {first["id"]: "signing", second["id"]: "next"}
    assert "add --yes" in invoke("signing-keys", "rotate", "--now").stderr
    third = made(invoke, "signing-keys", "rotate", "--now", "--yes")
    listed = json.loads(invoke("signing-keys", "list", "--json").stdout)["data"]
    assert [(key["id"], key["state"]) for key in listed] == [(third["id"], "signing")]


def test_the_secret_beside_the_database_is_its_owners_alone(invoke: Invoke, empty_folder: Path) -> None:
    made(invoke, "signing-keys", "rotate")
    secret = empty_folder / "machpay.db.secret"
    assert secret.stat().st_mode & 0o777 == 0o600
    secret.write_text("x" * 64)
    assert made(invoke, "signing-keys", "rotate")["state"] == "next"  # it needs no other key's private part


def test_a_store_without_room_for_users_says_so(invoke_bare: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACHPAY_DATABASE", "memory://")
    result = invoke_bare("users", "list")
    assert (result.exit_code, "use sqlite:// (in memory) instead" in result.stderr) == (1, True)
