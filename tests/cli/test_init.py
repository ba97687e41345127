import json
import re
import sys
from pathlib import Path

import pytest

from machpay_gateway.cli.init import SETTINGS
from machpay_gateway.cli.new_settings import describe, find_application
from machpay_gateway.settings import check_file, load_settings
from tests.cli.conftest import Invoke

SECRET = re.compile(r"^sk_live_mp1_[0-9A-Za-z]{38}$", re.MULTILINE)


def test_init_makes_settings_database_account_and_one_admin_key(invoke_bare: Invoke) -> None:
    result = invoke_bare("init")

    assert result.exit_code == 0
    assert len(SECRET.findall(result.stdout)) == 1
    assert "not shown again" in result.stderr
    assert "policy check" in result.stdout, "the next steps"
    assert Path("machpay.toml").is_file()
    assert Path("machpay.db").is_file()
    listed = json.loads(invoke_bare("keys", "list", "--json").stdout)["data"]
    assert [(key["name"], key["environment"]) for key in listed] == [("admin", "live")]
    assert set(listed[0]["scopes"]) >= {"keys:manage", "skills:execute", "webhooks:manage"}
    assert "skills" not in Path("machpay.toml").read_text(encoding="utf-8"), "routes of ours are not the project's"
    assert "machpay.toml is valid: 0 routes" in invoke_bare("policy", "check").stdout
    assert invoke_bare("doctor").exit_code == 0


def test_init_leaves_what_is_there_as_it_is(invoke_bare: Invoke) -> None:
    Path("machpay.toml").write_text('database = "sqlite:///other.db"\n', encoding="utf-8")
    first = invoke_bare("init", "--account", "acme")

    again = invoke_bare("init", "--account", "acme")

    assert (first.exit_code, again.exit_code) == (0, 0)
    assert Path("machpay.toml").read_text(encoding="utf-8") == 'database = "sqlite:///other.db"\n'
    assert Path("other.db").is_file()
    assert not SECRET.search(again.output)
    assert len(json.loads(invoke_bare("accounts", "list", "--json").stdout)["data"]) == 1


def test_init_for_scripts_is_one_document(invoke_bare: Invoke) -> None:
    made = json.loads(invoke_bare("--config", "gateway.toml", "init", "--json").stdout)

    assert (made["config"], made["config_written"], made["account"]["name"]) == ("gateway.toml", True, "main")
    assert SECRET.match(made["key"]["secret"])
    assert json.loads(invoke_bare("--config", "gateway.toml", "init", "--json").stdout)["key"] is None


def test_every_setting_of_the_written_file_can_be_uncommented(tmp_path: Path) -> None:
    uncommented = re.sub(r"^# (?=\[|[a-z_]+ = )", "", SETTINGS, flags=re.MULTILINE)
    file = tmp_path / "machpay.toml"
    file.write_text(uncommented, encoding="utf-8")

    assert uncommented.count("\n# ") < SETTINGS.count("\n# ")
    assert check_file(file) == []


def test_a_settings_file_that_cannot_be_written_is_one_line(invoke_bare: Invoke) -> None:
    result = invoke_bare("--config", "missing/machpay.toml", "init")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: missing/machpay.toml cannot be written (No such file or directory)")


