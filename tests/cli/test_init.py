import json
import re
from pathlib import Path

import pytest

from machpay_gateway.cli.init import SETTINGS
from machpay_gateway.settings import check_file
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
