"""The ports through which decisions reach a limiter, and a limiter the stored counts of quotas."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from machpay_gateway.core.limits.admission import (
    AdmissionRequest,
    Answer,
    LimiterUnavailable,
    Outage,
    PendingAnswer,
    Remaining,
    Stale,
)

# A subject, its new version, and the group with which it is stored. A group itself is a subject of its own name.
ChangedSubject = tuple[str, int, str]


class Limiter(Protocol):
    """Counts units and concurrency slots per subject."""

    @property
    def is_degraded(self) -> bool:
        """Whether it decides without its server."""

    @property
    def outage(self) -> Outage | None:
        """Why it is degraded; None when it is not."""

    @property
    def clock_skew_seconds(self) -> float | None:
        """How far this host's clock is ahead of its server's; None when that is not known."""

    @property
    def counts(self) -> Mapping[str, int]:
        """How many answers were given without the server, by failure mode."""

    @property
    def batches(self) -> Mapping[int, int]:
        """How many batches were sent to the server, by their size in steps."""

    async def open(self) -> None:
        """Get ready to count for a process that serves; without it, it still counts. Raises ConfigurationError."""

    async def close(self) -> None:
        """Release all slots and send pending invalidations. It may be opened again."""

    async def give_way(self) -> None:
        """Leave to a successor what only one process may count, while requests in flight end here."""

    def admit(self, request: AdmissionRequest) -> Answer | PendingAnswer:
        """Check the version, take units of the window and take a slot: together, or not at all.

        Returns the answer when it needs no I/O, else a pending one. A canceled caller holds no slot, except when the
        answer was there and not yet received: then `abandon` releases it.
        """

    async def remaining(self, request: AdmissionRequest) -> Remaining | Stale | LimiterUnavailable:
        """Return what the subject of *request* has left, without taking a unit or a slot, however briefly."""

    async def invalidate(self, changed: Sequence[ChangedSubject]) -> None:
        """Answer requests of the *changed* subjects that are older with STALE from now on."""

    def forget_versions(self) -> None:
        """Forget which versions this process has seen: they may be of a history that was undone."""

    async def lower_version(self, request: AdmissionRequest) -> None:
        """Let the versions of *request* be the newest, although there were newer ones: the record was restored."""


class StoredUnits(NamedTuple):
    """The stored *units* of a subject: those of all batches until *batch*, the number of one, and of no later one."""

    units: int
    batch: int


class QuotaStore(Protocol):
    """Where the units of quotas are stored, by subject and day. Raises StoreUnavailable."""

    async def add_quota_units(self, units: Sequence[tuple[str, int, int]], now: float) -> int:
        """Add a batch of *units*: a subject, a day since the epoch, and what to add to it. All of it, or nothing.

        Returns the number of the batch: more than that of any before, and than the ms that *now*, seconds since the
        epoch, has.
        """

    async def quota_units(self, subject: str, since: int) -> StoredUnits:
        """Return the units of *subject* on the day *since* and later."""

    async def drop_quota_units(self, now: float) -> None:
        """Delete the units that no quota counts any more at *now*, seconds since the epoch."""
