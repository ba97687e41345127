"""The limiter over every worker: finds the subject of a request, and answers at once what needs no server."""

import asyncio
import logging
import secrets
import time
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from typing import Literal

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
from machpay_gateway.limiters.redis.connection_supervisor import ConnectionSupervisor
from machpay_gateway.limiters.redis.health_checks import find_refusals
from machpay_gateway.limiters.redis.local_share import LocalShare
from machpay_gateway.limiters.redis.refusals import LimiterUse
from machpay_gateway.limiters.redis.scripts import Scripts
from machpay_gateway.limiters.redis.servers import servers_for
from machpay_gateway.limiters.redis.subject import Subject
from machpay_gateway.limiters.redis.version_markers import VersionMarkers

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 3.0
_RESYNC_SECONDS = 2.0  # in which every worker reconnects after an outage, and reports what it admitted
_CLOSE_SECONDS = 1.0
_FIRST_SWEEP = 1024  # subjects
_DIGEST_BYTES = 16

FailureMode = Literal["local", "deny", "allow"]


class RedisLimiter:
    """A limiter that all workers share, in Redis 6.2 or later, or Valkey.

    While no server answers, *on_failure* decides: with `local` each worker admits its share of the limits; `deny`
    admits nothing (LimiterUnavailable); `allow` admits everything. `counts` has the number of answers given without the
    server, by failure mode; `batches` the number of batches, by their size in steps.
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
        """Use the servers of *url*, and keys that begin with *prefix*. Raises ConfigurationError."""
        self.counts: Counter[str] = Counter()
        self.batches: Counter[int] = Counter()
        self._servers = servers_for(url)
        self._prefix = prefix.encode()
        self._on_failure = on_failure
        self._clock = clock
        self._scripts = scripts or Scripts()
        self._subjects: dict[str, Subject] = {}
        self._sweep_at = _FIRST_SWEEP
        self._local_tiers: dict[tuple[Tier, int], Tier] = {}
        self._markers = VersionMarkers()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._batcher: Batcher
        self._supervisor: ConnectionSupervisor
        self._tasks: list[asyncio.Task[None]] = []
        self._resync_timer: asyncio.TimerHandle | None = None

    @property
    def is_degraded(self) -> bool:
        """Whether Redis is unavailable, so that this process decides by itself."""
        return self._loop is not None and self._supervisor.is_away

    @property
    def outage(self) -> Outage | None:
        """Since when and why Redis is unavailable, and the failure mode; None when it is available."""
        if not self.is_degraded:
            return None
        reason = self._supervisor.reason
        seconds = time.monotonic() - self._supervisor.away_since
        return Outage(seconds, f"{type(reason).__name__}: {reason}", self._on_failure)

    async def open(self) -> None:
        """Connect, or start degraded when no server can be reached. Idempotent.

        Raises ConfigurationError when a server can be reached and refuses what the limiter needs.
        """
        if self._loop is not asyncio.get_running_loop():
            self._start()
        await self._supervisor.tried.wait()
        refusal = self._supervisor.refusal if self._supervisor.is_away else None
        if refusal is not None and not refusal.passes:
            await self.close()
            raise ConfigurationError(f"redis: {refusal.message}: {refusal.way_out}")

    async def close(self) -> None:
        """Release all slots and write pending version markers, within a second, and disconnect."""
        if self._loop is not asyncio.get_running_loop():
            if not self._markers.pending:
                return
            self._start()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._release_all()
        except TimeoutError:
            if self._markers.pending:
                logger.warning(
                    "%d changes could not be written to Redis: they hold within a second.", len(self._markers.pending)
                )
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self._supervisor.close()
        self._batcher.fail_queued()
        self._loop = None

    def admit(self, request: AdmissionRequest) -> Answer | asyncio.Future[Answer]:
        """Check the version, take units of the window and take a slot: together, or not at all."""
        # Not by a look at the running loop, which is a system call before Python 3.12.
        if self._loop is None or self._loop.is_closed():
            self._start()
        subject = self._subjects.get(request.subject) or self._add_subject(request)
        if self._markers.pending and request.version < self._markers.version(request.subject):
            return STALE
        if self._supervisor.is_away:
            return self._decide_locally(subject, request)
        if subject.exhausted and (refusal := subject.cached_refusal(request, self._clock())):
            return refusal
        if self._resync_timer is not None and (refusal := self._refusal_while_resyncing(subject, request)):
            return refusal
        future: asyncio.Future[Answer] = self._loop.create_future()  # type: ignore[union-attr]  # started above
        subject.wait_for_answer(request, future)
        self._batcher.submit(subject)
        return future

    async def remaining(self, request: AdmissionRequest) -> Remaining | Stale | LimiterUnavailable:
        """Return what the subject of *request* has left over all workers, without taking any."""
        if self._loop is None or self._loop.is_closed():
            self._start()
        subject = self._subjects.get(request.subject) or self._add_subject(request)
        if request.version < max(subject.request.version, self._markers.version(request.subject)):
            return STALE
        if self._supervisor.is_away:
            return LimiterUnavailable(f"Redis does not answer: {self._supervisor.reason}")
        future: asyncio.Future[Remaining | Stale | LimiterUnavailable] = self._loop.create_future()  # type: ignore[union-attr]  # started above
        subject.wait_for_remaining(request, future)
        self._batcher.submit(subject)
        return await future

    async def invalidate(self, subject: str, version: int) -> None:
        """Answer requests older than *version* with STALE: in this worker at once, in others once Redis has the marker.

        Returns when Redis has it, or after the deadline of a reply; then it is written later. A limiter that was not
        opened writes it when it is closed.
        """
        self._markers.add(subject, self._key(subject), version)
        if self._loop is asyncio.get_running_loop():
            await self._markers.wait_written()

    def _start(self) -> None:
        """Start in this event loop, without any state: futures of an earlier loop ended with it."""
        self._loop = asyncio.get_running_loop()
        self._subjects.clear()
        worker = secrets.token_urlsafe(8)  # never reused: the slots of an earlier name may still be held
        self._batcher = Batcher(
            self._scripts, worker, clock=self._clock, decide_locally=self._decide_locally, batches=self.batches
        )
        self._supervisor = ConnectionSupervisor(
            self._servers,
            self._batcher,
            heartbeat=self._scripts.heartbeat,
            workers_key=self._prefix + b":workers",
            worker=worker,
            use=LimiterUse(self._prefix.decode(), self._on_failure, self._servers.kind),
            find_refusals=lambda connection: find_refusals(connection, self._prefix.decode()),
            on_connected=self._report_outage,
        )
        self._tasks = [
            asyncio.create_task(self._heartbeat()),
            asyncio.create_task(self._markers.run(self._supervisor, self._scripts.invalidate)),
        ]

    async def _release_all(self) -> None:
        while self._markers.pending:  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(0.01)
        # In a loop, for what is admitted in the meantime: the callers of those requests are shutting down too.
        while self._supervisor.connection is not None and any(s.held or s.reported for s in self._subjects.values()):
            for subject in self._subjects.values():
                subject.held = 0
                self._batcher.submit(subject)
            await self._batcher.drain()
        await self._supervisor.heartbeat(lease_seconds=0)

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            await self._supervisor.heartbeat()
            self._report_subjects()

    def _report_outage(self) -> None:
        """Report to a new connection what is held, and what was admitted during the outage."""
        now = self._clock()
        for subject in self._subjects.values():
            if subject.local_share is not None:
                subject.backlog += subject.local_share.take_backlog(now)
        self._report_subjects()
        if self._resync_timer is not None:
            self._resync_timer.cancel()
        self._resync_timer = asyncio.get_running_loop().call_later(_RESYNC_SECONDS, self._end_resync)

    def _end_resync(self) -> None:
        """Let the server alone decide: by now every worker has reconnected and reported."""
        self._resync_timer = None
        if self._supervisor.connection is not None:
            for subject in self._subjects.values():
                subject.local_share = None

    def _refusal_while_resyncing(self, subject: Subject, request: AdmissionRequest) -> Exceeded | None:
        """Hold *subject* to its local share: the server does not know yet what other workers admitted."""
        if subject.local_share is None or self._on_failure != "local" or self._supervisor.connection is None:
            return None
        tier = self._local_tier(request.tier, subject.local_share.workers)
        return subject.local_share.admit(tier, request.cost, subject.held, self._clock())

    def _report_subjects(self) -> None:
        for subject in self._subjects.values():
            if subject.held or subject.reported != subject.held or subject.backlog:
                self._batcher.submit(subject)

    def _decide_locally(self, subject: Subject, request: AdmissionRequest) -> Answer:
        """Decide without the server, by the failure mode."""
        if request.version < max(subject.request.version, self._markers.version(request.subject)):
            return STALE
        subject.request = request
        self.counts[self._on_failure] += 1
        if self._on_failure == "deny":
            return LimiterUnavailable(f"Redis does not answer: {self._supervisor.reason}")
        now = self._clock()
        if self._on_failure == "local" and (refusal := subject.cached_refusal(request, now)):
            return refusal
        share = subject.local_share
        if share is None:
            share = LocalShare(request.tier, self._batcher.workers, subject.taken, subject.updated_at, now)
            subject.local_share = share
        tier = self._local_tier(request.tier, share.workers)
        refusal = share.admit(tier, request.cost, subject.held, now)
        if isinstance(refusal, Exceeded):
            if self._on_failure == "local":
                return refusal
            share.count(request.cost, now)
        subject.held += 1
        left, resets_in = share.left(tier, now)
        logger.info("%s was admitted while Redis is away (%s).", request.subject, self._on_failure)
        return Admitted(subject, left, resets_in, max(0, tier.concurrency - subject.held), tier)

    def _local_tier(self, tier: Tier, workers: int) -> Tier:
        local = self._local_tiers.get((tier, workers))
        if local is None:
            local = self._local_tiers[tier, workers] = tier.local_share(workers)
        return local

    def _add_subject(self, request: AdmissionRequest) -> Subject:
        if len(self._subjects) >= self._sweep_at:
            self._sweep()
        subject = Subject(self._key(request.subject), request, self._batcher.report_release)
        self._subjects[request.subject] = subject
        return subject

    def _sweep(self) -> None:
        """Drop the idle subjects. The next sweep runs when twice as many are held, so its cost is amortized."""
        now = self._clock()
        for name, subject in list(self._subjects.items()):
            if subject.is_idle(now):
                del self._subjects[name]
        self._sweep_at = max(_FIRST_SWEEP, 2 * len(self._subjects))

    def _key(self, subject: str) -> bytes:
        # A digest: keys have one size and disclose no name, since subjects may be an issuer's user names.
        digest = blake2b(subject.encode(errors="surrogatepass"), digest_size=_DIGEST_BYTES).digest()
        return self._prefix + b":" + urlsafe_b64encode(digest).rstrip(b"=")
