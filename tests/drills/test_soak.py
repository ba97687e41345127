"""Faults of every kind, one after the other, chosen at random: nobody gets a wrong answer, and nothing leaks.

`SOAK_SECONDS` and `SOAK_SEED` repeat a run.
"""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from secrets import randbits

import pytest

from tests.drills.databases import FAULTS, MUCH
from tests.drills.open_loop import Outcome, running_rate
from tests.drills.workers import Fleet, Worker, resident_megabytes, running_workers
from tests.postgres.fixtures import migrate
from tests.postgres.servers import Server as Postgres
from tests.postgres.servers import running_server as running_postgres
from tests.redises.servers import Server as Redis
from tests.redises.servers import running_server

SECONDS = float(os.environ.get("SOAK_SECONDS", "900"))
SEED = int(os.environ.get("SOAK_SEED", randbits(32)))
EVERY_SECONDS, FAULT_SECONDS = 30.0, 8.0
_WORKERS, _KEYS, _PER_SECOND = 4, 100, 150
_USER = "gateway"
_HOLDS_SECONDS = 1.5  # after which a revocation holds without Redis
_MOST_GROWTH = 1.3  # of memory, from the first quarter on


@dataclass
class Run:
    """What a fault may touch. *revoked_at* has the moments of revocations, by secret."""

    fleet: Fleet
    postgres: Postgres
    redis: Redis
    random: random.Random
    revoked_at: dict[str, float] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)  # ids, by secret

    @property
    def worker(self) -> Worker:
        return self.random.choice(self.fleet.workers)


async def kill_worker(run: Run) -> None:
    run.worker.restart()


async def freeze_worker(run: Run) -> None:
    worker = run.worker
    worker.freeze()
    await asyncio.sleep(FAULT_SECONDS)
    worker.thaw()


async def kill_redis(run: Run) -> None:
    run.redis.kill()
    await asyncio.sleep(FAULT_SECONDS)
    run.redis.start()


async def freeze_redis(run: Run) -> None:
    with run.redis.frozen():
        await asyncio.sleep(FAULT_SECONDS)


async def flush_redis(run: Run) -> None:
    run.redis.flush()


async def take_a_right(run: Run) -> None:
    run.redis.command("ACL", "SETUSER", _USER, "-evalsha")
    await asyncio.sleep(FAULT_SECONDS)
    run.redis.command("ACL", "SETUSER", _USER, "+evalsha")


async def kill_connections(run: Run) -> None:
    run.redis.command("CLIENT", "KILL", "TYPE", "normal")


async def revoke_a_key(run: Run) -> None:
    secret, key_id = run.random.choice(sorted((s, k) for s, k in run.keys.items() if s not in run.revoked_at))
    async with run.fleet.gateway() as gateway:
        await gateway.keys.revoke(None, key_id)
    run.revoked_at[secret] = time.monotonic()


async def change_the_tier(run: Run) -> None:
    async with run.fleet.gateway() as gateway:
        await gateway.accounts.set_tier("standard", run.random.choice(["standard", "enterprise"]))


def of_the_database(name: str) -> Callable[[Run], Awaitable[None]]:
    async def fault(run: Run) -> None:
        with FAULTS[name](run.postgres):
            await asyncio.sleep(FAULT_SECONDS)

    return fault


KINDS: Mapping[str, Callable[[Run], Awaitable[None]]] = {
    "a worker is killed": kill_worker,
    "a worker stops for a while": freeze_worker,
    "Redis is killed and back": kill_redis,
    "Redis stops for a while": freeze_redis,
    "Redis forgets": flush_redis,
    "Redis refuses": take_a_right,
    "connections to Redis end": kill_connections,
    "a key is revoked": revoke_a_key,
    "a tier changes": change_the_tier,
    "the keys are locked": of_the_database("locked"),
    "the database stops for a while": of_the_database("frozen"),
    "the database is killed and back": of_the_database("away"),
}


@pytest.mark.drill
@pytest.mark.timeout(SECONDS + 180)
async def test_nobody_gets_a_wrong_answer_whatever_happens() -> None:
    print(f"\nsoak: seed {SEED}, {SECONDS:.0f} s")
    async with AsyncExitStack() as stack:
        postgres = stack.enter_context(running_postgres())
        redis = stack.enter_context(running_server(users={_USER: ()}))
        url = postgres.make_database("fleet")
        await migrate(url)
        workers = running_workers(_WORKERS, redis.url_for(_USER), MUCH, database=url, settings={"trust_seconds": "60"})
        fleet = stack.enter_context(workers)
        run = Run(fleet, postgres, redis, random.Random(SEED))  # noqa: S311 - a run that can be repeated
        run.keys = {secret: key_id for key_id, secret in await fleet.keys(_KEYS)}
        rate = stack.enter_context(running_rate(fleet.folder, fleet.ports, list(run.keys), _PER_SECOND, SECONDS))
        used = await carry_out(run)
        outcomes = await rate.outcomes()
    wrong = [outcome for outcome in outcomes if is_wrong(outcome, list(run.keys), run.revoked_at)]
    statuses = dict(Counter(outcome.status for outcome in outcomes))
    print(f"soak: {len(outcomes)} requests, {statuses}; wrong: {wrong[:5]}; resident MB and descriptors:\n{used}")
    assert not wrong
    quarter = len(used) // 4
    for number in range(_WORKERS):
        megabytes = [row[number][0] for row in used]
        assert megabytes[-1] < _MOST_GROWTH * max(megabytes[: quarter + 1])


async def carry_out(run: Run) -> list[list[tuple[int, int]]]:
    """Let something happen every 30 s; return what each worker used before each fault."""
    ends_at, used = time.monotonic() + SECONDS - EVERY_SECONDS, []
    while time.monotonic() < ends_at:
        used.append([usage_of(worker.process.pid) for worker in run.fleet.workers])
        name = run.random.choice(list(KINDS))
        print(f"soak: {name}")
        began_at = time.monotonic()
        await KINDS[name](run)
        await asyncio.sleep(max(0.0, EVERY_SECONDS - (time.monotonic() - began_at)))
    return used


def is_wrong(outcome: Outcome, secrets: list[str], revoked_at: Mapping[str, float]) -> bool:
    """Return whether the request got a 500, a good credential a 401, or a bad one a 200."""
    revoked = revoked_at.get(secrets[outcome.number])
    if outcome.status == 200:
        return revoked is not None and outcome.due > revoked + _HOLDS_SECONDS
    if outcome.status == 401:
        return revoked is None or outcome.came < revoked - _HOLDS_SECONDS
    return outcome.status == 500


def usage_of(process: int) -> tuple[int, int]:
    """Return the resident megabytes and the open descriptors of *process*."""
    return resident_megabytes(process), len(list(Path(f"/proc/{process}/fd").iterdir()))
