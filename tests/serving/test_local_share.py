"""The local share over all processes of a host: never more than the limit in a window, whatever happens to workers."""

import asyncio
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from machpay_gateway import Tier
from tests.drills.workers import Fleet, running_workers
from tests.prepared import new_sqlite
from tests.redises.ports import HOST, free_port
from tests.redises.servers import running_server
from tests.serving import processes
from tests.serving.processes import Served, served
from tests.serving.test_lifecycle import until
from tests.serving.test_replacing import hang_up

_LIMIT = re.compile(rb'ratelimit-policy: "minute";q=(\d+)', re.IGNORECASE)


@contextmanager
def gateway_of(
    folder: Path, *, workers: int, limit: int, redis: str | None = None, tier: str = "", settings: str = ""
) -> Iterator[Served]:
    """Serve with *workers*, without a Redis that answers unless one is given."""
    url = redis or f"redis://{HOST}:{free_port()}/0"
    limits = f'[tiers.standard]\nrate = "{limit}/minute"\nconcurrency = 1000\n{tier}'
    with served(folder, settings=f'redis = "{url}"\n{settings}\n{limits}[server]\nworkers = {workers}\n') as gateway:
        yield gateway


async def _ask(port: int, secret: str, path: str) -> tuple[int, int]:
    """Return the status of a request on a connection of its own, and the limit that the response tells."""
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {secret}\r\n\r\n".encode())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.close()
    limit = _LIMIT.search(head)
    return int(head.split()[1]), int(limit[1]) if limit else 0


