"""The access log as people read it: what is shown, what is not, and whatever becomes of the file meanwhile."""

import json
import os
import pty
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from machpay_gateway.cli.access_log_reader import FollowedFile
from tests.cli.conftest import Invoke
from tests.serving.processes import PROGRAM

SKIPPED = "skipped: not of an access log.\n"


def line(**members: object) -> str:
    return json.dumps(
        {
            "time": "2026-11-27T07:14:06.120Z",
            "request_id": "r",
            "method": "GET",
            "path": "/v1/skills",
            "status": 200,
            "outcome": "allowed",
            "route": "GET /v1/skills",
            "key": "key_1",
            "address": "192.0.2.1",
            "milliseconds": 12.3,
            "decision_milliseconds": 0.4,
            "upstream_milliseconds": 11.25,
            "bytes": 3,
        }
        | members
    )


def written(*lines: str, name: str = "access.log") -> str:
    Path(name).write_text("".join(f"{line}\n" for line in lines))
    return name


def shown(invoke: Invoke, *arguments: str) -> list[dict[str, Any]]:
    result = invoke("tail", "--no-follow", "--json", *arguments)
    assert result.exit_code == 0
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_line_is_one_that_people_can_read(invoke_bare: Invoke) -> None:
    refused = {"status": 429, "outcome": "rate_limited", "upstream_milliseconds": None, "key": None}
    refused["violated_policies"] = ["minute", "account-month"]
    older = {"decision_milliseconds": 7}  # as a version before wrote it, without most of it
    short = dict.fromkeys(("time", "status", "outcome", "path"), 7)
    name = written(line(), line(**refused), json.dumps(short | older))

    result = invoke_bare("tail", "--no-follow", name)

    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        "2026-11-27T07:14:06.120Z 200 GET  /v1/skills  allowed  key_1  12.3 ms (decision 0.4, upstream 11.2)",
        "2026-11-27T07:14:06.120Z 429 GET  /v1/skills  rate_limited (minute, account-month)  -  12.3 ms (decision 0.4)",
        "7 7 -  7  7  -  - (decision 7.0)",
    ]


@pytest.mark.parametrize(
    "arguments, paths",
    [
        ([], ["/0", "/1", "/2", "/3"]),
        (["-n", "2"], ["/2", "/3"]),
        (["-n", "0"], []),
        (["--key", "key_2"], ["/1", "/3"]),
        (["--status", "4xx"], ["/2", "/3"]),
        (["--status", "429"], ["/3"]),
        (["--status", "200", "--status", "429"], ["/0", "/1", "/3"]),
        (["--outcome", "rate_limited"], ["/3"]),
        (["--outcome", "rate_limited", "--outcome", "allowed"], ["/0", "/1", "/3"]),
        (["--route", "POST /v1/x"], ["/1"]),
        (["--key", "key_2", "--status", "2xx"], ["/1"]),
        (["-n", "1", "--key", "key_1"], ["/2"]),  # the last one of those that are wanted
        (["--key", "key_3"], []),
    ],
)
def test_only_what_is_wanted_is_shown(invoke_bare: Invoke, arguments: list[str], paths: list[str]) -> None:
    name = written(
        line(path="/0"),
        line(path="/1", key="key_2", route="POST /v1/x"),
        line(path="/2", status=403, outcome="insufficient_scope"),
        line(path="/3", key="key_2", status=429, outcome="rate_limited"),
    )

    assert [read["path"] for read in shown(invoke_bare, *arguments, name)] == paths


def test_what_is_no_line_of_an_access_log_is_passed_over_and_told(invoke_bare: Invoke) -> None:
    process = json.dumps({"time": "2026-11-27T07:14:06.120Z", "level": "info", "message": "The settings are reloaded"})
    name = written("INFO machpay_gateway: text", process, "[1]", "", line(), "\ufffd{")

    result = invoke_bare("tail", "--no-follow", name)

    assert len(result.stdout.splitlines()) == 1
    assert result.stderr == f"4 lines {SKIPPED}"


