"""Admission: what is asked of a limiter in one atomic step, and the four things it can answer."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, Protocol

from machpay_gateway.core.limits.rate import CellWindow, Tier

CONCURRENCY = "concurrency"  # the name of that policy in headers and answers
SLOT_WAIT_SECONDS = 1.0  # when a slot frees is not ours to know; sooner would only be a busy loop


class AdmissionRequest(NamedTuple):
    """What one request asks of its subject's quota. *version* is that of the record the caller was identified by."""

    subject: str
    version: int
    tier: Tier
    cost: int


class Lease(Protocol):
    """A held concurrency slot."""

    def release(self) -> None:
        """Give the slot back, once. Never blocks or fails: the caller may be on its way out of a cancellation."""


class Admitted(NamedTuple):
    """The window and a slot were taken together."""

    lease: Lease
    left: int  # units left in the window
    resets_in: float  # seconds until the next unit frees
    slots_left: int
    tier: Tier  # what it was granted by: the caller's own, or a worker's part of it while the limiter is away


@dataclass(frozen=True, slots=True)
class Exceeded:
    """Nothing was taken: *policy* is the window's name or `concurrency`; ask again after *wait_seconds*."""

    policy: str
    wait_seconds: float
    left: int
    resets_in: float
    slots_left: int
    tier: Tier


class Stale(Enum):
    """The record has changed since it was read: load it again and decide once more."""

    STALE = "stale"


STALE = Stale.STALE


@dataclass(frozen=True, slots=True)
class LimiterUnavailable:
    """The limiter cannot be asked, and nothing may be admitted without it. *detail* is for the log."""

    detail: str


Answer = Admitted | Exceeded | Stale | LimiterUnavailable


class Outage(NamedTuple):
    """Why a limiter goes on without what it counts in: for how many *seconds* now, and by which *mode* meanwhile."""

    seconds: float
    reason: str
    mode: str


class Remaining(NamedTuple):
    """What a subject has left of the window and of its slots, over all workers. Nothing was taken to find out."""

    left: int
    resets_in: float  # seconds until the next unit frees
    slots_left: int
    tier: Tier


class PendingAnswer(Awaitable[Answer], Protocol):
    """An answer that needs I/O: what asyncio calls a future. It is cancelled with whoever waits for it."""

    def done(self) -> bool:
        """Tell whether it has come, or never will."""

    def cancelled(self) -> bool:
        """Tell whether nobody waits for it any more."""

    def result(self) -> Answer:
        """Return what has come."""

    def cancel(self) -> bool:
        """Wait no more; False when it has come already."""

    def add_done_callback(self, told: Callable[[Any], object], /) -> None:
        """Tell *told* when it has come, or never will."""


def abandon(answer: PendingAnswer) -> None:
    """Give back what *answer* may have brought already to somebody who was cancelled before it arrived."""
    if answer.done() and not answer.cancelled() and isinstance(granted := answer.result(), Admitted):
        granted.lease.release()


async def take_and_release(answer: Answer | PendingAnswer) -> Answer:
    """Return *answer* once it is there and give back the slot that it holds: for what is counted and takes no time."""
    if not isinstance(answer, Answer):
        coming = answer
        try:
            answer = await coming
        except BaseException:
            abandon(coming)
            raise
    if isinstance(answer, Admitted):
        answer.lease.release()
    return answer


def exceeded(window: CellWindow, tier: Tier, cost: int, held: int, now: float) -> Exceeded:
    """Return the refusal of *cost* at *now* by *tier*, where *held* slots are taken."""
    window.advance(now)
    over_window = window.taken + cost > tier.limit
    return Exceeded(
        policy=tier.policy_name if over_window else CONCURRENCY,
        wait_seconds=window.frees_in(now, window.taken + cost - tier.limit) if over_window else SLOT_WAIT_SECONDS,
        left=max(0, tier.limit - window.taken),
        resets_in=window.frees_in(now),
        slots_left=max(0, tier.concurrency - held),
        tier=tier,
    )