def test_a_database_servers_schema_is_upgraded_when_it_is_opened(
    invoke_bare: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    class Recorded:
        serving_lock = None

        def __init__(self, url: str, *, url_file: Path | None = None) -> None:
            assert url_file is None
            done.append(url)

        async def open(self, *, upgrade: bool) -> None:
            done.append(f"open, upgrade={upgrade}")

        async def accounts(self) -> list[str]:
            return ["there is one"]

        async def close(self) -> None:
            done.append("close")

    monkeypatch.setattr("machpay_gateway.stores.sql.SqlStore", Recorded)
    monkeypatch.setenv("MACHPAY_DATABASE", "postgresql://db.example/machpay")

    assert invoke_bare("init").exit_code == 0
    url = "postgresql://db.example/machpay"
    assert done == [url, "open, upgrade=True", "close"]


CHOSEN = (
    *(
        "--scope",
        "orders:read,orders:write",
        "--scope",
        "reports:read=See reports",
        "--upstream",
        "http://127.0.0.1:9000",
    ),
    *("--route", "GET /v1/orders orders:read", "--route", "* /v1/orders/{id} orders:write | orders:admin"),
    *("--route", "GET /healthz public", "--route", "GET /me", "--redis", "redis://127.0.0.1:1/0"),
)


def test_what_is_chosen_is_the_projects_file(invoke_bare: Invoke) -> None:
    made = json.loads(invoke_bare("init", *CHOSEN, "--database", "sqlite:///own.db", "--json").stdout)

    assert check_file(Path("machpay.toml")) == []
    settings = load_settings({"config": "machpay.toml"}, {})
    assert settings.scopes == {
        "orders:read": "Read orders",
        "orders:write": "Write orders",
        "reports:read": "See reports",
    }
    assert [(route.match, str(route.requires), route.public) for route in settings.routes] == [
        ("GET /v1/orders", "orders:read", False),
        ("* /v1/orders/{id}", "orders:write | orders:admin", False),
        ("GET /healthz", "", True),
        ("GET /me", "", False),
    ]
    assert (settings.database, settings.redis) == ("sqlite:///own.db", "redis://127.0.0.1:1/0")
    assert settings.unlisted_routes == "deny"
    assert set(settings.upstreams) == {"live", "sandbox"}
    assert set(made["key"]["scopes"]) == {"keys:manage", "orders:read", "orders:write", "orders:admin", "reports:read"}
    assert Path("own.db").is_file()


def test_the_next_steps_are_the_projects(invoke_bare: Invoke) -> None:
    steps = invoke_bare("init", "--scope", "orders:read").stdout.splitlines()

    command = steps[-1].split()
    assert command[:3] == ["machpay-gateway", "keys", "create"]
    assert command[-2:] == ["--scope", "orders:read"]
    assert invoke_bare(*command[1:]).exit_code == 0


def test_a_fastapi_application_is_the_settings_and_its_scopes_the_admin_keys(
    invoke_bare: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "bazaar", raising=False)
    Path("bazaar.py").write_text(
        "from typing import Annotated\nfrom fastapi import FastAPI, Security\n"
        "from machpay_gateway.fastapi import current_principal\napp = FastAPI()\n"
        'app.get("/x", dependencies=[Security(current_principal, scopes=["stalls:read"])])(lambda: "x")\n',
        encoding="utf-8",
    )
    made = json.loads(invoke_bare("init", "--application", "bazaar:app", "--json").stdout)
    assert made["key"]["scopes"] == ["keys:manage", "stalls:read"]
    assert load_settings({"config": "machpay.toml"}, {}).application == "bazaar:app"


@pytest.mark.parametrize("text", ["import sys; sys.exit(3)", "print('loud'); 1 / 0"])
def test_an_application_that_cannot_be_imported_yet_is_a_warning(
    invoke_bare: Invoke, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.delitem(sys.modules, "later", raising=False)
    Path("later.py").write_text(text, encoding="utf-8")
    result = invoke_bare("init", "--application", "later:app", "--scope", "orders:read", "--json")

    assert result.exit_code == 0
    assert json.loads(result.stdout)["key"]["scopes"] == ["keys:manage", "orders:read"]
    assert "warning: application: 'later:app' cannot be imported" in result.stderr


@pytest.mark.parametrize(
    "options, told",
    [
        (("--scope", "a;b"), "'a;b' is not a scope name"),
        (("--route", "GETT /x"), "GETT is not a method of HTTP; did you mean `GET /x`?"),
        (("--route", "GET /x a, b"), "'a b' requires both"),
        (("--route", "GET /x=a"), "write a blank between the path and its scopes"),
        (("--route", "GET /x", "--route", "GET /x a"), "matches the same requests"),
        (("--database", "mysql://x"), "database: not a URL that starts with"),
        (("--redis", "http://x"), "redis: not a URL that starts with"),
        (("--upstream", "127.0.0.1"), "upstreams.live: '127.0.0.1' is not an http:// or https:// address"),
        (("--application", "main.py"), "application: 'main.py' is not a module and the name"),
    ],
)
def test_a_wrong_choice_writes_nothing(invoke_bare: Invoke, options: tuple[str, ...], told: str) -> None:
    result = invoke_bare("init", *options)

    assert (result.exit_code, result.stdout) == (1, "")
    assert told in result.stderr
    assert list(Path().iterdir()) == []


def test_choices_do_not_pass_by_a_file_that_is_there(invoke_bare: Invoke) -> None:
    Path("machpay.toml").write_text("", encoding="utf-8")
    result = invoke_bare("init", "--scope", "orders:read")

    assert result.exit_code == 2
    assert "machpay.toml exists already and is not changed" in result.stderr
    assert not Path("machpay.db").exists()


def test_on_a_terminal_it_asks_for_what_is_not_given(invoke_bare: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("machpay_gateway.cli.init.is_terminal", lambda: True)
    answers = ["none", "", "a and b", "orders:read", "GETT /x", "GET /v1/orders orders:read", "", "", ""]
    result = invoke_bare("init", stdin="\n".join(answers) + "\n")

    assert result.exit_code == 0, result.output
    assert "Error: Route 'GETT /x': GETT is not a method of HTTP; did you mean `GET /x`?" in result.output
    settings = load_settings({"config": "machpay.toml"}, {})
    assert [route.match for route in settings.routes] == ["GET /v1/orders"]
    assert settings.scopes == {"orders:read": "Read orders"}
    assert (settings.database, settings.redis) == ("sqlite:///machpay.db", None)


@pytest.mark.parametrize("silent", [("--yes",), ("--json",)])
def test_it_asks_nothing_if_it_is_not_to(
    invoke_bare: Invoke, monkeypatch: pytest.MonkeyPatch, silent: tuple[str, ...]
) -> None:
    monkeypatch.setattr("machpay_gateway.cli.init.is_terminal", lambda: True)
    assert invoke_bare("init", *silent).exit_code == 0
    assert Path("machpay.toml").read_text(encoding="utf-8") == SETTINGS


@pytest.mark.parametrize(
    "file, text, place",
    [
        ("main.py", "app = FastAPI()", "main:app"),
        ("app.py", "shop: FastAPI = FastAPI(title='x')", "app:shop"),
        ("app/main.py", "api = fastapi.FastAPI()", "app.main:api"),
        ("main.py", "# app = FastAPI()", None),
        ("other.py", "app = FastAPI()", None),
    ],
)
def test_a_fastapi_application_is_suggested(tmp_path: Path, file: str, text: str, place: str | None) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(f"import fastapi\n{text}\n", encoding="utf-8")
    assert find_application(tmp_path) == place


@pytest.mark.parametrize(
    "scope, text",
    [("orders:read", "Read orders"), ("a:b:c", "C a b"), ("orders:*", "Orders *"), ("admin", "Admin"), ("é", "É")],
)
def test_a_scope_is_described_by_its_name(scope: str, text: str) -> None:
    assert describe(scope) == text
