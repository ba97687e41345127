"""What a worker knows of one subject: the slots it holds, the requests that wait, and how long a refusal is certain."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple

from machpay_gateway.core.limits.admission import (
    STALE,
    AdmissionRequest,
    Admitted,
    Answer,
    Exceeded,
    LimiterUnavailable,
    Remaining,
    Stale,
    refusal_for,
)
from machpay_gateway.core.limits.calendar import Period, PeriodUnit, period_at
from machpay_gateway.core.limits.plan import Part, Plan, plan_of
from machpay_gateway.core.limits.rate import CONCURRENCY, Limits
from machpay_gateway.limiters.redis.connection import set_result
from machpay_gateway.limiters.redis.resp import encode_bulk

if TYPE_CHECKING:
    from machpay_gateway.limiters.redis.local_share import LocalShare

_new = tuple.__new__  # half the cost of a NamedTuple's own constructor, on every request
# At most once a second: with the heartbeat's command every 3 s, an exhausted subject costs one command a second in all.
_RECHECK_SECONDS = 1.5
_ENCODED_STEPS = 4096  # 200 bytes each
_ROUNDING_SECONDS = 0.001  # the script's waits are whole milliseconds, rounded up
_STEP_FIELDS = 3  # of a reply, before those of its parts
UNSEEDED = -2  # in a reply: a quota has no count
Backlog = Mapping[str, int]  # units by the name of a rate or quota
Reader = asyncio.Future[Remaining | Stale | LimiterUnavailable]
_NOTHING: Backlog = {}
_NO_BACKLOGS: Sequence[Backlog] = (_NOTHING,)
_NO_SEEDS: Mapping[int, Sequence[int]] = {}


class Step(NamedTuple):
    """What one batch asks for the *subjects* of a request, as encoded *arguments*.

    *futures* wait for the answer to equal *request*s, *readers* for what is left. *backlogs* are the units that the
    step reports, by subject.
    """

    subjects: "Sequence[Subject]"
    request: AdmissionRequest
    futures: list[asyncio.Future[Answer]]
    readers: "list[Reader]"
    arguments: bytes
    backlogs: Sequence[Backlog]


class _Waiting(NamedTuple):
    """What waits for the next batch: *seeds* are the stored counts of quotas, by the index of the subject."""

    request: AdmissionRequest
    others: "Sequence[Subject]"
    futures: list[asyncio.Future[Answer]]
    readers: "list[Reader]"
    seeds: Mapping[int, Sequence[int]]


class _Exhausted(NamedTuple):
    """A refusal for rates or quotas of one subject: only time can change it, unless its limits change.

    It holds for requests of *plan* alone where several subjects refused: its wait is that of all of them.
    """

    limits: Limits
    plan: Plan | None
    version: int
    policies: tuple[str, ...]
    until: float


@lru_cache(_ENCODED_STEPS)
def encode_step(plan: Plan, version: int, cost: int, wanted: int, holds: tuple[int, ...]) -> bytes:
    """Return the arguments of `admit.lua` for a step without backlogs and quotas.

    Hits nearly always: keys of a tier ask for one unit, and hold a few slots. Encoding takes 3 µs, a hit 0.3 µs.
    """
    backlogs = [_NOTHING] * len(holds)
    return encode_step_in_full(plan, version, cost, wanted, holds, backlogs=backlogs, periods={}, seeds={})


def encode_step_in_full(
    plan: Plan,
    version: int,
    cost: int,
    wanted: int,
    holds: Sequence[int],
    *,
    backlogs: Sequence[Backlog],
    periods: Mapping[PeriodUnit, Period],
    seeds: Mapping[int, Sequence[int]],
) -> bytes:
    """Return the arguments of `admit.lua` for any step. *seeds* are stored counts of quotas, by index of the part."""
    arguments: list[int | str] = [len(plan.parts), version, cost, wanted]
    for index, (part, held, backlog) in enumerate(zip(plan.parts, holds, backlogs, strict=True)):
        rates, quotas, concurrency = part.limits.rates, part.limits.quotas, part.limits.concurrency
        most = max(backlog.values(), default=0)  # for windows that are newer than the backlog
        arguments += (len(rates), len(quotas), int(part.enforced), -1 if concurrency is None else concurrency, held)
        for rate in rates:
            arguments += (rate.limit, rate.window_seconds * 1000, backlog.get(rate.name, most))
        for quota, seed in zip(quotas, seeds.get(index, [-1] * len(quotas)), strict=True):
            period = periods[quota.name]
            arguments += (quota.limit, backlog.get(quota.name, 0), quota.name[0], *period, seed)
    return encode_bulk(*arguments)


@cache
def count_arguments(plan: Plan) -> int:
    """Return the number of arguments of a step."""
    return 4 + sum(5 + 3 * len(part.limits.rates) + 7 * len(part.limits.quotas) for part in plan.parts)


@cache
def count_fields(plan: Plan) -> int:
    """Return the number of integers in the reply to a step."""
    return _STEP_FIELDS + sum(map(_part_fields, plan.parts))


def _part_fields(part: Part) -> int:
    limits = part.limits
    return 2 * (len(limits.rates) + len(limits.quotas)) + (limits.concurrency is not None)


class JointLease:
    """What one request holds of several subjects."""

    __slots__ = ("_holding", "_subjects")

    def __init__(self, subjects: "Sequence[Subject]", holding: "Sequence[Subject]") -> None:
        """Stand for a request that counts against *subjects*, and holds a slot of each of *holding*."""
        self._subjects = subjects
        self._holding = holding

    def release(self) -> None:
        """Give one slot of each subject back that has a limit for them."""
        for subject in self._holding:
            subject.release()

    def charge(self, units: int) -> None:
        """Take *units* more from each subject."""
        for subject in self._subjects:
            subject.charge(units)


class Subject:
    """One subject. It is also the lease of a request that counts against it alone, since a release needs nothing else.

    Times are by the worker's own clock.
    """

    __slots__ = (
        "_count_quotas",
        "_held_then",
        "_on_change",
        "_recheck_at",
        "backlog",
        "encoded_key",
        "exhausted",
        "held",
        "is_in_flight",
        "is_lingering",
        "is_queued",
        "key",
        "last_limits",
        "last_values",
        "local_share",
        "name",
        "queue",
        "reported",
        "request",
        "slots_left",
        "steps_in_flight",
        "updated_at",
    )

    def __init__(
        self,
        name: str,
        key: bytes,
        request: AdmissionRequest,
        on_change: Callable[["Subject"], None],
        count_quotas: Callable[["Subject", int], None],
    ) -> None:
        """Start without any state.

        *on_change* is called when the server counts a slot that was released, or misses units that were charged;
        *count_quotas* with the units that a quota has admitted.
        """
        self.name = name
        self.key = key
        self.encoded_key = encode_bulk(key)
        self.request = request  # of the newest record: a step that only reports needs its limits
        self.held = 0
        self.reported: int | None = 0  # the slots that the server counts for this worker; None when that is unknown
        self.steps_in_flight = 0  # that touch it
        self.queue: list[_Waiting] = []
        self.is_in_flight = False  # its own steps
        self.is_queued = False
        self.is_lingering = False  # a release waits to be reported
        self.slots_left = 0  # over all workers, by the last reply
        self._held_then = 0  # by this worker, of its slots
        self.last_values: Sequence[int] | None = None  # of the last reply, under `last_limits`
        self.last_limits: Limits = request.plan.parts[0].limits
        self.updated_at = 0.0  # when the step of that reply was sent
        self.backlog: dict[str, int] = {}  # units that the server does not count yet
        self.local_share: LocalShare | None = None
        self._on_change = on_change
        self._count_quotas = count_quotas
        self.exhausted: dict[int, _Exhausted] = {}  # by the cost that was refused
        self._recheck_at = 0.0

    def release(self) -> None:
        """Give one slot back."""
        self.held -= 1
        self._on_change(self)

    def charge(self, units: int) -> None:
        """Take *units* more of every rate and quota, whatever is left."""
        self.add_backlog(dict.fromkeys(_names(self.limits), units))
        if self.limits.quotas:
            self._count_quotas(self, units)
        self.exhausted.clear()  # refusals have longer to wait now
        self._on_change(self)

    @property
    def limits(self) -> Limits:
        """Its limits by the newest request."""
        return self.request.plan.parts[0].limits

    def wait_for_answer(
        self, request: AdmissionRequest, others: "Sequence[Subject]", future: asyncio.Future[Answer]
    ) -> None:
        """Queue *future* for the answer to *request*, which counts against *others* too."""
        if self.queue and self.queue[-1].request is request:
            self.queue[-1].futures.append(future)
            return
        self.wait(request, others, [future], [], _NO_SEEDS)

    def wait(
        self,
        request: AdmissionRequest,
        others: "Sequence[Subject]",
        futures: list[asyncio.Future[Answer]],
        readers: list[Reader],
        seeds: Mapping[int, Sequence[int]],
    ) -> None:
        """Queue *futures* for answers to *request*s, and *readers* for what is left."""
        if request is not self.request and request.version >= self.request.version:
            self.request = request
        self.queue.append(_new(_Waiting, (request, others, futures, readers, seeds)))

    def start_steps(self, now: float) -> list[Step]:
        """Return the steps to send at *now*, in seconds since the epoch.

        The subject sends no more until each of them is resolved or has failed.
        """
        self.is_queued, self.is_in_flight = False, True
        queue, self.queue = self.queue, []
        return [self._start(waiting, now) for waiting in queue or [self._report()]]

    def resolve(self, step: Step, reply: Sequence[int], started_at: float) -> bool:
        """Answer all that waits for *step* with its part of a *reply* of `admit.lua`.

        The server decided at *started_at* or later: counted from there, no refusal outlasts its reason here. Returns
        False, and answers nothing, when the server has no count of a quota.
        """
        self.is_in_flight = False
        if step.request.plan.is_simple and reply[0] >= 0:
            self._resolve_simple(step, reply, started_at)
            return True
        admitted, within, _, *values = reply
        subjects, request, _, readers, _, _ = step
        plan, cost = request.plan, request.cost
        for subject in subjects:
            subject.steps_in_flight -= 1
        if admitted < 0:
            return _resolve_undecided(step, admitted)
        self._remember(subjects, plan, values, started_at)
        for reader in readers:
            set_result(reader, Remaining(_levels(values, plan), plan))
        self._answer(step, reply, started_at)
        for subject, part in zip(subjects, plan.parts, strict=True):
            subject._held_then = subject.held  # noqa: SLF001 - of its own class
            taken = admitted if part.enforced else within
            if subject.reported is not None and part.limits.concurrency is not None:
                subject.reported += taken
            if taken and cost and subject.exhausted:
                subject.exhausted.clear()  # earlier refusals have longer to wait now
        return True

    def fail(self, step: Step) -> None:
        """Take *step* back. The server may have executed it: a backlog rather counts twice than never."""
        self.is_in_flight = False
        for subject, backlog in zip(step.subjects, step.backlogs, strict=True):
            subject.steps_in_flight, subject.reported = 0, None
            subject.add_backlog(backlog)

    def add_backlog(self, units: Backlog) -> None:
        """Report *units* with the next step."""
        for name, count in units.items():
            self.backlog[name] = self.backlog.get(name, 0) + count

    def take(self, subjects: "Sequence[Subject]", request: AdmissionRequest, *, is_shadow_limited: bool) -> JointLease:
        """Hold what *request* was admitted to, and return its lease; of enforced parts alone if *is_shadow_limited*."""
        pairs = [
            (subject, part)
            for subject, part in zip(subjects, request.plan.parts, strict=True)
            if part.enforced or not is_shadow_limited
        ]
        for subject, part in pairs:
            if part.limits.concurrency is not None:
                subject.held += 1
            if part.limits.quotas and request.cost:
                subject._count_quotas(subject, request.cost)  # noqa: SLF001 - of its own class
        holding = [subject for subject, part in pairs if part.limits.concurrency is not None]
        return JointLease([subject for subject, _ in pairs], holding)

    def drop_backlog(self, units: Backlog) -> None:
        """Report *units* of the backlog no more."""
        for name, count in units.items():
            left = self.backlog.pop(name, 0) - count
            if left > 0:
                self.backlog[name] = left

    def cached_refusal(self, request: AdmissionRequest, others: "Sequence[Subject]", now: float) -> Exceeded | None:
        """Return the refusal of *request* while a subject of it is certainly spent; None when the server decides."""
        for index, subject in enumerate((self, *others)):
            if subject.exhausted and (spent := subject.spent(request, index, now)):
                return _refuse_again((self, *others), request, spent, now)
        return None

    def spent(self, request: AdmissionRequest, index: int, now: float) -> _Exhausted | None:
        """Return why this subject, at *index* of *request*, refuses it until then; None when the server must decide."""
        exhausted = self.exhausted.get(request.cost)
        if exhausted is None:
            return None
        if exhausted.plan is not None and exhausted.plan is not request.plan:
            return None
        is_changed = exhausted.limits is not request.plan.parts[index].limits
        if now >= exhausted.until or is_changed or (index == 0 and request.version != exhausted.version):
            self.exhausted.clear()
            return None
        if now >= self._recheck_at:
            self._recheck_at = now + _RECHECK_SECONDS
            return None
        return exhausted

    def levels(self, limits: Limits, now: float) -> list[float]:
        """Return what was left of *limits* by the last reply, with the slots that were released here since."""
        levels: list[float] = []
        values = self.last_values if self.last_limits is limits else None
        passed = now - self.updated_at
        for at, limit in enumerate(limits.counted):
            left, frees_ms = (limit.limit, 0) if values is None else values[2 * at : 2 * at + 2]
            levels += (left, max(0.0, frees_ms / 1000 - passed))
        if limits.concurrency is not None:
            free = limits.concurrency - self.held if values is None else self.slots_left + self._held_then - self.held
            levels.append(min(limits.concurrency, free))
        return levels

    def is_known(self, now: float) -> bool:
        """Return whether the server has told of it within its longest window."""
        return self.last_values is not None and now - self.updated_at <= self._longest_seconds()

    def is_idle(self, now: float) -> bool:
        """Return whether nothing of it need be remembered."""
        is_busy = (
            self.held
            or self.reported != 0
            or self.is_lingering
            or self.is_in_flight
            or self.steps_in_flight
            or self.is_queued
            or self.queue
            or self.backlog
        )
        return not is_busy and self.local_share is None and now - self.updated_at > self._longest_seconds()

    def _longest_seconds(self) -> int:
        return max((rate.window_seconds for rate in self.limits.rates), default=0)

    def _start(self, waiting: _Waiting, now: float) -> Step:
        """Return the step for *waiting*, with what its subjects have to report."""
        request, others, futures, readers, seeds = waiting
        plan = request.plan
        if not others and not self.backlog and not plan.has_quotas:  # nearly always
            held = self._state_slots()
            arguments = encode_step(plan, request.version, request.cost, len(futures), (held,))
            return _new(Step, ((self,), request, futures, readers, arguments, _NO_BACKLOGS))
        subjects = (self, *others)
        holds = tuple(subject._state_slots() for subject in subjects)  # noqa: SLF001 - of its own class
        backlogs = [subject.take_backlog() for subject in subjects]
        if plan.has_quotas or any(backlogs):
            arguments = encode_step_in_full(
                plan,
                request.version,
                request.cost,
                len(futures),
                holds,
                backlogs=backlogs,
                periods=_periods(now),
                seeds=seeds,
            )
        else:
            arguments = encode_step(plan, request.version, request.cost, len(futures), holds)
        return Step(subjects, request, futures, readers, arguments, backlogs)

    def _report(self) -> _Waiting:
        """Return what tells the server how many slots are held, and the backlog."""
        request = self.request
        if len(request.plan.parts) > 1:
            request = request._replace(plan=plan_of(request.plan.parts[:1]), others=())
        return _new(_Waiting, (request, (), [], [], _NO_SEEDS))

    def _state_slots(self) -> int:
        """Return how the next step states the slots that this worker holds, and count them as reported.

        In full, if no step that the server has not answered may add some. Else by what was released since the last one.
        """
        self.steps_in_flight += 1
        if self.steps_in_flight == 1 or self.reported is None:
            self.reported = self.held
            return self.held
        released = self.reported - self.held
        self.reported = self.held
        return -1 - released

    def take_backlog(self) -> Backlog:
        """Return the units to report, and have none left."""
        backlog, self.backlog = self.backlog, {}
        return backlog

    def _remember(self, subjects: "Sequence[Subject]", plan: Plan, values: Sequence[int], started_at: float) -> None:
        at = 0
        for subject, part in zip(subjects, plan.parts, strict=True):
            fields = _part_fields(part)
            subject.last_values, subject.last_limits, subject.updated_at = (
                values[at : at + fields],
                part.limits,
                started_at,
            )
            at += fields
            if part.limits.concurrency is not None:
                subject.slots_left = values[at - 1]

    def _resolve_simple(self, step: Step, reply: Sequence[int], started_at: float) -> None:
        """Do as `resolve` for a request that counts against this subject alone: the path of nearly all requests."""
        admitted, _, wait_ms, left, frees_ms, slots_left = reply
        _, request, futures, readers, _, _ = step
        _, _, plan, cost, _, _ = request
        self.steps_in_flight -= 1
        self.last_values, self.last_limits = (left, frees_ms, slots_left), plan.parts[0].limits
        self.updated_at, self.slots_left = started_at, slots_left
        for reader in readers:
            set_result(reader, Remaining((left, frees_ms / 1000, slots_left), plan))
        resets_in, after = frees_ms / 1000, admitted
        refusal: Exceeded | None = None
        for future in futures:
            if not after:
                refusal = refusal or self._refuse((self,), request, (left, resets_in, slots_left), wait_ms, started_at)
                set_result(future, refusal)
                continue
            after -= 1
            if not future.done():
                self.held += 1
                future.set_result(
                    _new(Admitted, (self, (left + after * cost, resets_in, slots_left + after), plan, False))
                )
        self._held_then = self.held
        if self.reported is not None:
            self.reported += admitted
        if admitted and cost and self.exhausted:
            self.exhausted.clear()  # earlier refusals have longer to wait now

    def _answer(self, step: Step, reply: Sequence[int], started_at: float) -> None:
        admitted, within, wait_ms, *values = reply
        subjects, request, futures, _, _, _ = step
        plan, cost = request.plan, request.cost
        levels = _levels(values, plan)
        refusal: Exceeded | None = None
        for index, future in enumerate(futures):
            if index >= admitted:
                refusal = refusal or self._refuse(subjects, request, levels, wait_ms, started_at)
                set_result(future, refusal)
                continue
            if future.done():
                continue
            is_shadow_limited = index >= within and not plan.is_enforced
            lease = self.take(subjects, request, is_shadow_limited=is_shadow_limited)
            after = admitted - index - 1
            future.set_result(Admitted(lease, plan.before(levels, after, cost), plan, is_shadow_limited))

    def _refuse(
        self,
        subjects: "Sequence[Subject]",
        request: AdmissionRequest,
        levels: Sequence[float],
        wait_ms: int,
        started_at: float,
    ) -> Exceeded:
        """Return the refusal of *request*, and remember it where it is certain."""
        plan, cost = request.plan, request.cost
        refusal = refusal_for(plan, tuple(levels), cost, wait_ms / 1000)
        spent = {
            index
            for index, part in enumerate(plan.parts)
            if part.enforced and any(part.name(name) in refusal.policies for name in _names(part.limits))
        }
        if spent:
            index, only = (spent.pop(), None) if len(spent) == 1 else (0, plan)
            subject = subjects[index]
            policies = tuple(name for name in refusal.policies if not name.endswith(CONCURRENCY))
            until = started_at + wait_ms / 1000 - _ROUNDING_SECONDS
            subject.exhausted[cost] = _Exhausted(plan.parts[index].limits, only, request.version, policies, until)
            subject._recheck_at = started_at + _RECHECK_SECONDS  # noqa: SLF001 - of its own class
        return refusal


def _refuse_again(subjects: "Sequence[Subject]", request: AdmissionRequest, spent: _Exhausted, now: float) -> Exceeded:
    """Return the refusal of *request* for what is *spent*, with what else was left by the last replies."""
    plan = request.plan
    levels = tuple(
        level for subject, part in zip(subjects, plan.parts, strict=True) for level in subject.levels(part.limits, now)
    )
    policies = tuple(
        policy.name
        for policy, left, _ in plan.levels(levels)
        if policy.name in spent.policies or (policy.is_concurrency and policy.enforced and left <= 0)
    )
    return Exceeded(policies, spent.until - now, levels, plan)


def _resolve_undecided(step: Step, outcome: int) -> bool:
    """Answer all that waits for *step*, of which the server counted nothing; False when a quota's count is needed."""
    for subject, backlog in zip(step.subjects, step.backlogs, strict=True):
        subject.add_backlog(backlog)
    if outcome == UNSEEDED:
        return False
    for future in step.futures:
        set_result(future, STALE)
    for reader in step.readers:
        set_result(reader, STALE)
    return True


def _names(limits: Limits) -> Sequence[str]:
    return [limit.name for limit in limits.counted]


def _periods(now: float) -> Mapping[PeriodUnit, Period]:
    return {"day": period_at("day", now), "month": period_at("month", now)}


def _levels(values: Sequence[int], plan: Plan) -> tuple[float, ...]:
    """Return the *values* of a reply as levels of *plan*: in seconds."""
    levels: list[float] = []
    at = 0
    for policy in plan.policies:
        if policy.is_concurrency:
            levels.append(values[at])
            at += 1
        else:
            levels += (values[at], values[at + 1] / 1000)
            at += 2
    return tuple(levels)
