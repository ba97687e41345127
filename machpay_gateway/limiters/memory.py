"""The limiter within one process: strict cells and a count of what is in flight, a few hundred bytes a subject."""

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
    exceeded,
)
from machpay_gateway.core.limits.rate import CellWindow, Tier

if TYPE_CHECKING:
    from machpay_gateway.limiters.process_lock import ProcessLock

_new = tuple.__new__  # half the cost of a NamedTuple's own constructor, on every request
_MARK_SECONDS = 60.0  # longer than any decision that read the record before the change can take
_FIRST_SWEEP = 1024
_UNKNOWN_TIER = Tier("1/minute", 1)  # of a subject that was marked and has asked for nothing yet


class _Subject:
    """What is held of one subject. It is also the lease: giving back needs to know nothing else."""

    __slots__ = ("in_flight", "marked_until", "tier", "version", "window")

    def __init__(self, tier: Tier, version: int, now: float) -> None:
        self.tier = tier
        self.version = version
        self.window = CellWindow(tier.window_seconds, now)
        self.in_flight = 0
        self.marked_until = 0.0

    def release(self) -> None:
        self.in_flight -= 1


class MemoryLimiter:
    """A limiter for one process. Its clock is monotonic: a stepped wall clock neither opens nor shuts a window."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, sole: "ProcessLock | None" = None) -> None:
        """Start with nothing counted. *clock* returns seconds and never goes back; *sole* is had while it is open."""
        self._clock = clock
        self._sole = sole
        self._is_open = False
        self._subjects: dict[str, _Subject] = {}
        self._sweep_at = _FIRST_SWEEP

    # There is nothing that could be away, or be asked.
    is_degraded = False
    outage: Outage | None = None
    counts: Mapping[str, int] = MappingProxyType({})
    batches: Mapping[int, int] = MappingProxyType({})

    async def open(self) -> None:
        """Become the only process that counts. Raises ConfigurationError when another is."""
        if self._sole is not None and not self._is_open:
            await self._sole.take()
        self._is_open = True

    async def close(self) -> None:
        """Let another process count."""
        if self._sole is not None and self._is_open:
            self._sole.give_back()
        self._is_open = False

    def admit(self, demand: AdmissionRequest) -> Answer:
        """Check the version, take from the window and take a slot: together, or not at all."""
        name, version, tier, cost = demand
        now = self._clock()
        subject = self._subjects.get(name)
        if subject is None or subject.version != version or subject.tier is not tier:
            subject = self._brought_up(demand, now)
            if subject is None:
                return STALE
        window, in_flight = subject.window, subject.in_flight
        if in_flight >= tier.concurrency or not window.try_take(now, cost, tier.limit):
            return exceeded(window, tier, cost, in_flight, now)
        subject.in_flight = in_flight + 1
        taken = window.taken
        resets_in = window.frees_at - now if taken else 0.0
        return _new(Admitted, (subject, tier.limit - taken, resets_in, tier.concurrency - in_flight - 1, tier))

    async def remaining(self, demand: AdmissionRequest) -> Remaining | Stale:
        """Return what the subject of *demand* has left, and take nothing."""
        now, tier = self._clock(), demand.tier
        subject = self._brought_up(demand, now)
        if subject is None:
            return STALE
        window = subject.window
        window.advance(now)
        slots_left = max(0, tier.concurrency - subject.in_flight)
        return Remaining(max(0, tier.limit - window.taken), window.frees_in(now), slots_left, tier)

    async def invalidate(self, subject: str, version: int) -> None:
        """Answer demands of an older *version* with STALE from now on."""
        now = self._clock()
        held = self._subjects.get(subject)
        if held is None:
            held = self._subjects[subject] = _Subject(_UNKNOWN_TIER, version, now)
        held.version = max(held.version, version)
        held.marked_until = now + _MARK_SECONDS

    def __len__(self) -> int:
        return len(self._subjects)

    def _brought_up(self, demand: AdmissionRequest, now: float) -> _Subject | None:
        """Return the subject as *demand* knows it, or None when the demand is the one that is behind."""
        subject = self._subjects.get(demand.subject)
        if subject is None:
            if len(self._subjects) >= self._sweep_at:
                self._sweep(now)
            subject = self._subjects[demand.subject] = _Subject(demand.tier, demand.version, now)
        if demand.version < subject.version:
            return None
        subject.version = demand.version
        if subject.tier.window_seconds != demand.tier.window_seconds:
            subject.window = subject.window.resized(demand.tier.window_seconds, now)
        subject.tier = demand.tier
        return subject

    def _sweep(self, now: float) -> None:
        """Drop the subjects that hold nothing. Twice as many must enter before the next sweep: its cost is spread."""
        for name, subject in list(self._subjects.items()):
            subject.window.advance(now)
            if not subject.in_flight and not subject.window.taken and subject.marked_until <= now:
                del self._subjects[name]
        self._sweep_at = max(_FIRST_SWEEP, 2 * len(self._subjects))
