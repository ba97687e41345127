"""What a decision asks of a limiter."""

from collections.abc import Mapping
from typing import Protocol

from machpay_gateway.core.limits.admission import (
    AdmissionRequest,
    Answer,
    LimiterUnavailable,
    Outage,
    PendingAnswer,
    Remaining,
    Stale,
)


class Limiter(Protocol):
    """Counts what subjects do."""

    @property
    def is_degraded(self) -> bool:
        """Whether it goes on without what it counts in."""

    @property
    def outage(self) -> Outage | None:
        """Why it does so; None when it does not."""

    @property
    def counts(self) -> Mapping[str, int]:
        """How many answers were given without what it counts in, by what held then."""

    @property
    def batches(self) -> Mapping[int, int]:
        """How often it asked what it counts in about how many callers at once."""

    async def open(self) -> None:
        """Make ready to count for a process that serves; it also counts without. Raises ConfigurationError."""

    async def close(self) -> None:
        """Give back what is held, and see that what was marked is known. It may be opened again."""

    def admit(self, demand: AdmissionRequest) -> Answer | PendingAnswer:
        """Check the version, take from the window and take a slot: together, or not at all.

        Returns the answer when it needs no I/O, else what waits for it: whoever is cancelled meanwhile holds
        nothing. When the answer had come then, and not arrived, `abandon` gives back what it brought.
        """

    async def remaining(self, demand: AdmissionRequest) -> Remaining | Stale | LimiterUnavailable:
        """Return what the subject of *demand* has left, and take nothing: no unit, and no slot for however short."""

    async def invalidate(self, subject: str, version: int) -> None:
        """Remember that *subject* is at *version*: demands of an older one are answered STALE."""