@pytest.mark.parametrize("as_json", [(), ("--json",)], ids=["text", "json"])
@pytest.mark.parametrize("member", ["time", "status", "path", "milliseconds", "of_no_version"])
def test_what_is_nested_too_deeply_is_passed_over(invoke_bare: Invoke, member: str, as_json: tuple[str, ...]) -> None:
    deep = line(**{member: "deep"}).replace('"deep"', "[" * 1000 + "]" * 1000)  # orjson reads as much, and writes less
    name = written(line(), deep, line())

    result = invoke_bare("tail", "--no-follow", *as_json, name)

    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 2
    assert result.stderr == f"1 line {SKIPPED}"


@pytest.mark.parametrize("status", ["²", "٤29", "", "-", True, [4]])
def test_a_status_that_is_no_number_is_shown_as_it_is(invoke_bare: Invoke, status: object) -> None:
    result = invoke_bare("tail", "--no-follow", written(line(status=status)))
    assert result.exit_code == 0
    assert f"Z {status} GET" in result.stdout


@pytest.mark.parametrize("member", ["time", "status", "method", "path", "outcome", "key"])
@pytest.mark.parametrize("as_json", [(), ("--json",)], ids=["text", "json"])
def test_nothing_that_a_terminal_acts_on_reaches_it(invoke_bare: Invoke, member: str, as_json: tuple[str, ...]) -> None:
    hostile = "/\x1b]0;owned\x07\x9b31m\u202e\x7f\r\n\u2028"
    name = written(line(**{member: hostile}), line(**{member: [hostile, {hostile: 1}]}))

    result = invoke_bare("tail", "--no-follow", *as_json, name)

    assert len(result.stdout.splitlines()) == 2
    assert result.stdout.replace("\n", "").replace("\x7f", "" if as_json else "\x7f").isprintable()


@pytest.mark.parametrize("no_color, status", [("", b"\x1b[31m503\x1b[0m"), ("1", b" 503 ")])
def test_a_status_is_coloured_on_a_terminal_unless_no_colour_is_asked_for(no_color: str, status: bytes) -> None:
    written(line(status=503, path="/\x1b[35m"))
    ours, theirs = pty.openpty()
    try:
        environ = os.environ | {"NO_COLOR": no_color}
        subprocess.run([PROGRAM, "tail", "--no-follow", "access.log"], stdout=theirs, env=environ, check=True)
        printed = os.read(ours, 4096)
    finally:
        os.close(ours)
        os.close(theirs)
    assert status in printed
    assert b"\x1b[35m" not in printed


def test_standard_input_is_shown_to_its_end(invoke_bare: Invoke) -> None:
    many = "".join(f"{line(path=f'/{number}')}\n" for number in range(30))

    result = invoke_bare("tail", "-", stdin=f"INFO: text\n{many}")

    assert len(result.stdout.splitlines()) == 30
    assert result.stderr == f"1 line {SKIPPED}"


@pytest.mark.parametrize("target", ["stdout", "off"])
def test_a_log_that_goes_to_no_file_is_told_with_the_way_out(invoke_bare: Invoke, target: str) -> None:
    Path("machpay.toml").write_text(f'[server]\naccess_log = "{target}"\n')
    result = invoke_bare("tail")
    assert result.exit_code == 2
    assert f'access_log = "{target}"' in result.stderr
    assert "machpay-gateway tail -" in result.stderr


def test_without_a_file_it_is_the_one_of_the_settings(invoke_bare: Invoke) -> None:
    Path("machpay.toml").write_text('[server]\naccess_log = "there.log"\n')
    written(line(path="/there"), name="there.log")
    assert [read["path"] for read in shown(invoke_bare)] == ["/there"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["missing.log"], "There is no file missing.log"),
        (["."], ". cannot be read (Is a directory): name another file."),
        (["--status", "4x", "x"], "'4x' is not a status: write it as 429 or 4xx."),
        (["--outcome", "denied", "x"], "'denied' is not one of"),
    ],
)
def test_what_cannot_be_shown_is_told(invoke_bare: Invoke, arguments: list[str], message: str) -> None:
    result = invoke_bare("tail", "--no-follow", *arguments)
    assert result.exit_code in {1, 2}
    assert message in result.stderr


