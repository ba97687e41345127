"""What goes on in a gateway that runs, as people and scripts see it."""

import asyncio
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from rich.console import Console

from machpay_gateway import Gateway, Route
from machpay_gateway.assembly import ConfiguredGateway
from machpay_gateway.cli.session import operator_actor
from machpay_gateway.cli.top_keys import TopKeys
from machpay_gateway.cli.top_view import top_view
from machpay_gateway.core.usage.counters import BOUNDS, MINUTE, UsageBatch, UsageKey, UsageRow
from tests.cli.conftest import Invoke
from tests.redises.ports import free_port
from tests.redises.servers import running_server
from tests.serving.processes import PROGRAM, Served, served
from tests.serving.test_lifecycle import ask, status, until

ROUTE = "* /v1/{rest:path}"
LATENCY = {"p50": 1.25, "p95": 4.0, "p99": None}
DOCUMENT: dict[str, Any] = {
    "object": "top",
    "mistake": None,
    "at": "2026-11-27T07:51:03Z",
    "seconds": 5.0,
    "requests_per_second": 12345.678,
    "refused_per_second": 345.678,
    "outcomes_per_second": {"allowed": 12000.0, "rate_limited": 345.678},
    "latency_ms": LATENCY,
    "in_flight": 12,
    "connections": 640,
    "workers": 2,
    "workers_wanted": 2,
    "degraded_workers": 0,
    "upstream_servers_out": [],
    "processors": 1.317,
    "memory_bytes": 310_400_000,
    "event_loop_lag_ms": 2.5,
    "routes": [{"name": "GET /v1/skills/{id}", "requests_per_second": 12345.678, "latency_ms": LATENCY}],
    "steps": [{"name": "decide", "requests_per_second": 12345.678, "latency_ms": LATENCY}],
    "keys": {
        "since": "2026-11-27T07:50:00Z",
        "mistake": None,
        "data": [
            {
                "id": "key_01hzy3k9v7m4c2q8t6r5w0x1yz",
                "name": "nightly import of the northern warehouse",
                "tier": "standard",
                "requests": 1234,
                "outcomes": {"allowed": 987, "rate_limited": 247},
                "of_limit": 0.987,
                "tightest": None,
            }
        ],
    },
}


def drawn(document: dict[str, Any], width: int = 80) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(top_view(document))
    return captured.get()


def test_all_of_it_fits_into_80_columns() -> None:
    text = drawn(DOCUMENT)
    assert all(len(line.rstrip()) <= 80 for line in text.splitlines())
    for line in (
        "12,345.7 requests/s, 345.7 refused",
        "12 in flight",
        "1.32 processors  310 MB of memory  event loop 2.5 ms late",
        "97.2%",
        "GET /v1/skills/{id}",
        "1.2",
        "decide",
        "key_01hz",
        "nightl",
        "standard",
        "1,234",
        "99%",
    ):
        assert line in text
    assert "degraded" not in text


@pytest.mark.parametrize(
    "width, columns, least",
    [
        (80, ["NAME", "REQUESTS", "LEAST LEFT", "REFUSED"], "account-month 3%"),
        (120, ["NAME", "TIER", "REQUESTS", "OF LIMIT", "LEAST LEFT", "REFUSED"], "account-month 29,800 (3%)"),
    ],
)
def test_the_tightest_limit_of_a_key_is_shown_in_any_width(width: int, columns: list[str], least: str) -> None:
    tightest = {"policy": "account-month", "limit": 1_000_000, "remaining": 29_800}
    (key,) = DOCUMENT["keys"]["data"]
    grant = key | {"id": "grant_1", "name": None, "tier": None, "of_limit": None}
    keys = [key | {"tightest": tightest}, grant]
    text = drawn(DOCUMENT | {"keys": DOCUMENT["keys"] | {"data": keys}}, width)
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    header, first, second = text.splitlines()[-3:]
    assert re.split(r"  +", header.strip()) == ["KEY, SINCE 07:50", *columns]
    assert first.startswith(key["id"])
    for cell in ("nig", "1,234", least, "rate"):
        assert cell in first
    assert second.split()[:2] == ["grant_1", "-"]


def test_of_a_busy_gateway_the_first_routes_are_shown_and_they_are_one_line_each() -> None:
    route = {"requests_per_second": 1.0, "latency_ms": LATENCY}
    routes = [{"name": f"GET /v1/{'long/' * 30}{number}", **route} for number in range(50)]
    text = drawn(DOCUMENT | {"routes": routes})
    assert len(text.splitlines()) < 30
    assert all(len(line.rstrip()) <= 80 for line in text.splitlines())


