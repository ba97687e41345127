"""How commands should travel to Redis: the limiter's own batches over each of three ways, in one run.

`python -m benchmarks.transports`. A pool takes a connection for each batch; a held connection is shared by all batches,
through redis-py's calls; the limiter's connection is shared too, and writes to its transport itself.
"""

import asyncio
import gc
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import uvloop
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import Connection
from redis.exceptions import ResponseError
from rich.console import Console
from rich.table import Table

from benchmarks.processes import SERVER_CORE, redis_server
from machpay_gateway.core.limits.admission import AdmissionRequest, Admitted, Answer
from machpay_gateway.core.limits.plan import tier_plan
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.limiters.redis.batcher import Batcher
from machpay_gateway.limiters.redis.connection import RedisCall, Reply, ServerConnection
from machpay_gateway.limiters.redis.scripts import Scripts
from machpay_gateway.limiters.redis.shards import HashSlot, Shard
from machpay_gateway.limiters.redis.subject import Step, Subject, SubjectSet

SHAPES = ((64, 64), (64, 1), (16, 16), (1, 1))  # callers, keys
_DECISIONS = 20_000
_TIER = Tier("900000000/minute", 500)


class _Endless:
    """The half of a pipelined connection that this run does not use."""

    is_cluster = False

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def fail(self, reason: Exception) -> None:
        raise reason

    async def wait_lost(self) -> Exception:
        raise NotImplementedError

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class PooledConnection(_Endless):
    """A connection of redis-py's pool for each call."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._pool = ConnectionPool(port=port, protocol=2)

    def send(self, calls: Sequence[RedisCall]) -> None:
        """Send *calls*, each by itself."""
        for call in calls:
            self._spawn(self._sent(call))

    async def _sent(self, call: RedisCall) -> None:
        connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]  # redis-py's own
        try:
            await connection.send_packed_command([call.encoded], check_health=False)
            reply = await connection.read_response()
        except ResponseError as exc:
            reply = exc
        finally:
            await self._pool.release(connection)
        call.on_reply(reply)

    async def close(self) -> None:
        """Close the pool."""
        await self._pool.aclose()


class HeldConnection(_Endless):
    """One connection for all calls, by redis-py's own calls."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._connection = Connection(port=port, protocol=2, socket_timeout=None)
        self._expected: deque[Callable[[Reply], None]] = deque()

    async def open(self) -> None:
        """Connect."""
        await self._connection.connect()  # type: ignore[no-untyped-call]  # redis-py's own
        self._spawn(self._read())

    def send(self, calls: Sequence[RedisCall]) -> None:
        """Send *calls*, in order."""
        self._expected.extend(call.on_reply for call in calls)
        written = [call.encoded for call in calls]
        self._spawn(self._connection.send_packed_command(written, check_health=False))

    async def _read(self) -> None:
        while True:
            try:
                reply = await self._connection.read_response(timeout=float("inf"))
            except ResponseError as exc:
                reply = exc
            self._expected.popleft()(reply)

    async def close(self) -> None:
        """Close the connection."""
        for task in self._tasks:
            task.cancel()
        await self._connection.disconnect(nowait=True)


async def _own(port: int) -> ServerConnection:
    return await ServerConnection.connect(Connection(port=port, protocol=2, socket_timeout=None))


async def _pool(port: int) -> PooledConnection:
    return PooledConnection(port)


async def _held(port: int) -> HeldConnection:
    connection = HeldConnection(port)
    await connection.open()
    return connection


WAYS = {"redis-py's pool": _pool, "a held connection": _held, "the limiter's connection": _own}


async def microseconds_per_decision(way: Callable[[int], Any], port: int, callers: int, keys: int) -> float:
    """Return this process' CPU time for one decision and its release."""
    connection = await way(port)
    batcher = Batcher(
        Scripts(),
        "worker",
        clock=time.monotonic,
        wall_clock=time.time,
        decide_locally=_never,
        seed=_never_seed,
        batches=Counter(),
    )
    batcher.attach(connection)
    shard = Shard()
    shard.batcher, shard.supervisor = batcher, None  # type: ignore[assignment]  # which no batcher uses
    slot = HashSlot(shard)
    subjects = [
        Subject(
            str(number),
            b"transport:%d" % number,
            AdmissionRequest(str(number), 1, tier_plan(_TIER), 1),
            slot=slot,
            count_quotas=_never_count,
        )
        for number in range(keys)
    ]
    sets = {subject: SubjectSet((subject,), subject.request) for subject in subjects}
    loop = asyncio.get_running_loop()

    async def call(subject: Subject, times: int) -> None:
        for _ in range(times):
            future: asyncio.Future[Answer] = loop.create_future()
            sets[subject].wait_for_answer(subject.request, future)
            batcher.submit(subject)
            answer = await future
            assert isinstance(answer, Admitted)
            answer.lease.release()
            await asyncio.sleep(0)

    async def all_callers(decisions: int) -> None:
        await asyncio.gather(*(call(subjects[n % keys], decisions // callers) for n in range(callers)))

    await all_callers(max(callers, _DECISIONS // 10))
    gc.collect()
    began = time.process_time()
    await all_callers(_DECISIONS)
    taken = (time.process_time() - began) / _DECISIONS * 1e6
    await batcher.drain()
    await connection.close()
    return taken


def _never(_subjects: SubjectSet, _request: AdmissionRequest) -> Answer:
    raise AssertionError("the server did not answer")


def _never_seed(_step: Step) -> None:
    raise AssertionError("no quota lacks a count")


def _never_count(_subject: str, _units: int) -> None:
    raise AssertionError("there is no quota to count for")


def main() -> None:
    """Print a table of all ways and shapes."""
    os.sched_setaffinity(0, {SERVER_CORE})
    table = Table(title="this process' CPU for one decision and its release, best of 3, in µs")
    table.add_column("way", no_wrap=True)
    for callers, keys in SHAPES:
        table.add_column(f"{callers} callers, {keys} keys", justify="right")
    with redis_server() as (_, client):
        port = int(client.get_connection_kwargs()["port"])
        taken: dict[tuple[str, tuple[int, int]], list[float]] = {}
        for _ in range(3):
            for name, way in WAYS.items():
                for shape in SHAPES:
                    measured = uvloop.run(microseconds_per_decision(way, port, *shape))
                    taken.setdefault((name, shape), []).append(measured)
    for name in WAYS:
        table.add_row(name, *(f"{min(taken[name, shape]):.1f}" for shape in SHAPES))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