# The file, whatever becomes of it.


@pytest.mark.parametrize("size", [0, 1, 3, 5000, 70_000, 200_000])
def test_lines_of_any_length_are_read_from_the_end(empty_folder: Path, size: int) -> None:
    lines = [b"a" * size, b"", b"b" * size, b"c" * 70_000, b"d"]
    path = empty_folder / "log"
    path.write_bytes(b"".join(line + b"\n" for line in lines) + b"un")
    with FollowedFile(path) as file:
        assert list(file.existing_lines()) == lines[::-1]
        assert list(file.new_lines()) == []
        with path.open("ab") as more:
            more.write(b"finished\nnext\n")
        assert list(file.new_lines()) == [b"unfinished", b"next"]


def test_a_line_without_an_end_fills_no_memory(empty_folder: Path) -> None:
    path = empty_folder / "log"
    path.write_bytes(b"x" * 5_000_000 + b"\nlast\n")
    with FollowedFile(path) as file:
        before = list(file.existing_lines())
        assert (before[0], sum(map(len, before))) == (b"last", 5_000_004)
        assert max(map(len, before)) < 2_000_000
        with path.open("ab") as more:
            more.write(b"y" * 5_000_000)
        assert max(map(len, file.new_lines())) < 2_000_000


def moves(path: Path) -> Iterator[Callable[[], object]]:
    """What others do to the log, one move for each line that is expected after it."""
    yield lambda: path.write_bytes(b"1\n")
    yield lambda: append(path.rename(path.with_suffix(".1")).with_suffix(""), b"2\n")
    yield lambda: append(path, b"3\n")
    yield lambda: path.write_bytes(b"4\n")  # cut, as by copytruncate
    yield lambda: replaced(path, b"5\n")
    yield lambda: replaced(path, b"6")
    yield lambda: replaced(path, b"7\n")  # and what was not written to its end is a line


def replaced(path: Path, text: bytes) -> None:
    path.unlink()
    append(path, text)


def append(path: Path, text: bytes) -> None:
    with path.open("ab") as file:
        file.write(text)


def test_a_file_is_followed_through_renaming_cutting_and_coming_late(empty_folder: Path) -> None:
    path = empty_folder / "log"
    with FollowedFile(path) as file:
        assert not file.exists
        assert list(file.new_lines()) == []
        append(path, b"0\n0\n")
        assert list(file.new_lines()) == [b"0", b"0"]
        for number, move in enumerate(moves(path), 1):
            move()
            assert list(file.new_lines()) == {6: [], 7: [b"6", b"7"]}.get(number, [b"%d" % number])
            assert list(file.new_lines()) == []


def test_it_follows_until_it_is_interrupted(empty_folder: Path) -> None:
    log = empty_folder / "access.log"
    log.write_text(f"{line(path='/old')}\ntext\n")
    with subprocess.Popen([PROGRAM, "tail", "--json", log], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as tail:
        assert tail.stdout is not None
        assert json.loads(tail.stdout.readline())["path"] == "/old"
        append(log, f"{line(path='/new')}\n".encode())
        assert json.loads(tail.stdout.readline())["path"] == "/new"
        log.rename(empty_folder / "access.log.1")
        append(log, f"{line(path='/rotated')}\n".encode())
        assert json.loads(tail.stdout.readline())["path"] == "/rotated"
        tail.send_signal(signal.SIGINT)
        _, message = tail.communicate(timeout=30)
    assert tail.returncode == 130
    assert message.decode() == f"1 line {SKIPPED}\n"


def test_a_reader_that_is_gone_ends_it_quietly() -> None:
    written(line())
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run([PROGRAM, "tail", "access.log"], stdout=writing, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, b"")
