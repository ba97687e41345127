"""Each row of the table of failures, with figures: two hosts with two workers each, callers who do not wait.

The table is printed, and written to `FAILURE_FIGURES`, by default `build/failures.md`.
"""

import asyncio
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple
from math import isinf
from pathlib import Path

import pytest

from tests.drills.deployment import Deployment, running_deployment
from tests.drills.failures import FAILURES, SIGN_SECONDS, Failure
from tests.drills.load import HOST, read_answer, request_for
from tests.drills.open_loop import running_rate
from tests.drills.signs import Delays, Watch, delays_of
from tests.drills.traffic import PER_SECOND, Figures, Times, figures_of, schedule
from tests.drills.workers import ROOT

PATH = "/v1/x"
BEFORE_SECONDS, SHORT_SECONDS, AFTER_SECONDS = 6.0, 10.0, 12.0
_CONNECTIONS = 16  # of each host
_WARM_SECONDS = 30.0
_HEAD = (
    "| what fails | served during, after | p99 | recovered | over a limit | wrong | readyz | metric | log | doctor |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    rows: list[str] = []
    yield rows
    text = "\n".join([_HEAD, *rows]) + "\n"
    print(f"\n{text}")
    path = Path(os.environ.get("FAILURE_FIGURES", ROOT / "build" / "failures.md"))
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


@pytest.mark.drill
@pytest.mark.timeout(180)
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
def test_callers_are_served_and_operators_are_informed(failure: Failure, table: list[str], tmp_path: Path) -> None:
    figures, delays = measured(failure, tmp_path)
    table.append(row(failure, figures, delays))
    print(f"\n{table[-1]}\n{dict(figures.statuses)}")
    assert not figures.wrong
    assert figures.over <= failure.over
    assert figures.served_during >= failure.served
    assert figures.recovered <= failure.recovered
    assert [seconds for seconds in astuple(delays) if seconds is not None and seconds > SIGN_SECONDS] == []


def measured(failure: Failure, folder: Path) -> tuple[Figures, Delays]:
    """Let *failure* happen under load, and return what callers and operators saw of it."""
    seconds = BEFORE_SECONDS + max(failure.seconds, SHORT_SECONDS) + AFTER_SECONDS
    with running_deployment(folder, failure.needs) as deployment:
        failure.prepare(deployment)
        asyncio.run(warm(deployment))
        calls = schedule(deployment, seconds)
        secrets = [secret for _, secret in calls]
        with (
            running_rate(
                folder, deployment.ports, secrets, PER_SECOND, seconds, path=PATH, connections=_CONNECTIONS
            ) as rate,
            watching(deployment, failure) as watches,
        ):
            watched_at = time.monotonic()
            time.sleep(BEFORE_SECONDS)
            began_at = time.monotonic()
            with failure.fault(deployment):
                for watch in watches:
                    watch.failed.set()
                time.sleep(failure.seconds)
            healed_at = time.monotonic()
            outcomes = asyncio.run(rate.outcomes())
    times = Times(began_at, healed_at, max(healed_at, began_at + SHORT_SECONDS))
    figures = figures_of(calls, outcomes, times, windows=failure.windows)
    ready = max(watch.ready_after(healed_at) for watch in watches)
    return figures.recovered_with(ready), delays_of(
        failure.signs, watches, watched_at if failure.is_there_first else began_at
    )


async def warm(deployment: Deployment) -> None:
    """Let all workers see all credentials in use: over many connections, which are of any worker.

    On a busy machine, a look-up of a worker that has just started may take too long.
    """
    deadline = time.monotonic() + _WARM_SECONDS

    async def send(port: int) -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            for secret in (*deployment.good, *deployment.limited):
                status = 503
                while status not in {200, 429}:
                    assert time.monotonic() < deadline, f"the gateway does not serve, with status {status}"
                    writer.write(request_for(PATH, secret))
                    status, _ = await read_answer(reader)
        finally:
            writer.close()
            await writer.wait_closed()

    for _ in range(2):
        async with asyncio.TaskGroup() as tasks:
            for port in deployment.ports * 6:
                tasks.create_task(send(port))


@contextmanager
def watching(deployment: Deployment, failure: Failure) -> Iterator[Sequence[Watch]]:
    """Look at both hosts inside the block."""
    with ExitStack() as stack:
        watches = [Watch(host, failure.is_there_first) for host in deployment.hosts]
        work = [watch.poll for watch in watches]
        if failure.signs.doctor:
            work.append(watches[failure.signs.hosts[-1]].consult)
        for target in work:
            thread = threading.Thread(target=target)
            thread.start()
            stack.callback(thread.join)
        for watch in watches:
            stack.callback(watch.end)
        yield watches


def row(failure: Failure, figures: Figures, delays: Delays) -> str:
    """Return the row of the table."""
    wrong = ", ".join(f"{count} {name}" for name, count in figures.wrong.items()) or "0"
    served = f"{figures.served_during:.2%}, {figures.served_after:.2%}"
    cells = [failure.name, served, f"{figures.p99 * 1000:.0f} ms", in_seconds(figures.recovered), figures.over, wrong]
    return f"| {' | '.join(map(str, [*cells, *map(in_seconds, astuple(delays))]))} |"


def in_seconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return "never" if isinf(seconds) else f"{seconds:.1f} s"
