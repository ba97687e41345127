"""What a worker knows of one subject: what it holds, what waits to be asked, and until when asking is no use."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from machpay_gateway.core.limits.admission import (
    CONCURRENCY,
    SLOT_WAIT_SECONDS,
    STALE,
    AdmissionRequest,
    Admitted,
    Answer,
    Exceeded,
    LimiterUnavailable,
    Remaining,
    Stale,
)
from machpay_gateway.limiters.redis.link import bring
from machpay_gateway.limiters.redis.wire import bulk

if TYPE_CHECKING:
    from machpay_gateway.limiters.redis.local_share import LocalShare

_new = tuple.__new__  # half the cost of a NamedTuple's own constructor, on every request
# At most once a second: with the heartbeat's one command in 3 s, a subject that is hammered costs one a second in all.
_ASK_AGAIN_SECONDS = 1.5
_ROUNDING_SECONDS = 0.001  # the script's waits are whole milliseconds, rounded up


class Step(NamedTuple):
    """What is asked at once for one subject: all of *waiting* wait for an answer to the same *demand*."""

    subject: "Subject"
    demand: AdmissionRequest
    waiting: list[asyncio.Future[Answer]]


class _Spent(NamedTuple):
    """A refusal for the window: nothing but time can change it, unless the record changes."""

    demand: AdmissionRequest
    until: float
    resets_at: float
    left: int
    slots_left: int
    held: int  # by this worker, of the slots


class Subject:
    """One subject. It is also the lease: giving back needs to know nothing else. Times are the worker's own clock's."""

    __slots__ = (
        "_ask_at",
        "_asked",
        "_restate",
        "_shown_to",
        "_written",
        "demand",
        "heard_at",
        "held",
        "is_asking",
        "is_late",
        "is_queued",
        "key",
        "owed",
        "owed_told",
        "share",
        "slots_left",
        "spent",
        "taken",
        "told",
        "waiting",
        "written_key",
    )

    def __init__(self, key: bytes, demand: AdmissionRequest, restate: Callable[["Subject"], None]) -> None:
        """Know nothing yet. *restate* is called when the server believes something of it that is no longer so."""
        self.key = key
        self.written_key = bulk(key)
        self.demand = demand  # of the newest record: a step that only says what is held needs its tier
        self.held = 0
        self.told: int | None = 0  # what the server believes is held; None when that is not known
        self.waiting: list[Step] = []
        self.is_asking = False
        self.is_queued = False
        self.is_late = False  # what was released is not told yet
        self.slots_left = 0  # over all workers, as last heard
        self.taken: int | None = None  # of the window, by all workers, as last heard
        self.heard_at = 0.0
        self.owed = 0  # units that were admitted while no server could be told
        self.owed_told = 0  # of them, what is being told now
        self.share: LocalShare | None = None
        self._restate = restate
        self.spent: dict[int, _Spent] = {}  # by the cost that was refused
        self._ask_at = 0.0
        self._asked: tuple[AdmissionRequest, int, int, int] | None = None
        self._written = b""
        self._shown_to: list[asyncio.Future[Remaining | Stale | LimiterUnavailable]] = []

    def release(self) -> None:
        """Give one slot back."""
        self.held -= 1
        self._restate(self)

    def wait_for(self, demand: AdmissionRequest, future: asyncio.Future[Answer]) -> None:
        """Let *future* wait for the answer to *demand*."""
        if self.waiting:
            _, asked, waiting = self.waiting[-1]
            if asked is demand:
                waiting.append(future)
                return
        if demand is not self.demand and demand.version >= self.demand.version:
            self.demand = demand
        self.waiting.append(_new(Step, (self, demand, [future])))

    def show(self, demand: AdmissionRequest, future: asyncio.Future[Remaining | Stale | LimiterUnavailable]) -> None:
        """Let *future* have what the next answer says is left, whatever that one was asked for."""
        if demand.version >= self.demand.version:
            self.demand = demand
        self._shown_to.append(future)

    def written(self, demand: AdmissionRequest, waiting: int, held: int, owed: int) -> bytes:
        """Return what `admit.lua` takes of a step, written once for as long as the same is asked."""
        asked = demand, waiting, held, owed
        if asked != self._asked:
            _, version, tier, cost = demand
            window = tier.window_seconds * 1000
            self._asked = asked
            self._written = bulk(tier.limit, window, tier.concurrency, version, cost, waiting, held, owed)
        return self._written

    def steps(self) -> list[Step]:
        """Return what is to be asked now; nothing more is, until each of them was answered or failed."""
        self.is_queued, self.is_asking, self.told = False, True, self.held
        self.owed_told, self.owed = self.owed, 0
        steps, self.waiting = self.waiting or [Step(self, self.demand, [])], []
        return steps

    def settle(self, step: Step, reply: Sequence[int], asked_at: float) -> None:
        """Answer all who wait for *step* with its part of a *reply* of `admit.lua`.

        The server decided at *asked_at* or later: counting from there, nothing is refused here after it has freed.
        """
        self.is_asking = False
        granted, left, slots_left, frees_ms, _ = reply
        _, demand, waiting = step
        if self._shown_to:
            self._tell(
                Remaining(max(0, left), frees_ms / 1000, max(0, slots_left), demand.tier) if granted >= 0 else STALE
            )
        if granted < 0:
            for future in waiting:
                bring(future, STALE)
            self.owed, self.owed_told = self.owed + self.owed_told, 0  # a record that is behind counts nothing
            return
        _, _, tier, cost = demand
        self.owed_told = 0
        self.taken, self.slots_left, self.heard_at = tier.limit - left, slots_left, asked_at
        resets_in, after = frees_ms / 1000, granted
        refusal: Exceeded | None = None
        for future in waiting:
            if not after:
                refusal = refusal or self._refusal(demand, reply, asked_at)
                bring(future, refusal)
                continue
            after -= 1
            if not future.done():
                self.held += 1
                future.set_result(_new(Admitted, (self, left + after * cost, resets_in, slots_left + after, tier)))
        if self.told is not None:
            self.told += granted
        if granted and cost and self.spent:
            self.spent.clear()  # what was refused before has longer to wait now

    def fail(self) -> None:
        """Take back what was asked: whether it was carried out is not known, and owed units rather count twice."""
        self.is_asking, self.told = False, None
        self.owed, self.owed_told = self.owed + self.owed_told, 0
        self.show_nothing()

    def show_nothing(self) -> None:
        """Tell whoever was to be shown what is left that nobody knows."""
        if self._shown_to:
            self._tell(LimiterUnavailable("Redis does not answer"))

    def refused_again(self, demand: AdmissionRequest, now: float) -> Exceeded | None:
        """Return the refusal of *demand* if its window is known to be spent; None when the server is to be asked."""
        spent = self.spent.get(demand.cost)
        if spent is None:
            return None
        _, version, tier, _ = spent.demand
        if now >= spent.until or demand.version != version or demand.tier is not tier:
            self.spent.clear()
            return None
        if now >= self._ask_at:
            self._ask_at = now + _ASK_AGAIN_SECONDS
            return None
        slots_left = min(tier.concurrency, max(0, spent.slots_left + spent.held - self.held))
        resets_in = max(0.0, spent.resets_at - now)
        return Exceeded(tier.policy_name, spent.until - now, spent.left, resets_in, slots_left, tier)

    def is_idle(self, now: float) -> bool:
        """Whether nothing need be known of it any more."""
        is_busy = (
            self.held or self.told != 0 or self.is_late or self.is_asking or self.is_queued or self.waiting or self.owed
        )
        return not is_busy and self.share is None and now - self.heard_at > self.demand.tier.window_seconds

    def _tell(self, shown: Remaining | Stale | LimiterUnavailable) -> None:
        told, self._shown_to = self._shown_to, []
        for future in told:
            bring(future, shown)

    def _refusal(self, demand: AdmissionRequest, reply: Sequence[int], asked_at: float) -> Exceeded:
        _, left, slots_left, frees_ms, wait_ms = reply
        tier, lefts = demand.tier, (max(0, left), frees_ms / 1000, max(0, slots_left))
        if left >= demand.cost:
            return Exceeded(CONCURRENCY, SLOT_WAIT_SECONDS, *lefts, tier)
        wait, resets_at = wait_ms / 1000, asked_at + lefts[1]
        until = asked_at + wait - _ROUNDING_SECONDS
        self.spent[demand.cost] = _Spent(demand, until, resets_at, lefts[0], lefts[2], self.held)
        self._ask_at = asked_at + _ASK_AGAIN_SECONDS
        return Exceeded(tier.policy_name, wait, *lefts, tier)
