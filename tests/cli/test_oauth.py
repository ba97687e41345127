"""Users, apps, grants and signing keys on the command line."""

import asyncio
import json
import os
import time
from pathlib import Path

import pytest

from machpay_gateway import Gateway
from machpay_gateway.core.keys.audit import APPLICATION
from machpay_gateway.services.consents import Consents
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


def test_a_user_may_look_unless_told_to_be_an_admin(invoke: Invoke) -> None:
    made_as = {
        role: json.loads(invoke("users", "create", email, *given, "--json", stdin=PASSWORD + "\n").stdout)["role"]
        for role, email, given in (("viewer", EMAIL, ()), ("admin", "boss@example.org", ("--role", "admin")))
    }
    assert made_as == {"viewer": "viewer", "admin": "admin"}
    assert made(invoke, "users", "set-role", EMAIL, "admin")["role"] == "admin"
    assert made(invoke, "users", "set-role", EMAIL, "viewer")["role"] == "viewer"
    entries = json.loads(invoke("audit", "list", "--json").stdout)["data"]
    assert [(each["action"], each["after"]["role"]) for each in entries[:2]] == [
        ("user.set_role", "viewer"),
        ("user.set_role", "admin"),
    ]
    assert "is not one of" in invoke("users", "set-role", EMAIL, "owner").stderr


def test_an_operator_lets_a_user_in_though_strangers_keep_trying(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoke("users", "create", EMAIL, stdin=PASSWORD + "\n")
    assert "set console.url" in invoke("users", "pass", EMAIL).stderr
    monkeypatch.setenv("MACHPAY_CONSOLE__URL", "https://console.example.com")
    result = invoke("users", "pass", EMAIL)
    assert result.stdout.startswith("https://console.example.com/console/sign-in?pass=user_")
    invoke("users", "disable", EMAIL)
    assert "the user is disabled" in invoke("users", "pass", EMAIL).stderr
    actions = [each["action"] for each in json.loads(invoke("audit", "list", "--json").stdout)["data"]]
    assert actions[:3] == ["user.disable", "user.make_pass", "user.create"]


def test_a_generated_password_alone_goes_to_stdout(invoke: Invoke) -> None:
    result = invoke("users", "create", EMAIL, "--generate")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.strip()) == 36
    assert result.stdout.strip() not in result.stderr
    changed = invoke("users", "set-password", EMAIL, "--generate")
    assert changed.stdout != result.stdout


@pytest.mark.parametrize(
    "arguments, stdin, message",
    [
        (("create", "nobody"), PASSWORD, "is not an email address"),
        (("create", EMAIL), "short", "has 5 characters: use 12 to 1024"),
        (("create", EMAIL), "password1234", "it is common"),
        (("create", EMAIL), EMAIL, "made of your email"),
        (("pass", EMAIL), "", "There is no"),
        (("create", EMAIL), "", "Standard input is empty"),
        (("set-password", EMAIL), PASSWORD, "There is no user"),
        (("disable", "user_x"), "", "`machpay-gateway users list` shows them"),
    ],
)
def test_a_mistake_about_users_is_one_line_with_the_way_out(
    invoke: Invoke, arguments: tuple[str, ...], stdin: str, message: str
) -> None:
    result = invoke("users", *arguments, stdin=stdin)
    assert result.exit_code in {1, 2}
    assert message in result.stderr
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
    "arguments, message",
    [
        (("--scope", "unknown"), "is not defined; known scopes"),
        (("--scope", "keys:manage"), "is not for apps"),
        (("--redirect-uri", "http://app.example.org"), "use https://"),
        (("--public", "--no-pkce"), "A public client needs PKCE"),
        (("--grant-type", "client_credentials"), "Redirect URIs are for authorization_code"),
    ],
)
def test_a_mistake_about_apps_is_one_line_with_the_way_out(
    invoke: Invoke, arguments: tuple[str, ...], message: str
) -> None:
    result = invoke(*APP, *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr


def test_a_person_is_asked_twice_and_sees_nothing_of_the_password(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("machpay_gateway.cli.prompts.is_terminal", lambda: True)
    result = invoke("users", "create", EMAIL, stdin=f"{PASSWORD}\nanother one\n{PASSWORD}\n{PASSWORD}\n")
    assert result.exit_code == 0, result.output
    assert "do not match" in result.stderr
    assert PASSWORD not in result.output
    piped = invoke("users", "set-password", EMAIL, "--password-stdin", stdin=PASSWORD + "!\n")
    assert (piped.exit_code, "Password" in piped.stderr) == (0, False)


def test_a_password_comes_from_one_place(invoke: Invoke) -> None:
    refused = invoke("users", "create", EMAIL, "--generate", "--password-stdin", stdin=PASSWORD)
    assert (refused.exit_code, "Choose between" in refused.stderr) == (2, True)
    assert json.loads(invoke("users", "list", "--json").stdout)["data"] == []


def test_the_audit_log_has_what_was_done_and_no_secret(invoke: Invoke) -> None:
    invoke("users", "create", EMAIL, stdin=PASSWORD)
    generated = invoke("users", "set-password", EMAIL, "--generate").stdout.strip()
    secret = invoke(*APP).stdout.strip()
    invoke("signing-keys", "rotate")
    log = invoke("audit", "list", "--json").stdout
    for action in ("user.create", "user.set_password", "client.create", "signing_key.rotate"):
        assert action in log
    for message in (PASSWORD, generated, secret[7:]):
        assert message not in log


def test_apps_are_listed_page_by_page(invoke: Invoke) -> None:
    ids = [made(invoke, *APP)["id"] for _ in range(3)]
    page = json.loads(invoke("clients", "list", "--limit", "2", "--json").stdout)
    assert ([each["id"] for each in page["data"]], page["has_more"]) == (ids[:0:-1], True)
    assert f"add --after {ids[1]}" in invoke("clients", "list", "--limit", "2").stderr
    rest = json.loads(invoke("clients", "list", "--after", str(ids[1]), "--json").stdout)
    assert ([each["id"] for each in rest["data"]], rest["has_more"]) == (ids[:1], False)


def test_an_app_that_calls_for_itself_needs_no_redirect_uri_any_more(invoke: Invoke) -> None:
    name = str(made(invoke, *APP)["id"])
    types = ("--grant-type", "client_credentials")
    assert "add it, or leave them out" in invoke("clients", "update", name, *types).stderr
    changed = made(invoke, "clients", "update", name, *types, "--no-redirect-uris")
    assert (changed["redirect_uris"], changed["grant_types"]) == ([], ["client_credentials"])
    both = invoke("clients", "update", name, "--no-redirect-uris", "--redirect-uri", "https://app.example.org/")
    assert (both.exit_code, "Choose between" in both.stderr) == (2, True)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("clients", "list", "--after", "app_x"), 'There is no app "app_x"'),
        (("clients", "show", "a\x00b"), "There is no app"),
        (("grants", "list", "--client", "app_x"), 'There is no app "app_x"'),
        (("grants", "list", "--after", "grant_x"), 'There is no grant "grant_x"'),
        (("grants", "list", "--account", "nobody"), 'There is no account "nobody"'),
        (("grants", "revoke", "a\udc80"), "There is no grant"),
    ],
)
def test_what_is_not_there_is_told_and_not_taken_for_nothing(
    invoke: Invoke, arguments: tuple[str, ...], message: str
) -> None:
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr


