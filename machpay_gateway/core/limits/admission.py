"""Admission: what a request asks of a limiter in one atomic step, and the four answers it can get."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, Protocol

from machpay_gateway.core.limits.rate import CellWindow, Tier

CONCURRENCY = "concurrency"  # the policy's name in headers and refusals
SLOT_WAIT_SECONDS = 1.0  # nobody knows when a slot frees; a shorter wait would only make callers poll


class AdmissionRequest(NamedTuple):
    """One request's claim on its subject's quota. *version* is that of the record that identified the caller."""

    subject: str
    version: int
    tier: Tier
    cost: int


class Lease(Protocol):
    """A held concurrency slot."""

    def release(self) -> None:
        """Give the slot back, once. Never blocks or fails: the caller may be handling a cancellation."""


class Admitted(NamedTuple):
    """Units of the window and a slot were taken together."""

    lease: Lease
    left: int  # units left in the window
    resets_in: float  # seconds until the next unit frees
    slots_left: int
    tier: Tier  # that decided: the caller's own, or a worker's local share of it while the limiter is unavailable


@dataclass(frozen=True, slots=True)
class Exceeded:
    """Nothing was taken: *policy* is the window's name or `concurrency`; retry after *wait_seconds*."""

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
    """The limiter's server does not answer, and the failure mode admits nothing without it. *detail* is for the log."""

    detail: str


Answer = Admitted | Exceeded | Stale | LimiterUnavailable


class Outage(NamedTuple):
    """Why a limiter decides without its server: for how many *seconds* so far, and in which failure *mode*."""

    seconds: float
    reason: str
    mode: str


class Remaining(NamedTuple):
    """What a subject has left of its window and its slots, over all workers. Reading it takes nothing."""

    left: int
    resets_in: float  # seconds until the next unit frees
    slots_left: int
    tier: Tier


class PendingAnswer(Awaitable[Answer], Protocol):
    """An answer that needs I/O: the part of an asyncio future that a caller uses. Canceling the caller cancels it."""

    def done(self) -> bool:
        """Return whether it has a result or was canceled."""

    def cancelled(self) -> bool:
        """Return whether it was canceled."""

    def result(self) -> Answer:
        """Return the answer."""

    def cancel(self) -> bool:
        """Cancel it; False when it is done already."""

    def add_done_callback(self, callback: Callable[[Any], object], /) -> None:
        """Call *callback* when it is done."""


def abandon(pending: PendingAnswer) -> None:
    """Release the slot that *pending* may hold for a caller that was canceled before it received the answer."""
    if pending.done() and not pending.cancelled() and isinstance(answer := pending.result(), Admitted):
        answer.lease.release()


async def take_and_release(answer: Answer | PendingAnswer) -> Answer:
    """Return *answer* once it is there and release its slot: for events that are counted and take no time."""
    if not isinstance(answer, Answer):
        pending = answer
        try:
            answer = await pending
        except BaseException:
            abandon(pending)
            raise
    if isinstance(answer, Admitted):
        answer.lease.release()
    return answer


def refusal_for(window: CellWindow, tier: Tier, cost: int, in_flight: int, now: float) -> Exceeded:
    """Return the refusal of *cost* at *now* by *tier*, with *in_flight* slots held."""
    window.advance(now)
    is_over_window = window.taken + cost > tier.limit
    return Exceeded(
        policy=tier.policy_name if is_over_window else CONCURRENCY,
        wait_seconds=window.frees_in(now, window.taken + cost - tier.limit) if is_over_window else SLOT_WAIT_SECONDS,
        left=max(0, tier.limit - window.taken),
        resets_in=window.frees_in(now),
        slots_left=max(0, tier.concurrency - in_flight),
        tier=tier,
    )