@pytest.mark.parametrize(
    "changed, line",
    [
        ({"workers_wanted": 4}, "workers: 4 should run"),
        ({"degraded_workers": 2}, "degraded: 2 workers decide without Redis"),
        ({"upstream_servers_out": [{"upstream": "live", "server": "http://b:1"}]}, "upstream live: http://b:1 is out"),
        ({"mistake": "Nothing answers at 127.0.0.1:9400 (Connection refused)"}, "Nothing answers at 127.0.0.1:9400"),
        ({"keys": {"since": "2026-11-27T07:50:00Z", "mistake": None, "data": []}}, "No key was used since 2026-11-27"),
        (
            {"keys": {"since": "", "mistake": "the database does not answer", "data": []}},
            "the database does not answer",
        ),
        ({"requests_per_second": 0.0, "outcomes_per_second": {}, "routes": [], "steps": []}, "0.0 requests/s"),
    ],
)
def test_what_is_not_as_it_should_be_is_told(changed: dict[str, Any], line: str) -> None:
    assert line in drawn(DOCUMENT | changed)


def test_nothing_in_a_name_acts_on_the_terminal() -> None:
    key = DOCUMENT["keys"]["data"][0] | {"name": "\x1b[31m[bold]x"}
    text = drawn(DOCUMENT | {"keys": DOCUMENT["keys"] | {"data": [key]}}, width=200)
    assert "\x1b" not in text
    assert r"\u001b[31m[bold]x" in text


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((), "`top` needs a terminal: add --once or --json"),
        (("--once", "--management", "127.0.0.1"), "is not an address to listen on"),
    ],
)
def test_what_cannot_be_shown_is_told(invoke_bare: Invoke, arguments: tuple[str, ...], message: str) -> None:
    result = invoke_bare("top", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_without_a_management_address_the_way_out_is_told(invoke_bare: Invoke) -> None:
    Path("machpay.toml").write_text('[server]\nmanagement = ""\n')
    result = invoke_bare("top", "--once")
    assert result.exit_code == 2
    assert "add --management HOST:PORT" in result.stderr


def test_where_nothing_answers_the_way_out_is_told(invoke: Invoke) -> None:
    result = invoke("top", "--once", "--management", f"127.0.0.1:{free_port()}")
    assert result.exit_code == 1
    assert "(Connection refused): start `machpay-gateway serve`, or pass its management address" in result.stderr


def test_what_is_no_gateway_is_told(invoke: Invoke) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        answer = r"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nup 1\n"
        script = f"import socket,sys; s=socket.socket(fileno={listening.fileno()}); c,_=s.accept(); c.recv(9999); "
        script += f"c.sendall(b'{answer}')"
        other = subprocess.Popen([sys.executable, "-c", script], pass_fds=[listening.fileno()])
        result = invoke("top", "--json", "--management", f"127.0.0.1:{port}")
        other.wait(30)
    assert result.exit_code == 1
    assert f"No gateway answers at 127.0.0.1:{port}" in result.stderr


async def test_while_the_database_is_away_only_the_keys_are_missing() -> None:
    gateway = Gateway(config=os.devnull, database=f"postgresql://machpay@127.0.0.1:{free_port()}/machpay")
    try:
        message = await TopKeys(gateway, 3).document()
    finally:
        await gateway.lifecycle.close()
    assert (message["data"], message["mistake"]) == ([], "the database does not answer")


async def test_what_a_key_takes_of_its_limit_is_by_its_fullest_minute_and_the_costs_of_routes() -> None:
    minute = MINUTE.start_of(1_700_000_000)
    routes = [Route("GET /v1/x", cost=5), Route("GET /v1/y")]
    async with Gateway(config=os.devnull, database="memory://", routes=routes) as gateway:
        account = await gateway.accounts.create("acme", "standard")
        key, _ = await gateway.keys.create(account.id, name="busy", scopes=(), environment="live")
        counted = [
            (key.id, minute - 60, "GET /v1/x", "allowed", 40),
            (key.id, minute - 60, "GET /v1/y", "allowed", 50),
            (key.id, minute, "GET /v1/y", "allowed", 100),
            (key.id, minute, "GET /v1/y", "rate_limited", 70),
            ("grant_1", minute, "GET /v1/y", "allowed", 7),
        ]
        rows = [
            UsageRow(UsageKey(subject, start, route, outcome, 200), 0.0, (count, *(0,) * len(BOUNDS)))
            for subject, start, route, outcome, count in counted
        ]
        await gateway.store.add_usage(UsageBatch(rows, ()))
        busy, grant = (await TopKeys(gateway, 3, clock=lambda: minute + 30.0).document())["data"]
    assert busy == {
        "id": key.id,
        "name": "busy",
        "tier": "standard",
        "requests": 260,
        "outcomes": {"allowed": 190, "rate_limited": 70},
        "of_limit": 0.25,  # 40 of cost 5, and 50
        "tightest": None,  # without Redis, the windows are those of the process that serves
    }
    assert (grant["id"], grant["name"], grant["tier"], grant["of_limit"]) == ("grant_1", None, None, None)


# A real one.


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, str, str]]:
    """Serve, and have one key in use; yield its id and its secret."""
    # Usage is stored well before a look of three seconds ends.
    settings = "usage_seconds = 1"
    with served(tmp_path_factory.mktemp("busy"), management="127.0.0.1:0", settings=settings) as gateway:
        key, secret = gateway.key()
        for _ in range(5):
            assert status(ask(gateway, "/v1/x", f"Authorization: Bearer {secret}")) == 200
        assert status(ask(gateway, "/v1/x")) == 401
        yield gateway, key, secret