def granted(client_id: str) -> str:
    """Return the id of a grant that the app has for itself, in the database here."""

    async def given() -> str:
        async with Gateway() as gateway:
            client = await gateway.oauth_clients.get(None, client_id)
            assert client is not None
            consents = Consents(
                gateway.store, clock=time.time, entropy=os.urandom, invalidate=gateway.limiter.invalidate
            )
            return (await consents.grant_for(client, client.account_id, None, client.scopes, APPLICATION)).id

    return asyncio.run(given())


def test_what_an_app_may_is_listed_and_ended_without_an_authorization_server(invoke: Invoke) -> None:
    apps = [str(made(invoke, *APP)["id"]) for _ in range(2)]
    ids = [granted(app) for app in apps]
    page = json.loads(invoke("grants", "list", "--limit", "1", "--json").stdout)
    assert ([each["id"] for each in page["data"]], page["has_more"]) == (ids[1:], True)
    rest = json.loads(invoke("grants", "list", "--after", ids[1], "--json").stdout)
    assert [each["id"] for each in rest["data"]] == ids[:1]
    of_one = json.loads(invoke("grants", "list", "--client", apps[0], "--account", "main", "--json").stdout)
    assert [each["id"] for each in of_one["data"]] == ids[:1]
    assert made(invoke, "grants", "revoke", ids[0])["status"] == "ended"
    assert invoke("grants", "revoke", ids[0]).exit_code == 0
    states = {each["id"]: each["status"] for each in json.loads(invoke("grants", "list", "--json").stdout)["data"]}
    assert states == {ids[0]: "ended", ids[1]: "active"}
    assert invoke("audit", "list", "--json").stdout.count("grant.revoke") == 1


def test_grants_are_listed_and_what_is_not_there_cannot_be_ended(invoke: Invoke) -> None:
    assert json.loads(invoke("grants", "list", "--json").stdout) == {"object": "list", "data": [], "has_more": False}
    assert "one is created when a user allows an app" in invoke("grants", "list").stderr
    assert "There is no grant" in invoke("grants", "revoke", "grant_x").stderr


def test_signing_keys_are_rotated_with_notice_or_at_once(invoke: Invoke) -> None:
    assert "the first one is created when it is needed" in invoke("signing-keys", "list").stderr
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
    refused = invoke("signing-keys", "rotate")  # else no worker could sign by it, ten minutes later
    assert (refused.exit_code, "MACHPAY_SECRET_KEY" in refused.stderr) == (1, True)
    assert made(invoke, "signing-keys", "rotate", "--now", "--yes")["state"] == "signing"


def test_every_token_ends_only_when_a_person_says_so(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    first = made(invoke, "signing-keys", "rotate")
    monkeypatch.setattr("machpay_gateway.cli.prompts.is_terminal", lambda: True)
    refused = invoke("signing-keys", "rotate", "--now", stdin="n\n")
    assert (refused.exit_code, "All access tokens and sessions end" in refused.stderr) == (1, True)
    listed = json.loads(invoke("signing-keys", "list", "--json").stdout)["data"]
    assert [key["id"] for key in listed] == [first["id"]]


@pytest.mark.parametrize("group", ["users", "clients", "grants"])
def test_a_store_in_memory_is_empty(invoke_bare: Invoke, monkeypatch: pytest.MonkeyPatch, group: str) -> None:
    monkeypatch.setenv("MACHPAY_DATABASE", "memory://")
    result = invoke_bare(group, "list", "--json")
    assert (result.exit_code, json.loads(result.stdout)["data"], result.stderr) == (0, [], "")


def test_a_store_in_memory_keeps_no_signing_keys(invoke_bare: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACHPAY_DATABASE", "memory://")
    result = invoke_bare("signing-keys", "list")
    assert (result.exit_code, result.stdout, "keeps no signing keys" in result.stderr) == (1, "", True)
    assert "instead" in result.stderr
