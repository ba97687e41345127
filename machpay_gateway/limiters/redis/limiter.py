"""The limiter over every worker: finds the subject of a request, and answers at once what needs no server."""

import asyncio
import logging
import secrets
import time
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from machpay_gateway.core.errors import ConfigurationError, Unavailable
from machpay_gateway.core.limits.admission import (
    STALE,
    AdmissionRequest,
    Admitted,
    Answer,
    Exceeded,
    LimiterUnavailable,
    Outage,
    PendingAnswer,
    Remaining,
    Stale,
    refusal_for,
)
from machpay_gateway.core.limits.plan import Part, Plan, plan_of
from machpay_gateway.core.limits.ports import ChangedSubject, StoredUnits
from machpay_gateway.core.limits.rate import Limits, Quota, Rate
from machpay_gateway.limiters.redis.backlog import Backlog, batches_of
from machpay_gateway.limiters.redis.batcher import Batcher
from machpay_gateway.limiters.redis.cluster import Cluster
from machpay_gateway.limiters.redis.connection import PipelinedConnection, set_result
from machpay_gateway.limiters.redis.connection_supervisor import ConnectionSupervisor
from machpay_gateway.limiters.redis.health_checks import find_refusals
from machpay_gateway.limiters.redis.local_share import LocalShare
from machpay_gateway.limiters.redis.outage_log import OutageLog
from machpay_gateway.limiters.redis.refusals import LimiterUse
from machpay_gateway.limiters.redis.resp import encode_bulk
from machpay_gateway.limiters.redis.scripts import Scripts, run_script
from machpay_gateway.limiters.redis.server_clock import measure_skew
from machpay_gateway.limiters.redis.servers import servers_for
from machpay_gateway.limiters.redis.shards import Shard, SingleServer, Topology
from machpay_gateway.limiters.redis.share_registry import ShareRegistry, Spent
from machpay_gateway.limiters.redis.subject import More, Reader, Step, Subject, SubjectSet, subject_set
from machpay_gateway.limiters.redis.version_markers import VersionMarkers
from machpay_gateway.log_throttle import LogThrottle

if TYPE_CHECKING:
    from machpay_gateway.limiters.quota_ledger import QuotaBatch, QuotaLedger
    from machpay_gateway.limiters.redis.resp import Argument

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 3.0
_RESYNC_SECONDS = 2.0  # in which every worker reconnects after an outage, and reports what it admitted
_CLOSE_SECONDS = 1.0
_SHARE_SECONDS = 0.5
_WAIT_SECONDS = 1.0  # for a part of the local share: others give theirs up in less, if they may
_INHERITED = "\0"  # no subject's name begins so
_INHERITED_PLANS = 64
_FIRST_SWEEP = 1024  # subjects
_DIGEST_BYTES, _GROUP_BYTES = 16, 8

FailureMode = Literal["local", "deny", "allow"]


