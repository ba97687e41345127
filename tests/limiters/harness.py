"""The limiters that the contract holds for, each opened with a clock of ours.

A server's clock is set by writing it into the script: the one line that asks for the time is replaced.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cache
from secrets import token_hex
from threading import Thread

from fakeredis import TcpFakeServer

from machpay_gateway.core.limits.admission import AdmissionRequest, Admitted, Answer, Exceeded, Remaining
from machpay_gateway.core.limits.ports import Limiter
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.limiters.memory import MemoryLimiter
from machpay_gateway.limiters.redis import RedisLimiter
from machpay_gateway.limiters.redis.scripts import Script, Scripts
from tests.clocks import FixedClock

START = 6000.0
_TIME = "redis.call('TIME')"


@dataclass(frozen=True)
class Rig:
    limiter: Limiter
    clock: FixedClock

    async def ask(self, tier: Tier, *, cost: int = 1, version: int = 1, subject: str = "key_1") -> Answer:
        answer = self.limiter.admit(AdmissionRequest(subject, version, tier, cost))
        return await answer if isinstance(answer, Awaitable) else answer

    async def take(self, tier: Tier, *, cost: int = 1, version: int = 1, subject: str = "key_1") -> Admitted:
        answer = await self.ask(tier, cost=cost, version=version, subject=subject)
        assert isinstance(answer, Admitted), answer
        return answer

    async def refused(self, tier: Tier, *, cost: int = 1, version: int = 1, subject: str = "key_1") -> Exceeded:
        answer = await self.ask(tier, cost=cost, version=version, subject=subject)
        assert isinstance(answer, Exceeded), answer
        return answer

    async def left(self, tier: Tier, *, version: int = 1, subject: str = "key_1") -> tuple[int, int]:
        """Return the units and the slots that the subject has left."""
        standing = await self.limiter.remaining(AdmissionRequest(subject, version, tier, 1))
        assert isinstance(standing, Remaining), standing
        assert standing.tier is tier
        return standing.left, standing.slots_left

    async def spend(self, tier: Tier, units: int) -> None:
        """Take *units*, one at a time, and give each slot back."""
        for _ in range(units):
            (await self.take(tier)).lease.release()


Opened = Callable[[], AbstractAsyncContextManager[Rig]]


class ScriptsAt(Scripts):
    """The scripts on a server whose clock is ours."""

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
async def memory() -> AsyncIterator[Rig]:
    clock = FixedClock(START)
    yield Rig(MemoryLimiter(clock), clock)


@asynccontextmanager
async def redis_at(url: str) -> AsyncIterator[Rig]:
    """Open a limiter on the servers of *url*, with keys of its own."""
    clock = FixedClock(START)
    limiter = RedisLimiter(url, prefix=f"test{token_hex(4)}", clock=clock, scripts=ScriptsAt(clock))
    await limiter.open()
    try:
        yield Rig(limiter, clock)
    finally:
        await limiter.close()


@contextmanager
def fake_server() -> Iterator[str]:
    """Serve fakeredis on a port until the block ends, and yield its URL."""
    server = TcpFakeServer(("127.0.0.1", 0))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"redis://127.0.0.1:{server.server_address[1]}/0"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
