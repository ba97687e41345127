"""The limiter within one process: windows, quotas and counts of requests in flight, a few hundred bytes a subject."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from machpay_gateway.core.errors import Unavailable
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
from machpay_gateway.core.limits.counters import Counters
from machpay_gateway.core.limits.plan import Levels, Part, Plan
from machpay_gateway.core.limits.ports import ChangedSubject
from machpay_gateway.core.limits.rate import Limits

if TYPE_CHECKING:
    from machpay_gateway.limiters.process_lock import ProcessLock
    from machpay_gateway.limiters.quota_ledger import QuotaLedger

_new = tuple.__new__  # half the cost of a NamedTuple's own constructor, on every request
_MARKER_SECONDS = 60.0  # longer than any decision takes that read the record before its change
_FIRST_SWEEP = 1024  # subjects
_NO_LIMITS = Limits()  # of a subject that was invalidated before its first request


class _MemorySubject(Counters):
    """One subject. It is also the lease of a request that counts against it alone: that saves an object a request."""

    __slots__ = ("limiter", "marker_until", "name", "plan", "together", "version")

    def __init__(self, limiter: "MemoryLimiter", name: str, limits: Limits, now: float, today: float) -> None:
        super().__init__(limits, now, today)
        self.limiter = limiter
        self.name = name
        self.version = 0
        self.plan: Plan | None = None  # of the newest request
        self.together: _MemorySet | None = None  # of the newest request with several limits
        self.marker_until = 0.0

    def release(self) -> None:
        self.in_flight -= 1

    def charge(self, units: int) -> None:
        self.limiter.charge([self], units)


class _MemorySet:
    """The subjects that requests with one *plan* count against, in the order of its parts. It is also their lease."""

    __slots__ = ("_holding", "_limiter", "members", "names", "parts", "plan")

    def __init__(
        self,
        limiter: "MemoryLimiter",
        parts: Sequence[tuple[_MemorySubject, Part]],
        plan: Plan,
        names: tuple[str, ...],
    ) -> None:
        self._limiter = limiter
        self.parts = parts
        self.plan = plan
        self.names = names  # of the others
        self.members = [subject for subject, _ in parts]
        self._holding = [subject for subject, part in parts if part.limits.concurrency is not None]

    def release(self) -> None:
        for subject in self._holding:
            subject.in_flight -= 1

    def charge(self, units: int) -> None:
        self._limiter.charge(self.members, units)

    def enforced(self) -> "_MemorySet":
        """Return the subjects of enforced parts alone, for a request that is over the limits of others."""
        parts = [(subject, part) for subject, part in self.parts if part.enforced]
        return _MemorySet(self._limiter, parts, self.plan, self.names)


class MemoryLimiter:
    """A limiter for one process. Its clock is monotonic, so a step of the wall clock changes no window."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        wall_clock: Callable[[], float] = time.time,
        process_lock: "ProcessLock | None" = None,
        ledger: "QuotaLedger | None" = None,
    ) -> None:
        """Start empty. *clock* returns monotonic seconds, *wall_clock* seconds since the epoch, for quotas.

        *process_lock* is held while the limiter is open. *ledger* stores what quotas admit, and has what they admitted
        before; without one they count from 0.
        """
        self._clock = clock
        self._wall_clock = wall_clock
        self._process_lock = process_lock
        self._ledger = ledger
        self._is_open = False
        self._subjects: dict[str, _MemorySubject] = {}
        self._sweep_at = _FIRST_SWEEP
        self._group_versions: dict[str, int] = {}  # of accounts that were changed here
        self._groups_until = 0.0

    # It depends on no server.
    is_degraded = False
    outage: Outage | None = None
    clock_skew_seconds: float | None = None
    counts: Mapping[str, int] = MappingProxyType({})
    batches: Mapping[int, int] = MappingProxyType({})

    async def open(self) -> None:
        """Become the only process that counts. Raises ConfigurationError when another one serves."""
        if self._process_lock is not None and not self._is_open:
            await self._process_lock.acquire()
        self._is_open = True

    async def close(self) -> None:
        """Store what quotas have admitted, and release the lock, so that another process may count."""
        if self._ledger is not None:
            await self._ledger.close()
        if self._process_lock is not None and self._is_open:
            self._process_lock.release()
        self._is_open = False

    async def give_way(self) -> None:
        """Let another process count."""
        await self.close()

    def admit(self, request: AdmissionRequest) -> Answer | PendingAnswer:
        """Check the version, take from every window and quota, and take the slots: together, or not at all."""
        name, version, plan, cost, _, group, group_version = request
        now = self._clock()
        if self._group_versions and 0 < group_version < self._group_versions.get(group, 0):
            return STALE
        subject = self._subjects.get(name)
        if subject is None or subject.version != version or subject.plan is not plan:
            subject = self._current_subject(request, now)
            if subject is None:
                return STALE
        if not plan.is_simple:
            return self._admit_by_all(request, subject, now)
        window, in_flight = subject.windows[0], subject.in_flight
        if in_flight >= plan.concurrency or not window.try_take(now, cost, plan.limit):
            window.advance(now)
            wait = window.frees_in(now, window.taken + cost - plan.limit) if window.taken + cost > plan.limit else 0.0
            return refusal_for(plan, tuple(subject.levels(now, 0.0)), cost, wait)
        subject.in_flight = in_flight + 1
        taken = window.taken
        levels = plan.limit - taken, window.frees_at - now if taken else 0.0, plan.concurrency - in_flight - 1
        return _new(Admitted, (subject, levels, plan, False))

    async def remaining(self, request: AdmissionRequest) -> Remaining | Stale | LimiterUnavailable:
        """Return what the subjects of *request* have left, without taking any."""
        now, today = self._clock(), self._wall_clock()
        subject = self._current_subject(request, now)
        if subject is None:
            return STALE
        subjects = self._subjects_of(request, subject, now).members
        try:
            await self._seed(subjects)
        except Unavailable as exc:
            return LimiterUnavailable(f"the quota cannot be read: {exc}")
        for one in subjects:
            one.advance(now, today)
        return Remaining(_levels(subjects, now, today), request.plan)

    async def invalidate(self, changed: Sequence[ChangedSubject]) -> None:
        """Answer requests of the *changed* subjects and groups that are older with STALE from now on."""
        now = self._clock()
        for subject, version, group in changed:
            if subject == group:
                self._group_versions[group] = max(version, self._group_versions.get(group, 0))
                self._groups_until = now + _MARKER_SECONDS
            else:
                self._invalidate(subject, version, now)

    def forget_versions(self) -> None:
        """Forget which versions were seen."""
        self._group_versions.clear()
        for subject in self._subjects.values():
            subject.version = 0

    async def lower_version(self, request: AdmissionRequest) -> None:
        """Let the versions of *request* be the newest, although there were newer ones."""
        if request.group in self._group_versions:
            self._group_versions[request.group] = request.group_version
        if (subject := self._subjects.get(request.subject)) is not None:
            subject.version = min(subject.version, request.version)

    def _invalidate(self, subject: str, version: int, now: float) -> None:
        entry = self._subjects.get(subject) or self._add_subject(subject, _NO_LIMITS, now)
        entry.version = max(entry.version, version)
        entry.marker_until = now + _MARKER_SECONDS

    def charge(self, subjects: Sequence[_MemorySubject], units: int) -> None:
        """Take *units* more from *subjects*, even where that overdraws them."""
        now, today = self._clock(), self._wall_clock()
        for charged in subjects:
            subject = self._subjects.setdefault(charged.name, charged)  # it may have been dropped, and may be back
            subject.take(now, today, units)
            self._count_quotas(subject, units)

    def __len__(self) -> int:
        return len(self._subjects) + len(self._group_versions)

    def _admit_by_all(self, request: AdmissionRequest, subject: _MemorySubject, now: float) -> Answer | PendingAnswer:
        """Decide a request that counts against several limits."""
        today, plan, cost = self._wall_clock(), request.plan, request.cost
        subjects = self._subjects_of(request, subject, now)
        if plan.has_quotas and not all(one.has_counts(today) for one in subjects.members):
            return asyncio.ensure_future(self._seed_and_admit(request, subjects.members))
        taking = subjects
        for one, part in subjects.parts:
            if not one.has_room(now, cost):
                if part.enforced:
                    return _refuse(subjects, request, now, today)
                taking = subjects.enforced()
        for one, part in taking.parts:
            one.take(now, today, cost)
            if part.limits.concurrency is not None:
                one.in_flight += 1
            if one.quotas:
                self._count_quotas(one, cost)
        return _new(Admitted, (taking, _levels(subjects.members, now, today), plan, taking is not subjects))

    async def _seed_and_admit(self, request: AdmissionRequest, subjects: Sequence[_MemorySubject]) -> Answer:
        try:
            await self._seed(subjects)
        except Unavailable as exc:
            return LimiterUnavailable(f"the quota cannot be read: {exc}")
        answer = self.admit(request)
        return answer if isinstance(answer, Answer) else await answer

    async def _seed(self, subjects: Sequence[_MemorySubject]) -> None:
        """Give every quota of *subjects* its stored count. Raises StoreUnavailable."""
        for subject in subjects:
            if not subject.is_seeded:
                quotas = subject.limits.quotas
                stored = [] if self._ledger is None else await self._ledger.taken(subject.name, quotas)
                if subject.limits.quotas is quotas:  # else its tier has changed in the meantime
                    subject.seed([units for units, _ in stored] or [0] * len(quotas))

    def _count_quotas(self, subject: _MemorySubject, units: int) -> None:
        if self._ledger is not None and subject.quotas and units:
            self._ledger.count(subject.name, units)

    def _subjects_of(self, request: AdmissionRequest, subject: _MemorySubject, now: float) -> _MemorySet:
        """Return all subjects of *request*, whose own one is *subject*, updated to its limits."""
        subjects = subject.together
        if subjects is None or subjects.plan is not request.plan or subjects.names != request.others:
            subjects = subject.together = self._join(request, subject, now)
        for one, part in subjects.parts:
            if one.limits is not part.limits:
                one.change(part.limits, now, self._wall_clock())
        return subjects

    def _join(self, request: AdmissionRequest, subject: _MemorySubject, now: float) -> _MemorySet:
        own, *shared = request.plan.parts
        others = [
            (self._subjects.get(name) or self._add_subject(name, part.limits, now, request), part)
            for name, part in zip(request.others, shared, strict=True)
        ]
        return _MemorySet(self, [(subject, own), *others], request.plan, request.others)

    def _current_subject(self, request: AdmissionRequest, now: float) -> _MemorySubject | None:
        """Return the subject, updated to the limits and version of *request*; None when the request is older."""
        limits = request.plan.parts[0].limits
        subject = self._subjects.get(request.subject) or self._add_subject(request.subject, limits, now)
        if request.version < subject.version:
            return None
        subject.version, subject.plan = request.version, request.plan
        if subject.limits is not limits:
            subject.change(limits, now, self._wall_clock())
        return subject

    def _add_subject(
        self, name: str, limits: Limits, now: float, request: AdmissionRequest | None = None
    ) -> _MemorySubject:
        if len(self._subjects) >= self._sweep_at:
            self._sweep(now, request)
        subject = self._subjects[name] = _MemorySubject(self, name, limits, now, self._wall_clock())
        return subject

    def _sweep(self, now: float, request: AdmissionRequest | None) -> None:
        """Drop the idle subjects, but for those of *request*, which is about to count against them.

        The next sweep runs when twice as many are held, so its cost is amortized.
        """
        if self._groups_until <= now:
            self._group_versions.clear()
        today = self._wall_clock()
        needed = () if request is None else {request.subject, *request.others}
        for name, subject in list(self._subjects.items()):
            subject.advance(now, today)
            subject.together = None  # it may name a subject that is dropped
            is_idle = not subject.in_flight and not any(window.taken for window in subject.windows)
            if is_idle and subject.marker_until <= now and name not in needed:
                del self._subjects[name]
        self._sweep_at = max(_FIRST_SWEEP, 2 * len(self._subjects))


def _refuse(subjects: _MemorySet, request: AdmissionRequest, now: float, today: float) -> Exceeded:
    for one in subjects.members:
        one.advance(now, today)
    wait = max(one.wait_seconds(now, today, request.cost) for one, part in subjects.parts if part.enforced)
    return refusal_for(request.plan, _levels(subjects.members, now, today), request.cost, wait)


def _levels(subjects: Sequence[_MemorySubject], now: float, today: float) -> Levels:
    if len(subjects) == 1:
        return tuple(subjects[0].levels(now, today))
    return tuple([level for subject in subjects for level in subject.levels(now, today)])
