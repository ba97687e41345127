"""A working directory with what `init` leaves behind, and a way to run commands in it."""

import os
import shutil
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from argon2.profiles import CHEAPEST
from click.testing import CliRunner, Result

from machpay_gateway.cli.main import cli
from machpay_gateway.services import passwords

Invoke = Callable[..., Result]

# The sample API's routes.
SKILLS = (
    "GET /healthz public",
    "GET /v1/skills skills:list",
    "POST /v1/skills/execute skills:execute",
    "GET /v1/account account:read",
    "PATCH /v1/account account:write",
    "* /v1/webhooks/{rest:path} webhooks:manage",
)


# Click 8.2 keeps stderr apart by itself, and no longer takes the argument.
_APART: Any = {"mix_stderr": False} if "mix_stderr" in signature(CliRunner).parameters else {}


def run(*arguments: str, stdin: str | None = None) -> Result:
    result = CliRunner(**_APART).invoke(cli, arguments, input=stdin, prog_name="machpay-gateway")
    # Whatever else than an exit comes out would be a traceback for people.
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("MACHPAY_") or name in {"NO_COLOR", "FORCE_COLOR"}]:
        monkeypatch.delenv(name)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands that run in this process hash passwords by what costs nothing."""
    monkeypatch.setattr(passwords, "RFC_9106_LOW_MEMORY", CHEAPEST)


@pytest.fixture(scope="session")
def initialised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("initialised")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run("init", *(argument for route in SKILLS for argument in ("--route", route))).exit_code == 0
    return folder


@pytest.fixture
def invoke(initialised: Path, empty_folder: Path) -> Invoke:
    """Run commands where `init` has been run."""
    shutil.copytree(initialised, empty_folder, dirs_exist_ok=True)
    return run


@pytest.fixture
def invoke_bare() -> Invoke:
    """Run commands where there is nothing yet."""
    return run
