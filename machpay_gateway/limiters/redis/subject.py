"""What a worker knows of one subject: what it holds, what waits to be asked, and until when asking is no use."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from machpay_gateway.core.admission import CONCURRENCY, SLOT_WAIT_SECONDS, STALE, Answer, Demand, Exceeded, Granted
from machpay_gateway.limiters.redis.link import Argument

if TYPE_CHECKING:
    from machpay_gateway.limiters.redis.share import Share

_new = tuple.__new__  # half the cost of a NamedTuple's own constructor, on every request
# At most once a second: with the heartbeat's one command in 3 s, a subject that is hammered costs one a second in all.
_ASK_AGAIN_SECONDS = 1.5
_AS_BEFORE = -1
REPLY_FIELDS = 5  # for each step

Waiting = list[asyncio.Future[Answer]]


class Step(NamedTuple):
    """What is asked at once for one subject: all of *waiting* wait for an answer to the same *demand*."""

    subject: "Subject"
    demand: Demand
    waiting: Waiting
    holds: int  # slots, or _AS_BEFORE
    owed: int

    def arguments(self) -> tuple[Argument, ...]:
        """Return what `admit.lua` takes for it."""
        _, version, tier, cost = self.demand
        window = tier.window_seconds * 1000
        return tier.limit, window, tier.concurrency, version, cost, len(self.waiting), self.holds, self.owed


class _Spent(NamedTuple):
    """A refusal for the window: nothing but time can change it, unless the record changes."""

    demand: Demand
    until: float
    resets_at: float
    left: int
    slots_left: int


class Subject:
    """One subject. It is also the lease: giving back needs to know nothing else. Times are the worker's own clock's."""

    __slots__ = (
        *("_ask_at", "_restate", "_spent", "demand", "heard_at", "held", "is_asking", "is_queued"),
        *("key", "left", "owed", "share", "told", "waiting"),
    )

    def __init__(self, key: bytes, demand: Demand, restate: Callable[["Subject"], None]) -> None:
        """Know nothing yet. *restate* is called when the server believes something of it that is no longer so."""
        self.key = key
        self.demand = demand  # of the newest record: a step that only says what is held needs its tier
        self.held = 0
        self.told: int | None = 0  # what the server believes is held; None when that is not known
        self.waiting: list[tuple[Demand, Waiting]] = []
        self.is_asking = False
        self.is_queued = False
        self.left: int | None = None  # in the window, as last heard
        self.heard_at = 0.0
        self.owed = 0
        self.share: Share | None = None
        self._restate = restate
        self._spent: _Spent | None = None
        self._ask_at = 0.0

    def release(self) -> None:
        """Give one slot back."""
        self.held -= 1
        self._restate(self)

    def wait_for(self, demand: Demand, future: asyncio.Future[Answer]) -> None:
        """Let *future* wait for the answer to *demand*."""
        if demand.version >= self.demand.version:
            self.demand = demand
        if self.waiting and self.waiting[-1][0] is demand:
            self.waiting[-1][1].append(future)
        else:
            self.waiting.append((demand, [future]))

    def steps(self) -> list[Step]:
        """Return what is to be asked now; nothing more is, until each of them was answered or failed."""
        self.is_queued, self.is_asking, self.told = False, True, self.held
        groups, owed = self.waiting or [(self.demand, [])], self.owed
        self.waiting, self.owed = [], 0
        demand, waiting = groups[0]
        steps = [Step(self, demand, waiting, self.held, owed)]
        for demand, waiting in groups[1:]:
            steps.append(Step(self, demand, waiting, _AS_BEFORE, 0))
        return steps

    def settle(self, step: Step, reply: Sequence[int], now: float) -> None:
        """Answer all who wait for *step* with its part of a *reply* of `admit.lua`."""
        granted, left, slots_left, frees_ms, _ = reply
        if granted < 0:
            for future in step.waiting:
                answer(future, STALE)
            return
        tier, cost = step.demand.tier, step.demand.cost
        resets_in, after = frees_ms / 1000, granted
        for future in step.waiting[:granted]:
            after -= 1
            if not future.done():
                self.held += 1
                lefts = left + after * cost, resets_in, slots_left + after
                future.set_result(_new(Granted, (self, *lefts, tier)))
        if self.told is not None:
            self.told += granted
        self.left, self.heard_at = left, now
        if granted < len(step.waiting):
            refusal = self._refusal(step.demand, reply, now)
            for future in step.waiting[granted:]:
                answer(future, refusal)

    def fail(self, step: Step) -> None:
        """Take *step* back. Whether it was carried out is not known: what is owed is rather counted twice than not."""
        self.is_asking, self.told = False, None
        self.owed += step.owed

    def spent(self, demand: Demand, now: float) -> Exceeded | None:
        """Return the refusal of *demand* if its window is known to be spent; None when the server is to be asked."""
        spent = self._spent
        if spent is None:
            return None
        _, version, tier, cost = spent.demand
        if now >= spent.until or demand.version != version or demand.tier is not tier or demand.cost < cost:
            self._spent = None
            return None
        if now >= self._ask_at:
            self._ask_at = now + _ASK_AGAIN_SECONDS
            return None
        wait, resets_in = spent.until - now, max(0.0, spent.resets_at - now)
        return Exceeded(tier.policy_name, wait, spent.left, resets_in, spent.slots_left, tier)

    def is_idle(self, now: float) -> bool:
        """Whether nothing need be known of it any more."""
        is_busy = self.held or self.told != 0 or self.is_asking or self.is_queued or self.waiting or self.owed
        return not is_busy and self.share is None and now - self.heard_at > self.demand.tier.window_seconds

    def _refusal(self, demand: Demand, reply: Sequence[int], now: float) -> Exceeded:
        _, left, slots_left, frees_ms, wait_ms = reply
        tier, lefts = demand.tier, (max(0, left), frees_ms / 1000, max(0, slots_left))
        if left >= demand.cost:
            return Exceeded(CONCURRENCY, SLOT_WAIT_SECONDS, *lefts, tier)
        wait = wait_ms / 1000
        self._spent = _Spent(demand, now + wait, now + lefts[1], lefts[0], lefts[2])
        self._ask_at = now + _ASK_AGAIN_SECONDS
        return Exceeded(tier.policy_name, wait, *lefts, tier)


def answer(future: asyncio.Future[Answer], given: Answer) -> None:
    """Give the answer to whoever waits, unless they have gone."""
    if not future.done():
        future.set_result(given)
