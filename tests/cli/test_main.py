import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from machpay_gateway.cli.main import cli
from machpay_gateway.cli.output import print_fields
from machpay_gateway.core.errors import KeysetUnavailable, StoreUnavailable
from machpay_gateway.gateway import Lifecycle
from tests.cli.conftest import Invoke

PROGRAM = Path(sys.executable).with_name("machpay-gateway")


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    all_commands: list[tuple[tuple[str, ...], click.Command]] = []
    for name, command in group.commands.items():
        here = (*path, name)
        all_commands += commands(command, here) if isinstance(command, click.Group) else [(here, command)]
    return all_commands


@pytest.mark.parametrize(
    "path, command", commands(cli), ids=lambda value: "-".join(value) if type(value) is tuple else ""
)
def test_every_command_has_help_and_json(path: tuple[str, ...], command: click.Command) -> None:
    assert any("--json" in parameter.opts for parameter in command.params)
    assert command.help
    assert CliRunner().invoke(cli, [*path, "--help"]).exit_code == 0


def test_the_version_is_the_packages(invoke_bare: Invoke) -> None:
    assert invoke_bare("--version").stdout == f"machpay-gateway {version('machpay-gateway')}\n"


def test_every_mistake_in_the_settings_is_told(invoke_bare: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACHPAY_DATABSE", "sqlite://")
    monkeypatch.setenv("MACHPAY_LEGACY_HEADERS", "perhaps")

    result = invoke_bare("keys", "list")

    assert (result.exit_code, result.stdout) == (1, "")
    first, second = result.stderr.splitlines()
    assert first.startswith("Error: MACHPAY_DATABSE: ")
    assert second.startswith("       MACHPAY_LEGACY_HEADERS: ")


@pytest.mark.parametrize(
    "arguments",
    [("--config", "nothing.toml", "accounts", "list"), ("accounts", "list"), ("serve", "--config", "nothing.toml")],
    ids=["option", "variable", "serve"],
)
def test_a_named_settings_file_must_exist(
    invoke_bare: Invoke, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    if "--config" not in arguments:
        monkeypatch.setenv("MACHPAY_CONFIG", "nothing.toml")

    result = invoke_bare(*arguments)

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: nothing.toml: there is no such file; `machpay-gateway init`")


def failing(error: BaseException) -> object:
    async def open_(_: Lifecycle, *, upgrade: bool) -> None:  # noqa: ARG001 - as the one it stands for
        raise error

    return open_


@pytest.mark.parametrize(
    "error, cause, message",
    [
        (StoreUnavailable("keys"), OSError("no route\nto host"), "The database did not answer (keys, no route): "),
        (StoreUnavailable("keys"), None, "The database did not answer (keys): "),
        (KeysetUnavailable("window"), None, "What this needs did not answer (window): "),
    ],
)
def test_what_does_not_answer_is_one_line(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, error: Exception, cause: Exception | None, message: str
) -> None:
    error.__cause__ = cause
    monkeypatch.setattr(Lifecycle, "open", failing(error))

    result = invoke("keys", "list")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {message}")
    assert result.stderr.count("\n") == 1


def test_a_file_that_is_no_database_is_one_line(invoke: Invoke) -> None:
    Path("machpay.db").write_text("something else entirely", encoding="utf-8")

    result = invoke("keys", "list")

    assert result.exit_code == 1
    assert "is not a SQLite database: name another file" in result.stderr


def test_an_interrupt_ends_quietly_with_its_code(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lifecycle, "open", failing(KeyboardInterrupt()))

    result = invoke("keys", "list")

    # The line break after `^C` is on stdout or stderr, which depends on the version of click.
    assert (result.exit_code, result.output.strip()) == (130, "")


def test_a_reader_that_is_gone_ends_it_quietly(invoke: Invoke) -> None:
    assert invoke("policy", "check").exit_code == 0
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run([PROGRAM, "policy", "check"], stdout=writing, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writing)

    assert (ended.returncode, ended.stderr) == (1, b"")


def test_a_stdout_without_unicode_still_gets_its_table(invoke: Invoke) -> None:
    (key,) = json.loads(invoke("keys", "list", "--json").stdout)["data"]
    ended = subprocess.run(
        [PROGRAM, "keys", "show", key["id"]],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        check=False,
    )

    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"sk_live_?" in ended.stdout


@pytest.mark.parametrize("no_color, bold", [("", True), ("1", False)])
def test_no_color_means_no_escape_sequence_at_all(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    no_color: str,
    bold: bool,  # noqa: FBT001
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)

    print_fields([("name", "value with \x1b[31m of its own")])

    printed = capsys.readouterr().out
    assert ("\x1b[1m" in printed) is bold
    assert r"\u001b[31m" in printed


def test_help_loads_no_server_no_driver_and_no_tables() -> None:
    modules = {"sqlalchemy", "uvicorn", "fastapi", "rich"}
    loaded = f"import sys, machpay_gateway.cli.main; print({modules} & sys.modules.keys())"

    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, check=True).stdout == b"set()\n"
