"""The limiters that the contract holds for, each opened with a fixed clock, and what each must show afterwards.

A server's clock is set by writing it into the script: the one line that reads the time is replaced.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from secrets import token_hex
from threading import Thread

from fakeredis import TcpFakeServer
from fakeredis._clients._tcp_server import TCPFakeRequestHandler
from redis import Redis
from redis.exceptions import ResponseError

from machpay_gateway.core.limits.admission import (
    AdmissionRequest,
    Admitted,
    Answer,
    Exceeded,
    LimiterUnavailable,
    Remaining,
    Stale,
)
from machpay_gateway.core.limits.ports import Limiter
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.limiters.memory import MemoryLimiter
from machpay_gateway.limiters.redis import RedisLimiter
from machpay_gateway.limiters.redis.scripts import Script, Scripts
from tests.clocks import FixedClock

START = 6000.0
_TIME = "redis.call('TIME')"


@dataclass(frozen=True)
class Harness:
    """An open limiter, its clock, and the subjects that it was called for."""

    limiter: Limiter
    clock: FixedClock
    subjects: set[str] = field(default_factory=set)

    async def admit(self, tier: Tier, *, cost: int = 1, version: int = 1, subject: str = "key_1") -> Answer:
        self.subjects.add(subject)
        answer = self.limiter.admit(AdmissionRequest(subject, version, tier, cost))
        return await answer if isinstance(answer, Awaitable) else answer

    async def take(self, tier: Tier, *, cost: int = 1, version: int = 1, subject: str = "key_1") -> Admitted:
        answer = await self.admit(tier, cost=cost, version=version, subject=subject)
        assert isinstance(answer, Admitted), answer
        return answer

    async def refusal(self, tier: Tier, *, cost: int = 1, version: int = 1, subject: str = "key_1") -> Exceeded:
        answer = await self.admit(tier, cost=cost, version=version, subject=subject)
        assert isinstance(answer, Exceeded), answer
        return answer

    async def remaining(
        self, tier: Tier, *, version: int = 1, subject: str = "key_1"
    ) -> Remaining | Stale | LimiterUnavailable:
        self.subjects.add(subject)
        return await self.limiter.remaining(AdmissionRequest(subject, version, tier, 1))

    async def left(self, tier: Tier, *, version: int = 1, subject: str = "key_1") -> tuple[int, int]:
        """Return the units and the slots that the subject has left."""
        remaining = await self.remaining(tier, version=version, subject=subject)
        assert isinstance(remaining, Remaining), remaining
        assert remaining.tier is tier
        return remaining.left, remaining.slots_left

    async def invalidate(self, version: int, *, subject: str = "key_1") -> None:
        self.subjects.add(subject)
        await self.limiter.invalidate(subject, version)

    async def use_up(self, tier: Tier, units: int) -> None:
        """Take *units*, one at a time, and give each slot back."""
        for _ in range(units):
            (await self.take(tier)).lease.release()


OpenLimiter = Callable[[], AbstractAsyncContextManager[Harness]]


class ScriptsAt(Scripts):
    """The scripts on a server whose clock is *clock*."""

    def __init__(self, clock: FixedClock) -> None:
        super().__init__()
        self._clock = clock

    @property
    def admit(self) -> Script:
        return _admit_at(self._clock.now)


@cache
def _admit_at(now: float) -> Script:
    source = Scripts().admit.source
    assert source.count(_TIME) == 1
    return Script(source.replace(_TIME, f"{{ '{int(now)}', '{round(now % 1 * 1e6)}' }}"))


@asynccontextmanager
async def memory() -> AsyncIterator[Harness]:
    """Open a limiter in this process; it must hold every subject that it was called for."""
    clock = FixedClock(START)
    limiter = MemoryLimiter(clock)
    harness = Harness(limiter, clock)
    yield harness
    assert not limiter.is_degraded
    assert len(limiter) == len(harness.subjects)


@asynccontextmanager
async def redis_at(url: str) -> AsyncIterator[Harness]:
    """Open a limiter on the servers of *url*, with keys of its own; they alone must have answered, and hold its keys.

    Without this check a limiter that never reaches its server passes the contract by its local share.
    """
    clock, prefix = FixedClock(START), f"test{token_hex(4)}"
    limiter = RedisLimiter(url, prefix=prefix, clock=clock, scripts=ScriptsAt(clock))
    await limiter.open()
    try:
        harness = Harness(limiter, clock)
        yield harness
        assert not limiter.is_degraded, limiter.outage
        assert not limiter.counts, "the limiter decided without its server"
    finally:
        await limiter.close()
    assert len(subject_keys(url, prefix)) == len(harness.subjects)


def subject_keys(url: str, prefix: str) -> set[bytes]:
    """Return the keys of subjects that the servers of *url* hold under *prefix*."""
    keys: set[bytes] = set()
    for host, port in re.findall(r"([\d.]+):(\d+)", url):
        with Redis(host, int(port)) as server:
            keys.update(server.keys(f"{prefix}:*"))
    return keys - {f"{prefix}:workers".encode()}


class _KeepsConnection(TCPFakeRequestHandler):
    """Sends an error as a reply and keeps the connection, as Redis does. fakeredis closes it: NOSCRIPT is an outage."""

    def setup(self) -> None:
        super().setup()
        read_response = self.current_client.read_response

        def reply_or_error() -> object:
            try:
                return read_response()
            except ResponseError as exc:
                return exc

        vars(self.current_client)["read_response"] = reply_or_error


@contextmanager
def fake_server() -> Iterator[str]:
    """Serve fakeredis on a port until the block ends, and yield its URL."""
    server = TcpFakeServer(("127.0.0.1", 0))
    server.RequestHandlerClass = _KeepsConnection
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"redis://127.0.0.1:{server.server_address[1]}/0"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
