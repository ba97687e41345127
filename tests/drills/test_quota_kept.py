"""A quota outlasts Redis and workers: what a month admits is its quota, and at most the last second of each crash."""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest

from machpay_gateway import Tier
from tests.drills.load import LOST, NOT_CONNECTED, PATIENCE_SECONDS, Answer, Plan
from tests.drills.loads import READY_SECONDS, notes_in, print_row, running_loads
from tests.drills.workers import Fleet, running_workers
from tests.postgres.fixtures import postgres_server, postgres_url
from tests.redises.servers import Server, running_server

__all__ = ["postgres_server", "postgres_url"]
WORKERS, KEYS = 4, 4
QUOTA = 2400  # of an account: reached by two thirds of each half
TIER = Tier("1000000/minute", 50, account={"quota": f"{QUOTA}/month"})
CRASHES = ["flush"] * 3 + ["kill Redis"] * 3 + ["kill a worker"] * 4
HALF_SECONDS = 32.0  # until the month ends, and then again
CRASH_SECONDS = 5.0  # from one crash to the next
DOWN_SECONDS = 0.5
START_SECONDS = 30.0  # for the workers, the keys and the load
LOST_SECONDS = 1.25  # a second, and what a batch may take from then until its commit on a busy machine


class Crash(NamedTuple):
    """What was lost, between two moments; *port* is that of a worker, 0 when all of them are concerned."""

    kind: str
    before: float
    after: float
    port: int


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return ""
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.mark.drill
@pytest.mark.timeout(180)
async def test_a_month_admits_its_quota_and_at_most_the_last_second_of_each_crash(database: str) -> None:
    ahead_seconds, month_ends_at = _clock(time.monotonic() + START_SECONDS + HALF_SECONDS)
    began_at, ends_at = month_ends_at - HALF_SECONDS, month_ends_at + HALF_SECONDS
    with (
        running_server() as server,
        running_workers(
            WORKERS, server.url, {"standard": TIER}, database=database, ahead_seconds=ahead_seconds
        ) as fleet,
    ):
        by_port, crashes = await _answers(fleet, server, began_at)
        fleet.check_logs()
    every = [answer for answers in by_port.values() for answer in answers]
    print_row(f"{len(crashes)} crashes in two months", every, ", ".join(crash.kind for crash in crashes))
    months = [
        _read(by_port, crashes, began_at - READY_SECONDS, month_ends_at),
        _read(by_port, crashes, month_ends_at, ends_at + PATIENCE_SECONDS),
    ]
    for month in months:
        print(
            f"{len(month.crashes)} crashes in a month: {month.admitted} to {month.admitted + month.unsure} of {QUOTA} "
            f"admitted, {month.lost} of them in the last second before a crash"
        )
    assert {answer.status for answer in every} <= {200, 429, LOST, NOT_CONNECTED}
    assert sum(len(month.crashes) for month in months) == len(CRASHES)
    for month in months:
        assert month.admitted <= QUOTA + month.lost
        assert month.admitted >= 0.98 * QUOTA, "the load has not reached the quota, or units count twice"


def _clock(ends_at: float) -> tuple[int, float]:
    """Return by how many seconds the clock is to be ahead for the month to end at *ends_at*, and when it ends then."""
    since = time.time() - time.monotonic()
    end = datetime.fromtimestamp(since + ends_at, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = (end + timedelta(days=32)).replace(day=1).timestamp()
    ahead_seconds = int(following - since - ends_at)
    return ahead_seconds, following - since - ahead_seconds


class Month(NamedTuple):
    """What became of the quota in one month: *admitted* for sure, and *unsure* for whom nobody can tell, or when.

    Of all of these, *lost* may be units that were admitted in the last second before one of its *crashes*.
    """

    admitted: int
    unsure: int
    lost: int
    crashes: Sequence[Crash]


def _read(by_port: Mapping[int, Sequence[Answer]], crashes: Sequence[Crash], begins_at: float, ends_at: float) -> Month:
    taken = [(port, answer) for port, answers in by_port.items() for answer in answers if answer.status in {200, LOST}]
    surely = {
        pair for pair in taken if pair[1].status == 200 and begins_at <= pair[1].sent and pair[1].entered < ends_at
    }
    perhaps = {pair for pair in taken if pair[1].came >= begins_at and pair[1].sent < ends_at}
    within = [crash for crash in crashes if begins_at <= crash.before < ends_at]
    lost = [
        sum(
            crash.port in {0, port} and answer.came >= crash.before - LOST_SECONDS and answer.sent < crash.after
            for port, answer in perhaps
        )
        for crash in within
    ]
    return Month(len(surely), len(perhaps - surely), sum(lost), within)


async def _answers(fleet: Fleet, server: Server, began_at: float) -> tuple[dict[int, list[Answer]], list[Crash]]:
    """Let each worker be asked by a process of its own while all crashes happen; return its answers by its port."""
    secrets = [secret for _, secret in await fleet.keys(KEYS)]
    plans = [
        Plan(
            ports=[port],
            path="/quick",
            secrets=secrets,
            notes=notes_in(fleet),
            connections=KEYS,
            starts_at=began_at,
            ends_at=began_at + 2 * HALF_SECONDS,
            pause_seconds=0.1,
            refused_pause_seconds=0.2,
        )
        for port in fleet.ports
    ]
    assert time.monotonic() < began_at - READY_SECONDS, "the workers have started too slowly"
    with running_loads(plans, fleet.folder) as loads:
        crashes = []
        for number, kind in enumerate(random.sample(CRASHES, len(CRASHES))):
            half, turn = divmod(number, len(CRASHES) // 2)
            due = began_at + half * HALF_SECONDS + 1.0 + turn * CRASH_SECONDS + random.random()  # noqa: S311 - spreads
            await asyncio.sleep(due - time.monotonic())
            crashes.append(await asyncio.to_thread(_crash, kind, fleet, server))
        return {load.plan.ports[0]: await asyncio.to_thread(load.answers) for load in loads}, crashes


def _crash(kind: str, fleet: Fleet, server: Server) -> Crash:
    """Let something crash, and return when it is back."""
    worker = random.choice(fleet.workers)  # noqa: S311 - any
    before = time.monotonic()
    if kind == "flush":
        server.command("FLUSHALL")
        return Crash(kind, before, time.monotonic(), 0)
    if kind == "kill Redis":
        server.kill()
        after = time.monotonic()
        time.sleep(DOWN_SECONDS)
        server.start()
        return Crash(kind, before, after, 0)
    worker.kill()
    after = time.monotonic()
    worker.restart()
    return Crash(kind, before, after, worker.port)