def top(gateway: Served, *arguments: str) -> list[str]:
    assert gateway.management is not None
    return [str(PROGRAM), "top", "--management", urlsplit(gateway.management).netloc, *arguments]


def test_scripts_see_what_happens_while_they_look_and_who_does_it(busy: tuple[Served, str, str]) -> None:
    gateway, key, secret = busy
    command = top(gateway, "--once", "--json", "--interval", "3")
    with subprocess.Popen(command, cwd=gateway.folder, stdout=subprocess.PIPE) as looking:
        while looking.poll() is None:
            ask(gateway, "/v1/x", f"Authorization: Bearer {secret}")
            ask(gateway, "/v1/x")
            time.sleep(0.02)
        assert looking.stdout is not None
        seen = json.loads(looking.stdout.read())
    assert looking.returncode == 0
    assert seen["workers"] == seen["workers_wanted"] == 1
    assert 0 < seen["processors"] < 2
    assert 20e6 < seen["memory_bytes"] < 500e6
    assert 0 <= seen["event_loop_lag_ms"] < 5000
    assert seen["degraded_workers"] == 0
    assert set(seen["outcomes_per_second"]) == {"allowed", "missing_credentials"}
    assert seen["requests_per_second"] > seen["refused_per_second"] > 1
    assert [flow["name"] for flow in seen["routes"]] == [ROUTE]
    assert {flow["name"] for flow in seen["steps"]} >= {"decide", "upstream"}
    assert 0 < seen["latency_ms"]["p50"] <= seen["latency_ms"]["p95"] <= seen["latency_ms"]["p99"]
    (busiest,) = seen["keys"]["data"]
    assert (busiest["id"], busiest["name"], busiest["tier"]) == (key, "test", "standard")
    assert set(busiest["outcomes"]) == {"allowed"}
    assert busiest["requests"] >= 5
    assert 0 < busiest["of_limit"] <= busiest["requests"] / 1000


def test_the_tightest_limit_of_a_key_follows_its_requests_and_its_tier(tmp_path: Path) -> None:
    tiers = """
[tiers.tiny]
rate = "50/minute"
concurrency = 5
account = { quota = "100/month" }
[tiers.huge]
rate = "90000/minute"
concurrency = 5000
"""
    with (
        running_server() as redis,
        served(tmp_path, settings=f'redis = "{redis.url}"\n{tiers}', management="127.0.0.1:0") as gateway,
    ):
        key, secret = gateway.key(tier="tiny")
        for _ in range(8):
            assert status(ask(gateway, "/v1/x", f"Authorization: Bearer {secret}")) == 200

        async def tightest() -> list[dict[str, Any]]:
            async with ConfiguredGateway(workers=0, config=tmp_path / "machpay.toml") as reading:
                busiest = TopKeys(reading, 3)
                seen = []
                while not (data := (await busiest.document())["data"]):  # noqa: ASYNC110 - another process stores it
                    await asyncio.sleep(0.1)
                seen.append(data[0]["tightest"])
                await reading.keys.update(None, key, own_tier="huge", actor=operator_actor())
                await busiest.document()
                seen.append((await busiest.document())["data"][0]["tightest"])
                return seen

        first, second = asyncio.run(tightest())
        assert (first["policy"], first["limit"], first["remaining"]) == ("minute", 50, 42)
        assert (second["policy"], second["limit"], second["remaining"]) == ("account-month", 100, 92)
        document = json.loads(subprocess.check_output(top(gateway, "--json", "--interval", "0.5"), cwd=tmp_path))
        (busiest,) = document["keys"]["data"]
        assert (busiest["tightest"]["policy"], busiest["tightest"]["remaining"]) == ("account-month", 92)
        text = subprocess.check_output(top(gateway, "--once", "--interval", "0.5"), cwd=tmp_path, text=True)
        assert "account-month 92 (92%)" in text


def test_people_see_it_on_a_terminal_of_80_columns_until_they_interrupt_it(busy: tuple[Served, str, str]) -> None:
    gateway, key, _ = busy
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    screen = b""

    def shows(text: bytes) -> bool:
        nonlocal screen
        if select.select([ours], [], [], 0.1)[0]:
            screen += os.read(ours, 65_536)
        return text in screen

    try:
        environ = os.environ | {"TERM": "xterm-256color", "NO_COLOR": "1"}
        command = top(gateway, "--interval", "0.2")
        with subprocess.Popen(command, cwd=gateway.folder, env=environ, stdout=theirs, stdin=theirs) as looking:
            until(lambda: shows(key[:12].encode()))
            gateway.supervisor.send_signal(signal.SIGHUP)  # its worker is replaced, and it looks on
            until(lambda: "are reloaded" in gateway.log)
            looking.send_signal(signal.SIGINT)
            until(lambda: shows(b"\x1b[?1049l") and looking.poll() is not None)  # the screen is given back
        assert looking.returncode == 130
        until(lambda: len(gateway.workers()) == 1)
    finally:
        os.close(ours)
        os.close(theirs)
    assert b"requests/s" in screen
    assert b"Traceback" not in screen
