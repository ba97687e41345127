"""The limiter within one process: a sliding window and a count of requests in flight, a few hundred bytes a subject."""

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from machpay_gateway.core.limits.admission import (
    STALE,
    AdmissionRequest,
    Admitted,
    Answer,
    Outage,
    Remaining,
    Stale,
    refusal_for,
)
from machpay_gateway.core.limits.rate import CellWindow, Tier

if TYPE_CHECKING:
    from machpay_gateway.limiters.process_lock import ProcessLock

_new = tuple.__new__  # half the cost of a NamedTuple's own constructor, on every request
_MARKER_SECONDS = 60.0  # longer than any decision takes that read the record before its change
_FIRST_SWEEP = 1024  # subjects
_UNKNOWN_TIER = Tier("1/minute", 1)  # of a subject that was invalidated before its first request


class _Counters:
    """One subject's counters. It is also the lease: that saves an object a request."""

    __slots__ = ("in_flight", "marker_until", "tier", "version", "window")

    def __init__(self, tier: Tier, version: int, now: float) -> None:
        self.tier = tier
        self.version = version
        self.window = CellWindow(tier.window_seconds, now)
        self.in_flight = 0
        self.marker_until = 0.0

    def release(self) -> None:
        self.in_flight -= 1


class MemoryLimiter:
    """A limiter for one process. Its clock is monotonic, so a step of the wall clock changes no window."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, *, process_lock: "ProcessLock | None" = None
    ) -> None:
        """Start empty. *clock* returns monotonic seconds; *process_lock* is held while the limiter is open."""
        self._clock = clock
        self._process_lock = process_lock
        self._is_open = False
        self._subjects: dict[str, _Counters] = {}
        self._sweep_at = _FIRST_SWEEP

    # It depends on no server.
    is_degraded = False
    outage: Outage | None = None
    counts: Mapping[str, int] = MappingProxyType({})
    batches: Mapping[int, int] = MappingProxyType({})

    async def open(self) -> None:
        """Become the only process that counts. Raises ConfigurationError when another one serves."""
        if self._process_lock is not None and not self._is_open:
            await self._process_lock.acquire()
        self._is_open = True

    async def close(self) -> None:
        """Release the lock, so that another process may count."""
        if self._process_lock is not None and self._is_open:
            self._process_lock.release()
        self._is_open = False

    def admit(self, request: AdmissionRequest) -> Answer:
        """Check the version, take from the window and take a slot: together, or not at all."""
        name, version, tier, cost = request
        now = self._clock()
        subject = self._subjects.get(name)
        if subject is None or subject.version != version or subject.tier is not tier:
            subject = self._current_subject(request, now)
            if subject is None:
                return STALE
        window, in_flight = subject.window, subject.in_flight
        if in_flight >= tier.concurrency or not window.try_take(now, cost, tier.limit):
            return refusal_for(window, tier, cost, in_flight, now)
        subject.in_flight = in_flight + 1
        taken = window.taken
        resets_in = window.frees_at - now if taken else 0.0
        return _new(Admitted, (subject, tier.limit - taken, resets_in, tier.concurrency - in_flight - 1, tier))

    async def remaining(self, request: AdmissionRequest) -> Remaining | Stale:
        """Return what the subject of *request* has left, without taking any."""
        now, tier = self._clock(), request.tier
        subject = self._current_subject(request, now)
        if subject is None:
            return STALE
        window = subject.window
        window.advance(now)
        slots_left = max(0, tier.concurrency - subject.in_flight)
        return Remaining(max(0, tier.limit - window.taken), window.frees_in(now), slots_left, tier)

    async def invalidate(self, subject: str, version: int) -> None:
        """Answer requests of *subject* that are older than *version* with STALE from now on."""
        now = self._clock()
        entry = self._subjects.get(subject)
        if entry is None:
            entry = self._subjects[subject] = _Counters(_UNKNOWN_TIER, version, now)
        entry.version = max(entry.version, version)
        entry.marker_until = now + _MARKER_SECONDS

    def __len__(self) -> int:
        return len(self._subjects)

    def _current_subject(self, request: AdmissionRequest, now: float) -> _Counters | None:
        """Return the subject, updated to the tier and version of *request*; None when the request is the older one."""
        subject = self._subjects.get(request.subject)
        if subject is None:
            if len(self._subjects) >= self._sweep_at:
                self._sweep(now)
            subject = self._subjects[request.subject] = _Counters(request.tier, request.version, now)
        if request.version < subject.version:
            return None
        subject.version = request.version
        if subject.tier.window_seconds != request.tier.window_seconds:
            subject.window = subject.window.resized(request.tier.window_seconds, now)
        subject.tier = request.tier
        return subject

    def _sweep(self, now: float) -> None:
        """Drop the idle subjects. The next sweep runs when twice as many are held, so its cost is amortized."""
        for name, subject in list(self._subjects.items()):
            subject.window.advance(now)
            if not subject.in_flight and not subject.window.taken and subject.marker_until <= now:
                del self._subjects[name]
        self._sweep_at = max(_FIRST_SWEEP, 2 * len(self._subjects))
