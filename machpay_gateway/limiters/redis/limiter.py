"""The limiter over every worker: who asks is found here, and what is known here is answered without asking."""

import asyncio
import logging
import secrets
import time
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from typing import Literal

from redis.exceptions import AuthenticationError, NoPermissionError

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.limits.admission import (
    STALE,
    AdmissionRequest,
    Admitted,
    Answer,
    Exceeded,
    LimiterUnavailable,
    Outage,
    Remaining,
    Stale,
)
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.limiters.redis.batcher import Batcher
from machpay_gateway.limiters.redis.link_supervisor import LinkSupervisor
from machpay_gateway.limiters.redis.local_share import LocalShare
from machpay_gateway.limiters.redis.scripts import Scripts
from machpay_gateway.limiters.redis.servers import servers_for
from machpay_gateway.limiters.redis.subject import Subject
from machpay_gateway.limiters.redis.version_markers import VersionMarkers

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 3.0
_SETTLE_SECONDS = 2.0  # within which every worker tries again, and is linked if the server is there
_CLOSE_SECONDS = 1.0
_FIRST_SWEEP = 1024
_DIGEST_BYTES = 16

FailureMode = Literal["local", "deny", "allow"]


class RedisLimiter:
    """A limiter that all workers share, in Redis 6.2 or later, or Valkey.

    While it is away, *on_failure* says what holds: `local`, each worker's part of the limits; `deny`, nothing is
    admitted (Away); `allow`, all is. `counts` has how many answers were given in which of these ways, `batches` how
    often it was asked about how many subjects at once.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "machpay",
        on_failure: FailureMode = "local",
        clock: Callable[[], float] = time.monotonic,
        scripts: Scripts | None = None,
    ) -> None:
        """Use the servers that *url* names, and keys that begin with *prefix*. Raises ConfigurationError."""
        self.counts: Counter[str] = Counter()
        self.batches: Counter[int] = Counter()
        self._servers = servers_for(url)
        self._prefix = prefix.encode()
        self._on_failure = on_failure
        self._clock = clock
        self._scripts = scripts or Scripts()
        self._subjects: dict[str, Subject] = {}
        self._sweep_at = _FIRST_SWEEP
        self._parts: dict[tuple[Tier, int], Tier] = {}
        self._marks = VersionMarkers()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._commits: Batcher
        self._upkeep: LinkSupervisor
        self._tasks: list[asyncio.Task[None]] = []
        self._settling: asyncio.TimerHandle | None = None

    @property
    def is_degraded(self) -> bool:
        """Whether Redis is away, so that answers are this process's own."""
        return self._loop is not None and self._upkeep.is_away

    @property
    def outage(self) -> Outage | None:
        """Since when and why Redis is away, and what holds meanwhile; None when it is not."""
        if not self.is_degraded:
            return None
        reason = self._upkeep.reason
        seconds = time.monotonic() - self._upkeep.away_since
        return Outage(seconds, f"{type(reason).__name__}: {reason}", self._on_failure)

    async def open(self) -> None:
        """Connect, or begin without when no server can be reached now; opening twice is opening once.

        Raises ConfigurationError when a server can be reached and does not let us in.
        """
        if self._loop is not asyncio.get_running_loop():
            self._begin()
        await self._upkeep.tried.wait()
        if self._upkeep.is_away and isinstance(self._upkeep.reason, AuthenticationError | NoPermissionError):
            reason = self._upkeep.reason
            await self.close()
            raise ConfigurationError(
                f"redis: the server does not let us in ({reason}): see the URL's user and password"
            )

    async def close(self) -> None:
        """Give everything back, tell what is still to be told if that takes no more than a second, and disconnect."""
        if self._loop is not asyncio.get_running_loop():
            if not self._marks.pending:
                return
            self._begin()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._leave()
        except TimeoutError:
            if self._marks.pending:
                logger.warning(
                    "%d changes could not be told to Redis: they hold within a second.", len(self._marks.pending)
                )
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self._upkeep.close()
        self._commits.give_up()
        self._loop = None

    def admit(self, demand: AdmissionRequest) -> Answer | asyncio.Future[Answer]:
        """Check the version, take from the window and take a slot: together, or not at all."""
        # Not by asking for the running loop, which is a system call before Python 3.12.
        if self._loop is None or self._loop.is_closed():
            self._begin()
        subject = self._subjects.get(demand.subject) or self._entered(demand)
        if self._marks.pending and demand.version < self._marks.version(demand.subject):
            return STALE
        if self._upkeep.is_away:
            return self._without(subject, demand)
        if subject.spent and (refusal := subject.refused_again(demand, self._clock())):
            return refusal
        if self._settling is not None and (refusal := self._refusal_while_settling(subject, demand)):
            return refusal
        future: asyncio.Future[Answer] = self._loop.create_future()  # type: ignore[union-attr]  # begun above
        subject.wait_for(demand, future)
        self._commits.ask(subject)
        return future

    async def remaining(self, demand: AdmissionRequest) -> Remaining | Stale | LimiterUnavailable:
        """Return what the subject of *demand* has left of all workers' quota, and take nothing."""
        if self._loop is None or self._loop.is_closed():
            self._begin()
        subject = self._subjects.get(demand.subject) or self._entered(demand)
        if demand.version < max(subject.demand.version, self._marks.version(demand.subject)):
            return STALE
        if self._upkeep.is_away:
            return LimiterUnavailable(f"Redis does not answer: {self._upkeep.reason}")
        future: asyncio.Future[Remaining | Stale | LimiterUnavailable] = self._loop.create_future()  # type: ignore[union-attr]  # begun above
        subject.show(demand, future)
        self._commits.ask(subject)
        return await future

    async def invalidate(self, subject: str, version: int) -> None:
        """Answer demands of an older *version* with STALE: here from now on, elsewhere as soon as Redis knows.

        Returns when it knows, or when it takes too long; it is told in any case. A limiter that was not opened tells
        when it is closed.
        """
        self._marks.add(subject, self._key(subject), version)
        if self._loop is asyncio.get_running_loop():
            await self._marks.told()

    def _begin(self) -> None:
        """Start anew in this event loop. What was under way in another one has gone with it."""
        self._loop = asyncio.get_running_loop()
        self._subjects.clear()
        worker = secrets.token_urlsafe(8)  # never one that was used before, whose slots may still be held
        self._commits = Batcher(self._scripts, worker, clock=self._clock, without=self._without, batches=self.batches)
        self._upkeep = LinkSupervisor(
            self._servers,
            self._commits,
            beat=self._scripts.heartbeat,
            workers_key=self._prefix + b":workers",
            worker=worker,
            recovered=self._recover,
        )
        self._tasks = [
            asyncio.create_task(self._heartbeat()),
            asyncio.create_task(self._marks.write(self._upkeep, self._scripts.invalidate)),
        ]

    async def _leave(self) -> None:
        while self._marks.pending:  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(0.01)
        # Again for what is granted meanwhile: whoever asked for it is going too.
        while self._upkeep.link is not None and any(s.held or s.told for s in self._subjects.values()):
            for subject in self._subjects.values():
                subject.held = 0
                self._commits.ask(subject)
            await self._commits.drain()
        await self._upkeep.beat(lease_seconds=0)

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            await self._upkeep.beat()
            self._restate()

    def _recover(self) -> None:
        """Say what is held, and what was admitted while nobody could be told."""
        now = self._clock()
        for subject in self._subjects.values():
            if subject.share is not None:
                subject.owed += subject.share.owed(now)
        self._restate()
        if self._settling is not None:
            self._settling.cancel()
        self._settling = asyncio.get_running_loop().call_later(_SETTLE_SECONDS, self._settle)

    def _settle(self) -> None:
        """Let the server alone decide, now that every worker has had the time to come back and tell."""
        self._settling = None
        if self._upkeep.link is not None:
            for subject in self._subjects.values():
                subject.share = None

    def _refusal_while_settling(self, subject: Subject, demand: AdmissionRequest) -> Exceeded | None:
        """Hold *subject* to its share a little longer: the server does not know yet what other workers admitted."""
        if subject.share is None or self._on_failure != "local" or self._upkeep.link is None:
            return None
        part = self._part_of(demand.tier, subject.share.workers)
        return subject.share.admit(part, demand.cost, subject.held, self._clock())

    def _restate(self) -> None:
        for subject in self._subjects.values():
            if subject.held or subject.told != subject.held or subject.owed:
                self._commits.ask(subject)

    def _without(self, subject: Subject, demand: AdmissionRequest) -> Answer:
        """Decide while no server answers."""
        if demand.version < max(subject.demand.version, self._marks.version(demand.subject)):
            return STALE
        subject.demand = demand
        self.counts[self._on_failure] += 1
        if self._on_failure == "deny":
            return LimiterUnavailable(f"Redis does not answer: {self._upkeep.reason}")
        now = self._clock()
        if self._on_failure == "local" and (refusal := subject.refused_again(demand, now)):
            return refusal
        if subject.share is None:
            subject.share = LocalShare(demand.tier, self._commits.workers, subject.taken, subject.heard_at, now)
        tier = self._part_of(demand.tier, subject.share.workers)
        refusal = subject.share.admit(tier, demand.cost, subject.held, now)
        if isinstance(refusal, Exceeded):
            if self._on_failure == "local":
                return refusal
            subject.share.count(demand.cost, now)
        subject.held += 1
        left, resets_in = subject.share.left(tier, now)
        logger.info("%s was admitted while Redis is away (%s).", demand.subject, self._on_failure)
        return Admitted(subject, left, resets_in, max(0, tier.concurrency - subject.held), tier)

    def _part_of(self, tier: Tier, workers: int) -> Tier:
        part = self._parts.get((tier, workers))
        if part is None:
            part = self._parts[tier, workers] = tier.part_of(workers)
        return part

    def _entered(self, demand: AdmissionRequest) -> Subject:
        if len(self._subjects) >= self._sweep_at:
            self._sweep()
        subject = Subject(self._key(demand.subject), demand, self._commits.restate)
        self._subjects[demand.subject] = subject
        return subject

    def _sweep(self) -> None:
        """Drop the subjects of which nothing need be known. Twice as many must enter before the next sweep."""
        now = self._clock()
        for name, subject in list(self._subjects.items()):
            if subject.is_idle(now):
                del self._subjects[name]
        self._sweep_at = max(_FIRST_SWEEP, 2 * len(self._subjects))

    def _key(self, subject: str) -> bytes:
        # Of one size, and nobody's name in clear: subjects may be what an issuer calls its users.
        digest = blake2b(subject.encode(errors="surrogatepass"), digest_size=_DIGEST_BYTES).digest()
        return self._prefix + b":" + urlsafe_b64encode(digest).rstrip(b"=")
