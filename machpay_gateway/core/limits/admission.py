"""Admission: what a request asks of a limiter in one atomic step, and the four answers it can get."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, Protocol

from machpay_gateway.core.limits.plan import Levels, Plan
from machpay_gateway.core.limits.rate import CONCURRENCY

MAX_CHARGE = 10**9
SLOT_WAIT_SECONDS = 1.0  # nobody knows when a slot frees; a shorter wait would only make callers poll


class AdmissionRequest(NamedTuple):
    """One request's claim on what its *plan* limits. *version* is that of the record that identified the caller.

    *subject* is its own. *others* are the further subjects of the plan, in its order; they share *group*, which names
    what is stored together, so that one step reaches all of them: the account. *group_version* is that of the account,
    0 if it is in *version*.
    """

    subject: str
    version: int
    plan: Plan
    cost: int
    others: tuple[str, ...] = ()
    group: str = ""
    group_version: int = 0


class Lease(Protocol):
    """What was admitted together: the concurrency slots that are held, and the counters that more can be charged to."""

    def release(self) -> None:
        """Give the slots back, once. Never blocks or fails: the caller may be handling a cancellation."""

    def charge(self, units: int) -> None:
        """Take *units* more from every window and quota, even where that overdraws them."""


class Admitted(NamedTuple):
    """Units of every window and quota, and the slots, were taken together.

    *plan* is what decided: the caller's own, or a worker's local share of it while the limiter is unavailable. A
    request that *is_shadow_limited* is over limits that are not enforced: they took nothing.
    """

    lease: Lease
    levels: Levels
    plan: Plan
    is_shadow_limited: bool = False

    def charge(self, units: int) -> None:
        """Take *units* beyond the route's cost, even if that overdraws: then nothing is admitted until there is room.

        Raises ValueError for less than 0 or more than 10**9.
        """
        self.lease.charge(checked_charge(units))


class Uncounted:
    """The admission of a request that nothing limits."""

    __slots__ = ()

    def charge(self, units: int) -> None:
        """Check *units* as `Admitted.charge` does, and take none."""
        checked_charge(units)


UNCOUNTED = Uncounted()


def checked_charge(units: int) -> int:
    """Return *units*. Raises ValueError unless they are from 0 to 10**9."""
    if type(units) is not int or not 0 <= units <= MAX_CHARGE:
        raise ValueError(f"{units!r} is not a number of units: use 0 to {MAX_CHARGE}")
    return units


@dataclass(frozen=True, slots=True)
class Exceeded:
    """Nothing was taken: *policies* are the names of all that have no room; they all have some in *wait_seconds*."""

    policies: tuple[str, ...]
    wait_seconds: float
    levels: Levels
    plan: Plan


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
    """Why a limiter decides without its server: for how many *seconds* so far, and in which failure *mode*.

    *part* is which part of several servers is away; "" when it is the only one.
    """

    seconds: float
    reason: str
    mode: str
    part: str = ""


class Remaining(NamedTuple):
    """What the subjects of a request have left, over all workers. Reading it takes nothing."""

    levels: Levels
    plan: Plan


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


def refusal_for(plan: Plan, levels: Levels, cost: int, wait_seconds: float) -> Exceeded:
    """Return the refusal of *cost* where *levels*, below 0 for what is overdrawn, are left of *plan*.

    *wait_seconds* is when every exceeded rate and quota has room; nobody knows when a slot frees.
    """
    policies = plan.violated(levels, cost)
    if any(name.endswith(CONCURRENCY) for name in policies):
        wait_seconds = max(wait_seconds, SLOT_WAIT_SECONDS)
    return Exceeded(policies, wait_seconds, levels, plan)