class RedisLimiter:
    """A limiter that all workers share, in Redis 6.2 or later, or Valkey.

    While no server answers, *on_failure* decides: with `local` each worker admits its share of the limits; `deny`
    admits nothing (LimiterUnavailable); `allow` admits everything. `counts` has the number of answers given without the
    server, by failure mode; `batches` the number of batches, by their size in steps.
    """

    def __init__(  # noqa: PLR0913 - what it counts with, by keyword
        self,
        url: str,
        *,
        url_file: Path | None = None,
        prefix: str = "machpay",
        on_failure: FailureMode = "local",
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        scripts: Scripts | None = None,
        ledger: "QuotaLedger | None" = None,
        registry: ShareRegistry | None = None,
        has_served: bool = False,
    ) -> None:
        """Use the servers of *url*, and keys that begin with *prefix*. Raises ConfigurationError.

        *url_file* is the file that *url* is from: each connection logs in by the user and password that it has then.

        *ledger* stores what quotas admit, and has what they admitted before; without one they count from 0 where the
        servers have no count. *registry* divides the local share among the processes of this host, unless this one only
        reads what is left. What refuses the limiter is an outage to one that *has_served*, or whose predecessor has:
        only the first start stops for it.
        """
        self.counts: Counter[str] = Counter()
        self.batches: Counter[int] = Counter()
        self._servers = servers_for(url, url_file)
        self._prefix = prefix.encode()
        self._on_failure = on_failure
        self._has_served = has_served
        self._is_open = False
        self._clock = clock
        self._wall_clock = wall_clock
        self._ledger = ledger
        self._count_quotas = _count_nothing if ledger is None else ledger.count
        self._scripts = scripts or Scripts()
        self._subjects: dict[str, Subject] = {}
        self._sweep_at = _FIRST_SWEEP
        self._seeding: set[asyncio.Task[Any]] = set()
        self._registry = registry or ShareRegistry()
        self._is_alone = False
        self._total: int | None = None  # workers on all hosts, as the server last told
        self._markers = VersionMarkers()
        self._throttle = LogThrottle(logger)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._worker = ""
        self._is_counted = False  # by heartbeats, as a worker that admits
        self._workers = 1  # alive at the last heartbeat, with this one
        self._topology: Topology
        self._tasks: list[asyncio.Task[None]] = []
        self._is_resyncing = False  # a shard

    @property
    def is_degraded(self) -> bool:
        """Whether Redis is unavailable, so that this process decides by itself; in a Cluster, for some subjects."""
        return bool(self._shards_away())

    @property
    def outage(self) -> Outage | None:
        """Since when and why Redis is unavailable, and the failure mode; None when it is available."""
        away = self._shards_away()
        if not away:
            return None
        oldest = min(away, key=lambda shard: shard.supervisor.away_since)
        seconds, reason = time.monotonic() - oldest.supervisor.away_since, oldest.supervisor.reason
        part = ""
        if len(self._topology.shards) > 1:
            names = ", ".join(map(_name_of, away))
            part = f"{len(away)} of {len(self._topology.shards)} shards ({names})"
        return Outage(seconds, f"{type(reason).__name__}: {reason}", self._on_failure, part)

    @property
    def clock_skew_seconds(self) -> float | None:
        """How far this host's clock is ahead of the server's that it differs from most; None when that is not known."""
        shards = () if self._loop is None else self._topology.shards
        skews = [seconds for shard in shards if (seconds := shard.clock_skew.seconds) is not None]
        return max(skews, key=abs, default=None)

    async def open(self) -> None:
        """Connect, or start degraded when no server can be reached. Idempotent.

        Raises ConfigurationError when a server can be reached and refuses what the limiter needs; but only at the first
        start: later on, that is an outage like any other.
        """
        if self._loop is not asyncio.get_running_loop():
            self._start()
        elif self._is_open:  # a shard that is found later is nothing to wait for
            return
        # The first to connect finds the others.
        while (untried := self._untried_shard()) is not None:
            await untried.supervisor.tried.wait()
        for shard in () if self._has_served else self._shards_away():
            refusal = shard.supervisor.refusal
            if refusal is not None and not refusal.passes:
                await self.close()
                raise ConfigurationError(f"redis: {refusal.message}: {refusal.way_out}")
        self._is_open = self._has_served = True

    async def close(self) -> None:
        """Store what quotas admitted, release all slots and write pending version markers, and disconnect.

        The latter within a second.
        """
        if self._ledger is not None:
            await self._ledger.close()
        if self._loop is not asyncio.get_running_loop():
            if not self._markers.pending:
                return
            self._start(admits=False)
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._release_all()
        except TimeoutError:
            if self._markers.pending:
                logger.warning(
                    "%d changes could not be written to Redis: they hold within a second.", len(self._markers.pending)
                )
        self._hand_over()
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self._topology.close()
        await asyncio.gather(*(shard.supervisor.close() for shard in self._topology.shards))
        self._is_open = False
        for shard in self._topology.shards:
            shard.batcher.fail_queued()
            if shard.resync_timer is not None:
                shard.resync_timer.cancel()
        self._loop = None

    async def give_way(self) -> None:
        """Leave the local share to a successor. With the server, this worker goes on."""
        self._hand_over()

    def admit(self, request: AdmissionRequest) -> Answer | PendingAnswer:
        """Check the version, take from every window and quota, and take the slots: together, or not at all."""
        # Not by a look at the running loop, which is a system call before Python 3.12.
        if self._loop is None or self._loop.is_closed():
            self._start()
        subject = self._subjects.get(request.subject) or self._add_subject(request)
        if self._markers.pending and self._markers.are_newer(request):
            return STALE
        subjects = subject.together
        if (
            subjects is None
            or subjects.plan is not request.plan
            or (request.others and request.others != subjects.names)
        ):
            subjects = self._join(subject, request)
        slot = subject.slot
        if slot.supervisor.is_away:
            return self._decide_locally(subjects, request)
        if (subject.exhausted or request.others) and (refusal := subjects.cached_refusal(request, self._clock)):
            return refusal
        if self._is_resyncing and (refusal := self._refusal_while_resyncing(subjects, request)):
            return refusal
        future: asyncio.Future[Answer] = self._loop.create_future()  # type: ignore[union-attr]  # started above
        subjects.wait_for_answer(request, future)
        slot.batcher.submit(subject)
        return future

    async def remaining(self, request: AdmissionRequest) -> Remaining | Stale | LimiterUnavailable:
        """Return what the subjects of *request* have left over all workers, without taking any."""
        if self._loop is None or self._loop.is_closed():
            self._start()
        subject = self._subjects.get(request.subject) or self._add_subject(request)
        if self._is_outdated(subject, request):
            return STALE
        supervisor = subject.slot.supervisor
        if supervisor.is_away:
            return LimiterUnavailable(f"Redis does not answer: {supervisor.reason}")
        reader: Reader = self._loop.create_future()  # type: ignore[union-attr]  # started above
        subjects = self._join(subject, request)
        subjects.wait(Step(subjects, request, [], More([reader])))
        subject.slot.batcher.submit(subject)
        return await reader

    async def invalidate(self, changed: Sequence[ChangedSubject]) -> None:
        """Answer older requests with STALE: in this worker at once, in others once Redis has the version markers.

        Returns when Redis has them, or after the deadline of a reply; then they are written later. A limiter that was
        not opened writes them when it is closed.
        """
        for subject, version, group in changed:
            self._markers.add(subject, self._key(subject, group), version)
        if self._loop is asyncio.get_running_loop():
            await self._markers.wait_written(subject for subject, _, _ in changed)

    def forget_versions(self) -> None:
        """Forget which versions this worker has seen, or its reports would write them again."""
        for subject in self._subjects.values():
            subject.request = subject.request._replace(version=0, group_version=0)

    async def lower_version(self, request: AdmissionRequest) -> None:
        """Let the versions of *request* be the newest, in this worker and in Redis, although there were newer ones."""
        if (subject := self._subjects.get(request.subject)) is not None:
            subject.request = request
        keys = {request.subject: (self._key(request.subject, request.group), request.version)}
        if request.group_version:
            keys[request.group] = self._key(request.group, request.group), request.group_version
        await self._markers.lower(keys, self._connection_for, self._scripts.invalidate)

    def _is_outdated(self, subject: Subject, request: AdmissionRequest) -> bool:
        """Return whether this worker knows of a newer version."""
        _, version, _, _, _, _, group_version = subject.request
        return request.version < version or request.group_version < group_version or self._markers.are_newer(request)

    def _start(self, *, admits: bool = True) -> None:
        """Start in this event loop, without any state: futures of an earlier loop ended with it.

        A process that *admits* nothing, such as a command of an operator's, needs no part of the local share.
        """
        admits = admits and self._registry.admits
        self._loop = asyncio.get_running_loop()
        self._subjects.clear()
        self._is_alone, self._total = False, None
        if admits:
            self._registry.open()
        self._worker = secrets.token_urlsafe(8)  # never reused: the slots of an earlier name may still be held
        self._is_counted = admits
        self._is_resyncing = False
        if self._servers.kind == "cluster":
            self._topology = Cluster(self._servers, self._start_shard, self._report_outage)
        else:
            self._topology = SingleServer(self._servers, self._start_shard)
        self._tasks = [
            asyncio.create_task(self._heartbeat()),
            asyncio.create_task(self._keep_share()),
            asyncio.create_task(self._markers.run(self._connection_for, self._scripts.invalidate)),
        ]

    def _start_shard(self, connect: Callable[[Shard], Awaitable[PipelinedConnection]]) -> Shard:
        """Return a new shard, which begins to connect."""
        shard = Shard()
        shard.batcher = Batcher(
            self._scripts,
            self._worker,
            clock=self._clock,
            wall_clock=self._wall_clock,
            decide_locally=self._decide_locally,
            seed=self._seed_step,
            batches=self.batches,
        )
        shard.batcher.workers = self._workers
        shard.supervisor = ConnectionSupervisor(
            shard.batcher,
            connect=partial(connect, shard),
            diagnose=self._servers.diagnose,
            heartbeat=partial(self._send_heartbeat, shard),
            find_refusals=partial(self._find_refusals, shard),
            use=LimiterUse(self._prefix.decode(), self._on_failure, self._servers.kind),
            on_connected=partial(self._report_outage, shard),
            log=OutageLog(partial(_log_name, shard), clock=self._clock),
        )
        return shard

    async def _send_heartbeat(self, shard: Shard, connection: PipelinedConnection, lease_seconds: int) -> None:
        """Register this worker as alive, or as gone with a lease of 0; a shard without the list of workers just writes.

        Raises RedisError and OSError; LateReply after the deadline.
        """
        key = self._prefix + b":workers"
        if self._topology.slot_of(key).shard is not shard:
            probe = self._topology.key_within(shard, self._prefix)
            await run_script(connection, self._scripts.heartbeat, [probe], ["", 0])
            return
        lease: list[Argument] = [self._worker, lease_seconds] if self._is_counted else ["", 0]
        workers = await run_script(connection, self._scripts.heartbeat, [key], lease)
        self._workers = max(1, int(workers))  # type: ignore[call-overload]  # an integer, by heartbeat.lua
        for each in self._topology.shards:
            each.batcher.workers = self._workers

    async def _find_refusals(self, shard: Shard, connection: PipelinedConnection) -> Sequence[Exception]:
        return await find_refusals(connection, self._topology.key_within(shard, self._prefix, is_new=True))

    def _shards_away(self) -> Sequence[Shard]:
        if self._loop is None:
            return ()
        return [shard for shard in self._topology.shards if shard.supervisor.is_away]

    def _untried_shard(self) -> Shard | None:
        return next((shard for shard in self._topology.shards if not shard.supervisor.tried.is_set()), None)

    def _connection_for(self, key: bytes) -> PipelinedConnection | None:
        return self._topology.slot_of(key).supervisor.connection

    async def _release_all(self) -> None:
        while self._can_write_markers():  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(0.01)
        shards = self._topology.shards
        # In a loop, for what is admitted in the meantime: the callers of those requests are shutting down too.
        while taken := [subject for subject in self._connected_subjects() if subject.held or subject.reported]:
            for subject in taken:
                subject.held = 0
                subject.slot.batcher.submit(subject)
            await asyncio.gather(*(shard.batcher.drain() for shard in shards))
        await asyncio.gather(*(shard.supervisor.heartbeat(lease_seconds=0) for shard in shards))

    def _can_write_markers(self) -> bool:
        """Return whether changes are pending that a server may still take: of several, one that is not away."""
        slots = [self._topology.slot_of(key) for key, _ in self._markers.pending.values()]
        return any(len(self._topology.shards) == 1 or not slot.supervisor.is_away for slot in slots)

    def _connected_subjects(self) -> Iterator[Subject]:
        return (it for it in self._subjects.values() if it.slot.supervisor.connection is not None)

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            await asyncio.gather(*(shard.supervisor.heartbeat() for shard in self._topology.shards))
            await asyncio.gather(*map(self._measure_clock, self._topology.shards))
            self._refresh_share()
            for shard in self._shards_to_report():
                self._report_outage(shard)
            self._report_subjects(self._subjects.values())

    async def _measure_clock(self, shard: Shard) -> None:
        if (connection := shard.supervisor.connection) is not None:
            key = self._topology.key_within(shard, self._prefix)
            await measure_skew(connection, key, shard.clock_skew, self._wall_clock)

    def _shards_to_report(self) -> Sequence[Shard]:
        """Return the shards that serve, and lack what was decided without them: a slot may have moved meanwhile."""
        lacking = {
            subject.slot.supervisor
            for subject in self._connected_subjects()
            if subject.local_share is not None and not subject.slot.supervisor.is_resyncing
        }
        return [shard for shard in self._topology.shards if shard.supervisor in lacking]

    async def _keep_share(self) -> None:
        """Refresh the part of this worker more often than with each heartbeat while it matters."""
        while True:
            await asyncio.sleep(_SHARE_SECONDS)
            for shard in self._topology.shards:
                shard.supervisor.log.remind(shard.supervisor.decided)
            if self._shards_away():
                self._refresh_share()

    def _refresh_share(self) -> None:
        if self._connection_for(self._prefix + b":workers") is not None:
            # The first worker to return sees itself alone, until the others have reconnected.
            self._total = max(self._workers, self._total or 0) if self._is_resyncing else self._workers
        try:
            self._registry.refresh(self._total, self._fits, is_alone=self._is_alone)
        except OSError as exc:  # such as a full disk: the part stays as it is
            self._throttle.log(logging.WARNING, "The share of this worker cannot be updated: %s", exc)

    def _fits(self, workers: int) -> bool:
        """Return whether what this worker has admitted alone is no more than the share of one of *workers*."""
        now = self._clock()
        shares = [subject.local_share for subject in self._subjects.values()]
        return all(share is None or share.fits(workers, now) for share in shares)

    def _hand_over(self) -> None:
        """Leave the local share, with what counts in it, to whoever comes next."""
        try:
            self._registry.leave(self._spent() if self._is_alone and self._registry.is_joined else {})
        except OSError as exc:
            logger.warning("The share of this worker cannot be left to another one: %s", exc)

    def _spent(self) -> Mapping[bytes, Spent]:
        """Return what counts in the local share by subjects' keys, and let whoever takes it report the rest."""
        now, today = self._clock(), self._wall_clock()
        spent: dict[bytes, Spent] = {}
        for subject in self._subjects.values():
            share, limits = subject.local_share, subject.limits
            if subject.slot.supervisor.connection is not None:  # the others of its shard do not need it
                continue
            if share is None and subject.is_known(now):
                share = self._start_share(subject, limits, now, today)
            if share is not None:
                subject.add_backlog(share.take_backlog(now, today))
                backlog = subject.take_backlog()
                counts, stored = share.counts(backlog.units, today), backlog.stored()
                spent[subject.key] = self._registry.new_spent(share.of, subject.request.version, counts, stored)
        return spent

    def _start_share(self, subject: Subject, limits: Limits, now: float, today: float) -> LocalShare:
        """Return the local share of *subject*, with what the process before this one has taken of it."""
        left: Sequence[float] | None = None
        if subject.last_place is not None:
            _, limits, begin, _, _ = subject.last_place
            left = subject.last_levels[begin : begin + 2 * len(limits.counted) : 2]
        return LocalShare(
            limits,
            self._registry.divisor,
            left,
            self._registry.inherit(subject.key),
            updated_at=subject.updated_at,
            now=now,
            today=today,
        )

    def _report_inherited(self) -> None:
        """Report what ended processes admitted alone, of subjects that this one was not asked for since."""
        try:
            left = self._registry.take_left_behind(lambda key: not self._topology.slot_of(key).supervisor.is_away)
        except OSError as exc:
            self._throttle.log(logging.WARNING, "What other workers have admitted cannot be reported: %s", exc)
            return
        by_key = {subject.key: subject for subject in self._subjects.values()} if left else {}
        for key, spent in left.items():
            units, stored = self._registry.unreported(spent)
            if any(units.values()):
                subject = by_key.get(key) or self._add_inherited(key, spent)
                subject.add_backlog(Backlog(units, batches_of(stored)))

    def _add_inherited(self, key: bytes, spent: Spent) -> Subject:
        """Add a subject that only reports. It has no name: only its key is known."""
        request = AdmissionRequest(
            "", spent.version, _plan_to_report((spent.rates, spent.quotas, spent.concurrency)), 0
        )
        return self._new_subject(_INHERITED + key.decode(), key, request, _count_nothing)

    def _report_outage(self, shard: Shard) -> None:
        """Report to a new connection of *shard* what is held, and what was admitted during the outage."""
        now, today = self._clock(), self._wall_clock()
        if self._ledger is not None:
            shard.batcher.connected = int(today)
        self._report_inherited()
        subjects = [subject for subject in self._subjects.values() if subject.slot.supervisor is shard.supervisor]
        for subject in subjects:
            if subject.local_share is not None:
                subject.add_backlog(subject.local_share.take_backlog(now, today))
        self._is_alone = self._is_alone and any(away is not shard for away in self._shards_away())
        self._report_subjects(subjects)
        self._markers.write_soon()
        if shard.resync_timer is not None:
            shard.resync_timer.cancel()
        shard.resync_timer = asyncio.get_running_loop().call_later(_RESYNC_SECONDS, self._end_resync, shard)
        self._is_resyncing = shard.supervisor.is_resyncing = True
        self._refresh_share()

    def _end_resync(self, shard: Shard) -> None:
        """Let the server alone decide: by now every worker has reconnected and reported."""
        shard.resync_timer, shard.supervisor.is_resyncing = None, False
        self._is_resyncing = any(each.supervisor.is_resyncing for each in self._topology.shards)
        if shard.supervisor.connection is not None:
            for name, subject in list(self._subjects.items()):
                if subject.slot.supervisor is shard.supervisor:
                    subject.local_share = None
                    if name.startswith(_INHERITED):
                        del self._subjects[name]

    def _refusal_while_resyncing(self, subjects: SubjectSet, request: AdmissionRequest) -> Exceeded | None:
        """Hold *subjects* to their local shares: the server does not know yet what other workers admitted."""
        server = subjects.own.slot.supervisor
        if self._on_failure != "local" or not server.is_resyncing or server.connection is None:
            return None
        now, today = self._clock(), self._wall_clock()
        limited = [
            (subject, share, part)
            for subject, part in zip(subjects.members, request.plan.parts, strict=True)
            if (share := subject.local_share) is not None and share.is_seeded and part.enforced
        ]
        for _, share, part in limited:
            share.follow(part.limits, self._registry.divisor, now, today)
        refused = [entry for entry in limited if not _has_room(entry, request.cost, now, today)]
        if not refused:
            for _, share, _ in limited:
                share.take_counted(now, today, request.cost)
            return None
        return self._refuse_locally(subjects, request, [share for _, share, _ in refused], now, today)

    @staticmethod
    def _report_subjects(subjects: Iterable[Subject]) -> None:
        for subject in subjects:
            if subject.held or subject.reported != subject.held or subject.backlog is not None:
                subject.slot.batcher.submit(subject)

    def _decide_locally(self, subjects: SubjectSet, request: AdmissionRequest) -> Answer | PendingAnswer:
        """Decide without the server, by the failure mode."""
        subject, members = subjects.own, subjects.members
        if self._is_outdated(subject, request):
            return STALE
        subject.request = request
        self.counts[self._on_failure] += 1
        subject.slot.supervisor.decided += 1
        if self._on_failure == "deny":
            return LimiterUnavailable(f"Redis does not answer: {subject.slot.supervisor.reason}")
        now, today, plan, cost = self._clock(), self._wall_clock(), request.plan, request.cost
        is_strict = self._on_failure == "local"
        if is_strict and (refusal := subjects.cached_refusal(request, self._clock)):
            return refusal
        self._decide_alone(plan)
        if is_strict and self._registry.is_waiting and any(part.enforced for part in plan.parts):
            return self._refuse_without_part(plan)
        shares = [self._share(one, part, now, today) for one, part in zip(members, plan.parts, strict=True)]
        if is_strict and not all(share.is_seeded for share in shares):
            return self._spawn(self._seed_shares(subjects, request, shares))
        entries = list(zip(members, shares, plan.parts, strict=True))
        full = [entry for entry in entries if not _has_room(entry, cost, now, today)]
        if is_strict and (refused := [share for _, share, part in full if part.enforced]):
            return self._refuse_locally(subjects, request, refused, now, today)
        is_shadow_limited = any(not part.enforced for _, _, part in full)
        for one, share, part in entries:
            if part.enforced or not is_shadow_limited:
                one.take_alone(share, now, today, cost)
        lease = subjects.take(0, is_shadow_limited=is_shadow_limited)  # the units are counted above
        levels = tuple(max(0.0, level) for level in _local_levels(entries, now, today))
        return Admitted(lease, levels, plan.local_share(self._registry.divisor), is_shadow_limited)

    def _decide_alone(self, plan: Plan) -> None:
        """Claim a part of the local share before the first decision without the server."""
        if not self._is_alone or plan.longest_seconds > self._registry.window_seconds:
            self._registry.window_seconds = max(self._registry.window_seconds, plan.longest_seconds)
            self._is_alone = True
            self._refresh_share()

    def _refuse_without_part(self, plan: Plan) -> Exceeded:
        """Refuse a request because this worker may admit nothing alone yet."""
        share = plan.local_share(self._registry.divisor)
        levels: list[float] = []
        for policy in share.policies:
            levels += (0,) if policy.is_concurrency else (0, _WAIT_SECONDS)
        return Exceeded(
            tuple(policy.name for policy in share.policies if policy.enforced), _WAIT_SECONDS, tuple(levels), share
        )

    def _share(self, subject: Subject, part: Part, now: float, today: float) -> LocalShare:
        share = subject.local_share
        if share is None:
            share = subject.local_share = self._start_share(subject, part.limits, now, today)
        share.follow(part.limits, self._registry.divisor, now, today)
        return share

    def _refuse_locally(
        self,
        subjects: SubjectSet,
        request: AdmissionRequest,
        refused: Sequence[LocalShare],
        now: float,
        today: float,
    ) -> Exceeded:
        entries = [
            (one, self._share(one, part, now, today), part)
            for one, part in zip(subjects.members, request.plan.parts, strict=True)
        ]
        levels = tuple(_local_levels(entries, now, today))
        wait = max(share.wait_seconds(now, today, request.cost) for share in refused)
        return refusal_for(request.plan.local_share(self._registry.divisor), levels, request.cost, wait)

    async def _seed_shares(
        self, subjects: SubjectSet, request: AdmissionRequest, shares: Sequence[LocalShare]
    ) -> Answer:
        """Let quotas count from what is stored, and decide then."""
        for subject, share in zip(subjects.members, shares, strict=True):
            if not share.is_seeded:
                try:
                    share.seed_stored([units for units, _ in await self._stored(subject, share.of)])
                except Unavailable as exc:
                    return LimiterUnavailable(f"the quota cannot be read: {exc}")
        # The server may be back: then it decides, or what is admitted here would be reported by nobody.
        is_away = subjects.own.slot.supervisor.is_away
        answer = self._decide_locally(subjects, request) if is_away else self.admit(request)
        return answer if isinstance(answer, Answer) else await answer

    def _seed_step(self, step: Step) -> None:
        """Send *step* again with the stored counts of its quotas."""
        subject = step.subjects.own
        if not subject.name:  # inherited: whoever knows the name sends the stored counts, which have its units
            limits = subject.limits
            subject.request = subject.request._replace(plan=_plan_to_report((limits.rates, (), limits.concurrency)))
            subject.slot.batcher.submit(subject)
            return
        _ = self._spawn(self._send_with_seeds(step))

    async def _send_with_seeds(self, step: Step) -> None:
        subjects, request, futures, more = step
        readers = () if more is None else more.readers
        try:
            seeds = {
                index: await self._stored(subject, part.limits)
                for index, (subject, part) in enumerate(zip(subjects.members, request.plan.parts, strict=True))
                if part.limits.quotas
            }
        except Unavailable as exc:
            unavailable = LimiterUnavailable(f"the quota cannot be read: {exc}")
            for future in futures:
                set_result(future, unavailable)
            for reader in readers:
                set_result(reader, unavailable)
            return
        slot = subjects.own.slot
        if slot.supervisor.is_away:
            slot.batcher.resolve_locally(step)
            return
        subjects.wait(Step(subjects, request, futures, More(readers, seeds)))
        slot.batcher.submit(subjects.own)

    async def _stored(self, subject: Subject, limits: Limits) -> Sequence[StoredUnits]:
        """Return the stored counts of the quotas of *limits*. Raises StoreUnavailable."""
        if self._ledger is None:
            return [StoredUnits(0, 0)] * len(limits.quotas)
        return await self._ledger.taken(subject.name, limits.quotas)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._seeding.add(task)
        task.add_done_callback(self._seeding.discard)
        return task

    def _join(self, subject: Subject, request: AdmissionRequest) -> SubjectSet:
        """Return what *request* counts against, with *subject* as its own, and the others updated to its limits."""
        members = [subject]
        for name, part in zip(request.others, request.plan.parts[1:], strict=True):
            other = self._subjects.get(name)
            if other is None or other.limits is not part.limits:
                alone = AdmissionRequest(name, 0, plan_of((part,)), 0, group=request.group)
                other = other or self._add_subject(alone, request)
                other.request = alone
            members.append(other)
        marker = encode_bulk(self._key(request.group, request.group)) if request.group_version else b""
        subject.together = subject_set(tuple(members), request, marker)
        return subject.together

    def _add_subject(self, request: AdmissionRequest, of: AdmissionRequest | None = None) -> Subject:
        """Add the subject of *request*, which is a part of the request *of*, if it is not the whole."""
        if len(self._subjects) >= self._sweep_at:
            self._sweep(of or request)
        key = self._key(request.subject, request.group)
        return self._new_subject(request.subject, key, request, self._count_quotas)

    def _new_subject(
        self, name: str, key: bytes, request: AdmissionRequest, count_quotas: Callable[[str, int], "QuotaBatch | None"]
    ) -> Subject:
        subject = self._subjects[name] = Subject(
            request.subject, key, request, slot=self._topology.slot_of(key), count_quotas=count_quotas
        )
        return subject

    def _sweep(self, request: AdmissionRequest) -> None:
        """Drop the idle subjects, but for those of *request*, which is about to count against them.

        The next sweep runs when twice as many are held, so its cost is amortized.
        """
        now, needed = self._clock(), {request.subject, *request.others}
        for name, subject in list(self._subjects.items()):
            subject.together = None  # it may name a subject that is dropped
            if subject.is_idle(now) and name not in needed:
                del self._subjects[name]
        self._sweep_at = max(_FIRST_SWEEP, 2 * len(self._subjects))

    def _key(self, subject: str, group: str) -> bytes:
        # Digests: keys have one size and disclose no name, since subjects may be an issuer's user names. The part in
        # braces alone decides the slot of a Cluster, so that one script call reaches all subjects of a group.
        slot = blake2b((group or subject).encode(errors="surrogatepass"), digest_size=_GROUP_BYTES).digest()
        digest = blake2b(subject.encode(errors="surrogatepass"), digest_size=_DIGEST_BYTES).digest()
        return b"%s:{%s}%s" % (self._prefix, _text(slot), _text(digest))


def _count_nothing(_name: str, _units: int) -> None:
    """Count for nobody."""


def _name_of(shard: Shard) -> str:
    return "slots without a server" if shard.address is None else "{}:{}".format(*shard.address)


def _log_name(shard: Shard) -> str:
    return "Redis" if shard.address is None else f"Redis shard {_name_of(shard)}"


def _has_room(entry: tuple[Subject, LocalShare, Part], cost: int, now: float, today: float) -> bool:
    subject, share, part = entry
    share.advance(now, today)
    share.in_flight = subject.held if part.limits.concurrency is not None else 0
    return share.has_room(now, cost)


def _local_levels(entries: Sequence[tuple[Subject, LocalShare, Part]], now: float, today: float) -> list[float]:
    levels: list[float] = []
    for subject, share, _ in entries:
        share.in_flight = subject.held
        levels += share.levels(now, today)
    return levels


@lru_cache(_INHERITED_PLANS)
def _plan_to_report(limits: tuple[tuple[Rate, ...], tuple[Quota, ...], int | None]) -> Plan:
    return Plan((Part("key", Limits(*limits)),))


def _text(digest: bytes) -> bytes:
    return urlsafe_b64encode(digest).rstrip(b"=")