def ask(ports: list[int], secret: str, *, requests: int = 400, path: str = "/v1/x") -> tuple[int, set[int]]:
    """Send *requests*, by turns to *ports*, and return how many were admitted and the limits that were told."""

    async def ask_all() -> list[tuple[int, int]]:
        answers = []
        for _ in range(requests // 50):
            answers += await asyncio.gather(*(_ask(ports[it % len(ports)], secret, path) for it in range(50)))
        return answers

    answers = asyncio.run(ask_all())
    assert {status for status, _ in answers} <= {200, 429}
    return sum(status == 200 for status, _ in answers), {limit for _, limit in answers}


def until_divided(ports: list[int], secret: str, limit: int, *, path: str = "/v1/x") -> None:
    """Wait until each worker tells the same *limit*, by requests with a *secret* that the test does not count."""
    until(lambda: ask(ports, secret, requests=100, path=path)[1] == {limit})


def test_workers_that_start_while_redis_is_away_have_each_their_part(tmp_path: Path) -> None:
    with gateway_of(tmp_path, workers=4, limit=100) as gateway:
        assert ask([gateway.port], gateway.secret(), requests=800) == (100, {25})


def test_a_worker_that_is_killed_and_started_again_admits_nothing_more(tmp_path: Path) -> None:
    with gateway_of(tmp_path, workers=2, limit=20) as gateway:
        secret, before = gateway.secret(), set(gateway.workers())
        assert ask([gateway.port], secret)[0] == 20
        os.kill(min(before), signal.SIGKILL)
        until(lambda: gateway.log.count("MachPay is open") == 3)
        until_divided([gateway.port], gateway.secret(), 10)
        assert ask([gateway.port], secret)[0] == 0


@pytest.mark.parametrize("used", [0, 20])
def test_workers_that_replace_others_go_on_with_their_parts(tmp_path: Path, used: int) -> None:
    with gateway_of(tmp_path, workers=2, limit=20) as gateway:
        secret, before = gateway.secret(), set(gateway.workers())
        if used:
            assert ask([gateway.port], secret)[0] == used
        until(hang_up(gateway))
        until(lambda: not before & set(gateway.workers()))
        until_divided([gateway.port], gateway.secret(), 10)
        assert ask([gateway.port], secret) == (20 - used, {10})


def test_keys_of_an_account_have_its_limit_over_all_workers(tmp_path: Path) -> None:
    tier = 'account = { rate = "20/minute" }\n'
    with gateway_of(tmp_path, workers=2, limit=1000, tier=tier) as gateway:
        secrets, before = [gateway.secret(), gateway.secret()], set(gateway.workers())
        assert sum(ask([gateway.port], secret, requests=200)[0] for secret in secrets) == 20
        until(hang_up(gateway))
        until(lambda: not before & set(gateway.workers()))
        assert sum(ask([gateway.port], secret, requests=200)[0] for secret in secrets) == 0


def test_a_gateway_that_is_stopped_and_started_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gateway_of(tmp_path, workers=2, limit=20) as gateway:
        secret = gateway.secret()
        assert ask([gateway.port], secret)[0] == 20
    monkeypatch.setattr(processes, "new_sqlite", lambda path: f"sqlite:///{path}")  # with what is there
    with gateway_of(tmp_path, workers=2, limit=20) as gateway:
        assert ask([gateway.port], secret)[0] == 0


def test_a_redis_that_goes_away_right_after_the_start_leaves_each_its_part(tmp_path: Path) -> None:
    with running_server() as redis, gateway_of(tmp_path, workers=2, limit=20, redis=redis.url) as gateway:
        secret = gateway.secret()
        redis.kill()
        until(lambda: "does not answer" in gateway.log)
        assert ask([gateway.port], secret) == (20, {10})


def test_what_a_replaced_worker_admitted_counts_once_redis_is_back(tmp_path: Path) -> None:
    with running_server() as redis, gateway_of(tmp_path, workers=2, limit=20, redis=redis.url) as gateway:
        secret, before = gateway.secret(), set(gateway.workers())
        redis.kill()
        assert ask([gateway.port], secret)[0] == 20
        until(hang_up(gateway))
        until(lambda: not before & set(gateway.workers()))
        until_divided([gateway.port], gateway.secret(), 10)
        redis.restart()
        until(lambda: gateway.log.count("answers again") == 2)
        told = {10}
        while told != {20}:  # until the server alone decides
            admitted, told = ask([gateway.port], secret)
            assert admitted == 0


@contextmanager
def applications(workers: int) -> Iterator[tuple[Fleet, str, str]]:
    """Run *workers* processes of an application without Redis, and yield them with two keys of 20 requests a minute."""
    tier = Tier("20/minute", 1000)
    with running_workers(workers, f"redis://{HOST}:{free_port()}/0", {"standard": tier}) as fleet:
        (_, secret), (_, another) = asyncio.run(fleet.keys(2))
        yield fleet, secret, another


def test_processes_of_an_application_divide_the_limit() -> None:
    with applications(2) as (fleet, secret, another):
        until_divided(fleet.ports, another, 10, path="/quick")
        assert ask(fleet.ports, secret, path="/quick") == (20, {10})
        fleet.workers[0].restart()
        assert ask(fleet.ports, secret, path="/quick")[0] == 0


def test_a_process_that_stops_leaves_its_part_to_the_next() -> None:
    with applications(2) as (fleet, secret, another):
        until_divided(fleet.ports, another, 10, path="/quick")
        assert ask(fleet.ports[:1], secret, path="/quick")[0] == 10
        for worker in fleet.workers:
            worker.stop()
        for worker in fleet.workers:
            worker.restart()
        until_divided(fleet.ports, another, 10, path="/quick")
        assert ask(fleet.ports, secret, path="/quick")[0] == 10


def test_the_workers_of_uvicorn_divide_the_limit() -> None:
    with applications(1) as (fleet, secret, another):
        fleet.workers[0].stop()
        port = free_port()
        command = [
            sys.executable,
            "-m",
            "uvicorn",
            "tests.drills.application:app",
            "--workers",
            "4",
            "--port",
            str(port),
        ]
        environment = fleet.workers[0]._environment  # noqa: SLF001 - of the same fleet
        with (fleet.folder / "uvicorn.log").open("wb") as log:
            uvicorn = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            until(lambda: (fleet.folder / "uvicorn.log").read_text().count("Application startup complete") == 4)
            until_divided([port], another, 5, path="/quick")
            assert ask([port], secret, path="/quick", requests=800) == (20, {5})
        finally:
            uvicorn.terminate()
            uvicorn.wait(30)


@contextmanager
def hosts(folder: Path, number: int, settings: str) -> Iterator[tuple[list[Served], str]]:
    """Serve on *number* hosts that know nothing of each other, and yield them with a key that all of them have."""
    with ExitStack() as stack:
        gateways: list[Served] = []
        secret, first = "", folder / "0"
        for place in [folder / str(it) for it in range(number)]:
            place.mkdir()
            if gateways:
                with (
                    closing(sqlite3.connect(first / "machpay.db")) as source,
                    closing(sqlite3.connect(place / "machpay.db")) as target,
                ):
                    source.backup(target)
            gateways.append(stack.enter_context(gateway_of(place, workers=1, limit=100, settings=settings)))
            if len(gateways) == 1:
                secret = gateways[0].secret()
        yield gateways, secret


@pytest.mark.parametrize("settings, most", [("", 400), ("expected_workers = 4", 100), ("expected_workers = 8", 48)])
def test_hosts_that_start_without_redis_admit_the_part_of_the_expected_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str, most: int
) -> None:
    monkeypatch.setattr(
        processes, "new_sqlite", lambda path: f"sqlite:///{path}" if path.exists() else new_sqlite(path)
    )
    with hosts(tmp_path, 4, settings) as (gateways, secret):
        admitted, _ = ask([gateway.port for gateway in gateways], secret, requests=600)
        assert admitted == most
        if settings:
            (worker,) = gateways[0].workers()
            os.kill(worker, signal.SIGKILL)
            until(lambda: gateways[0].log.count("MachPay is open") == 2)
            assert ask([gateways[0].port], secret, requests=100)[0] == 0
