"""What a worker knows of the subjects that requests count against, and what it asks the server for them."""

import asyncio
from collections.abc import Callable, Sequence
from operator import truediv
from typing import TYPE_CHECKING, NamedTuple, Protocol

from typing_extensions import override

from machpay_gateway.core.limits.admission import (
    STALE,
    AdmissionRequest,
    Admitted,
    Answer,
    Exceeded,
    Lease,
    LimiterUnavailable,
    Remaining,
    Stale,
    refusal_for,
)
from machpay_gateway.core.limits.plan import Levels, Plan, plan_of
from machpay_gateway.core.limits.rate import CONCURRENCY, Limits
from machpay_gateway.limiters.redis.backlog import NO_BACKLOG, Backlog, Batches
from machpay_gateway.limiters.redis.connection import set_result
from machpay_gateway.limiters.redis.resp import encode_bulk
from machpay_gateway.limiters.redis.steps import (
    ANY_MOMENT,
    NO_SEEDS,
    OUTCOME_FIELDS,
    UNSEEDED,
    Moment,
    Seeds,
    encode_step,
    layout_of,
    pack_step,
)

if TYPE_CHECKING:
    from machpay_gateway.limiters.quota_ledger import QuotaBatch
    from machpay_gateway.limiters.redis.connection import PipelinedConnection
    from machpay_gateway.limiters.redis.local_share import LocalShare

_new = tuple.__new__  # half the cost of a NamedTuple's own constructor, on every request
_ROUNDING_SECONDS = 0.001  # the script's waits are whole milliseconds, rounded up
Reader = asyncio.Future[Remaining | Stale | LimiterUnavailable]
# At most once a second: with the heartbeat's command every 3 s, an exhausted subject costs one command a second in all.
_RECHECK_SECONDS = 1.5


class Step(NamedTuple):
    """What one batch asks for *subjects*: *futures* wait for the answers to equal *request*s."""

    subjects: "SubjectSet"
    request: AdmissionRequest
    futures: list[asyncio.Future[Answer]]
    more: "More | None" = None  # nearly always


class More(NamedTuple):
    """What few steps have: *readers* wait for what is left, *seeds* are stored counts of quotas."""

    readers: Sequence[Reader] = ()
    seeds: Seeds = NO_SEEDS


class _CertainRefusal(NamedTuple):
    """A refusal for rates or quotas of one subject: only time can change it, unless its limits change.

    It holds for requests of *plan* alone where several subjects refused: its wait is that of all of them. It is certain
    *until* the first of several *policies* has a unit free; all of them have room at *has_room_at*.
    """

    limits: Limits
    plan: Plan | None
    version: int
    policies: tuple[str, ...]
    until: float
    has_room_at: float


class StepSender(Protocol):
    """What sends the steps of the subjects of one shard."""

    def submit(self, subject: "Subject") -> None:
        """Send the steps of *subject* soon."""

    def report_charge(self, subject: "Subject") -> None:
        """Report the backlog of *subject*."""

    def report_release(self, subject: "Subject") -> None:
        """Report that *subject* holds fewer slots than the server counts."""

    def resolve_locally(self, step: Step) -> None:
        """Answer all that still waits for *step*, without the server."""


class ServerState(Protocol):
    """Whether the server of a shard decides: not while it *is away*, and with the local share while it *is resyncing*.

    *decided* is how often limits were decided without it.
    """

    is_away: bool
    is_resyncing: bool
    decided: int
    reason: Exception | None
    connection: "PipelinedConnection | None"


class Slot(Protocol):
    """The shard of a subject, which may be another one later."""

    @property
    def batcher(self) -> StepSender:
        """What sends its steps."""

    @property
    def supervisor(self) -> ServerState:
        """What its server is like."""


# Limits, where the levels of a subject begin and end in those of a plan, and whether they are enforced.
_Place = tuple["Subject", Limits, int, int, bool]


class Subject:
    """One subject. It is also the lease of a request that counts against it alone, since a release needs nothing else.

    Times are by the worker's own clock.
    """

    __slots__ = (
        "_count_quotas",
        "_recheck_at",
        "alone",
        "backlog",
        "encoded_key",
        "exhausted",
        "held",
        "is_in_flight",
        "is_lingering",
        "is_queued",
        "key",
        "last_levels",
        "last_place",
        "local_share",
        "name",
        "queue",
        "reported",
        "request",
        "slot",
        "slots_left",
        "steps_in_flight",
        "together",
        "updated_at",
    )

    def __init__(
        self,
        name: str,
        key: bytes,
        request: AdmissionRequest,
        *,
        slot: Slot,
        count_quotas: Callable[[str, int], "QuotaBatch | None"],
    ) -> None:
        """Start without any state.

        *slot* has the servers' part that counts it. *count_quotas* is called with *name* and the units that a quota has
        admitted; it returns the batch that stores them, if any does.
        """
        self.name = name
        self.key = key
        self.encoded_key = encode_bulk(key)
        self.request = request  # of the newest record: a step that only reports needs its limits
        self.held = 0
        self.reported: int | None = 0  # the slots that the server counts for this worker; None when that is unknown
        self.steps_in_flight = 0  # that touch it
        self.together: SubjectSet | None = None  # of its newest request
        self.alone: SubjectSet | None = None  # of its newest report
        self.queue: list[Step] = []
        self.is_in_flight = False  # its own steps
        self.is_queued = False
        self.is_lingering = False  # a release waits to be reported
        self.slots_left = 0  # over all workers, by the last reply
        self.last_place: _Place | None = None  # its own in `last_levels`
        self.last_levels: Sequence[float] = ()  # of a plan, by the last reply
        self.updated_at = 0.0  # when the step of that reply was sent
        self.backlog: Backlog | None = None  # nearly always
        self.local_share: LocalShare | None = None
        self.slot = slot
        self._count_quotas = count_quotas
        self.exhausted: dict[int, _CertainRefusal] = {}  # by the cost that was refused
        self._recheck_at = 0.0

    def release(self) -> None:
        """Give one slot back."""
        self.held -= 1
        self.slot.batcher.report_release(self)

    def charge(self, units: int) -> None:
        """Take *units* more of every rate and quota, whatever is left."""
        limits = self.limits
        batch = self.count_quotas(units) if limits.quotas else None
        batches: dict[str, Batches] = {}
        if batch is not None:
            batches = {quota.name: {batch: units} for quota in limits.quotas}
        self.add_backlog(Backlog(dict.fromkeys((limit.name for limit in limits.counted), units), batches))
        self.exhausted.clear()  # refusals have longer to wait now
        self.slot.batcher.report_charge(self)

    @property
    def limits(self) -> Limits:
        """Its limits by the newest request."""
        return self.request.plan.parts[0].limits

    def state_slots(self) -> int:
        """Return how the next step states the slots that this worker holds, and count them as reported.

        In full, if no step that the server has not answered may add some. Else by what was released since the last one.
        """
        self.steps_in_flight += 1
        held, reported = self.held, self.reported
        self.reported = held
        return held if self.steps_in_flight == 1 or reported is None else held - reported - 1

    def add_backlog(self, more: Backlog) -> None:
        """Report *more* with the next step."""
        if more:
            self.backlog = more if self.backlog is None else self.backlog.plus(more)

    def take_backlog(self) -> Backlog:
        """Return what is to be reported, and have none left."""
        backlog, self.backlog = self.backlog or NO_BACKLOG, None
        return backlog

    def count_quotas(self, units: int) -> "QuotaBatch | None":
        """Count *units* that its quotas have admitted. Returns the batch with which they are stored, if they are."""
        return self._count_quotas(self.name, units)

    def take_alone(self, share: "LocalShare", now: float, today: float, units: int) -> None:
        """Take *units* of its *share*, to be reported later."""
        share.take(now, today, units)
        if share.quotas and (batch := self.count_quotas(units)) is not None:
            share.store_with(batch, units, today)

    def remember_refusal(self, cost: int, refusal: _CertainRefusal, started_at: float) -> None:
        """Refuse requests of *cost* for what is spent, by a step that was sent at *started_at*."""
        self.exhausted[cost] = refusal
        self._recheck_at = started_at + _RECHECK_SECONDS

    def spent(self, request: AdmissionRequest, index: int, now: float) -> _CertainRefusal | None:
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
        """Return what was left of *limits* by the last reply, with the slots that this worker released since."""
        if self.last_place is None or self.last_place[1] is not limits:
            levels: list[float] = [level for limit in limits.counted for level in (limit.limit, 0.0)]
            return levels if limits.concurrency is None else [*levels, limits.concurrency - self.held]
        _, _, begin, end, _ = self.last_place
        levels, passed = list(self.last_levels[begin:end]), now - self.updated_at
        for at in range(1, 2 * len(limits.counted), 2):
            levels[at] = max(0.0, levels[at] - passed)
        if limits.concurrency is not None:
            released = 0 if self.reported is None else self.reported - self.held
            levels[-1] = min(limits.concurrency, self.slots_left + released)
        return levels

    def is_known(self, now: float) -> bool:
        """Return whether the server has told of it within its longest window."""
        return self.last_place is not None and now - self.updated_at <= self._longest_seconds()

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


class JointLease:
    """What requests hold of several subjects: the same for all of them, since a release needs nothing else."""

    __slots__ = ("_holding", "_subjects")

    def __init__(self, subjects: Sequence[Subject], holding: Sequence[Subject]) -> None:
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


class SubjectSet:
    """The subjects of requests with one *plan*, in the order of its parts. The first is the request's own.

    Remembered by that one, so that a request makes nothing but its answer.
    """

    __slots__ = (
        "_backlogs",
        "_counting",
        "_group_marker",
        "_holding",
        "_lease",
        "_others",
        "_places",
        "_units",
        "encoded_keys",
        "key_count",
        "members",
        "names",
        "own",
        "plan",
        "reply_fields",
    )

    def __init__(self, members: tuple[Subject, ...], request: AdmissionRequest, group_marker: bytes = b"") -> None:
        """Count *request*, and all with its plan and subjects, against *members*.

        *group_marker* is the encoded key of the version marker of their group; empty if it has no version.
        """
        plan = request.plan
        layout = layout_of(plan)
        self.members = members
        self.own = members[0]
        self.names = request.others
        self.plan = plan
        self.encoded_keys = group_marker + b"".join(subject.encoded_key for subject in members)
        self.key_count = len(members) + (group_marker != b"")
        self._group_marker = group_marker
        self.reply_fields = layout.reply
        self._others = [(subject, subject.request) for subject in members[1:]]
        self._units = layout.units
        self._backlogs: list[tuple[Step, Sequence[Backlog]]] = []  # of steps in flight
        self._places: list[_Place] = [
            (subject, part.limits, begin, end, part.enforced)
            for subject, part, (begin, end) in zip(members, plan.parts, layout.spans, strict=True)
        ]
        self._holding, self._counting, self._lease = _taken_from(self._places)

    def wait_for_answer(self, request: AdmissionRequest, future: asyncio.Future[Answer]) -> None:
        """Queue *future* for the answer to *request*."""
        own = self.own
        if own.queue and own.queue[-1].request is request:
            own.queue[-1].futures.append(future)
            return
        if request is not own.request and request.version >= own.request.version:
            own.request = request
        own.queue.append(_new(Step, (self, request, [future], None)))

    def wait(self, step: Step) -> None:
        """Queue *step*."""
        if step.request.version >= self.own.request.version:
            self.own.request = step.request
        self.own.queue.append(step)

    def start(self, step: Step, moment: Moment) -> bytes:
        """Return the argument for *step* at a *moment*, with what its subjects have to report."""
        _, request, futures, more = step
        holds, has_backlog = [], False
        for subject, newest in self._others:
            subject.request = newest  # another set may have had other limits for it, while a tier changes
        for subject in self.members:
            holds.append(subject.state_slots())
            if subject.backlog is not None:
                has_backlog = True
        if more is None and not has_backlog:
            _, version, plan, cost, _, _, group_version = request
            moment = moment if plan.has_quotas else ANY_MOMENT
            return encode_step(plan, version, self._checked(group_version), cost, len(futures), tuple(holds), moment)
        backlogs = [subject.take_backlog() for subject in self.members]
        self._backlogs.append((step, backlogs))
        claim = request.version, self._checked(request.group_version), request.cost, len(futures)
        seeds = NO_SEEDS if more is None else more.seeds
        return encode_bulk(pack_step(self.plan, claim, holds, moment=moment, backlogs=backlogs, seeds=seeds))

    def resolve(self, step: Step, reply: Sequence[int], at: int, started_at: float) -> bool:
        """Answer all that waits for *step* with its part of a *reply* of `admit.lua`, from *at* on.

        The server decided at *started_at* or later: counted from there, no refusal outlasts its reason here. Returns
        False when its subjects have more to ask or to report; also when the server has no count of a quota, and
        nothing was answered.
        """
        request, more = step.request, step.more
        admitted, within = reply[at], reply[at + 1]
        self.own.is_in_flight = False
        if admitted < 0:
            return self._resolve_undecided(step, admitted)
        levels = tuple(map(truediv, reply[at + OUTCOME_FIELDS : at + self.reply_fields], self._units))
        futures = step.futures
        if within == len(futures) == 1 and not futures[0].done():  # nearly always; the same as `_answer`
            for subject in self._holding:
                subject.held += 1
            if self._counting and request.cost:
                for subject in self._counting:
                    subject.count_quotas(request.cost)
            futures[0].set_result(_new(Admitted, (self._lease, levels, self.plan, False)))
        else:
            self._answer(step, levels, admitted, within, reply[at + 2] / 1000, started_at)
        if more is not None:
            for reader in more.readers:
                set_result(reader, Remaining(levels, self.plan))
        if self._backlogs:
            self._take_backlogs(step)
        return self._remember(levels, (admitted, within), request.cost, started_at)

    def fail(self, step: Step) -> None:
        """Take *step* back. The server may have executed it: a backlog rather counts twice than never."""
        self.own.is_in_flight = False
        for subject in self.members:
            subject.steps_in_flight, subject.reported = 0, None
        self._return_backlogs(step)

    def take(self, cost: int, *, is_shadow_limited: bool) -> Lease:
        """Hold what a request of *cost* was admitted to; of the enforced limits alone, if it *is_shadow_limited*.

        A *cost* of 0 counts no units: those of `Subject.take_alone` are counted already.
        """
        holding, counting, lease = self._holding, self._counting, self._lease
        if is_shadow_limited:
            holding, counting, lease = _taken_from([place for place in self._places if place[-1]])
        for subject in holding:
            subject.held += 1
        for subject in counting if cost else ():
            subject.count_quotas(cost)
        return lease

    def cached_refusal(self, request: AdmissionRequest, clock: Callable[[], float]) -> Exceeded | None:
        """Return the refusal of *request* while a subject of it is certainly spent; None when the server decides."""
        for subject in self.members:
            if subject.exhausted:
                now, index = clock(), self.members.index(subject)
                if spent := subject.spent(request, index, now):
                    return self._refuse_again(spent, now)
        return None

    def unreported(self) -> Sequence[Subject]:
        """Return the subjects that have more to ask, or hold other slots than the server counts."""
        subjects = [subject for subject in self._holding if subject.held != subject.reported]
        return [self.own, *subjects] if self.own.queue else subjects

    def _checked(self, group_version: int) -> int:
        """Return the version of the group to compare with its marker; 0 without one."""
        return (group_version or 1) if self._group_marker else 0

    def _remember(self, levels: Levels, taken: tuple[int, int], cost: int, started_at: float) -> bool:
        """Remember *levels* after what was *taken*, of enforced limits and others. False if there is more to report."""
        is_settled = not self.own.queue
        for place in self._places:
            subject, limits, _, end, enforced = place
            count = taken[0 if enforced else 1]
            subject.steps_in_flight -= 1
            subject.last_place = place
            subject.last_levels = levels
            subject.updated_at = started_at
            if limits.concurrency is not None:
                subject.slots_left = int(levels[end - 1])
                if subject.reported is not None:
                    subject.reported += count
                if subject.reported != subject.held:
                    is_settled = False
            if subject.exhausted and count and cost:
                subject.exhausted.clear()  # earlier refusals have longer to wait now
        return is_settled

    def _answer(  # noqa: PLR0917 - as `resolve`
        self, step: Step, levels: Levels, admitted: int, within: int, wait: float, started_at: float
    ) -> None:
        """Answer requests of *step*: *admitted* ones, of which all but the first that are *within* are shadow limited.

        The others are refused for *wait* seconds.
        """
        request, plan, refusal = step.request, self.plan, None
        for index, future in enumerate(step.futures):
            if index >= admitted:
                refusal = refusal or self._refuse(request, levels, wait, started_at)
                set_result(future, refusal)
            elif not future.done():
                lease = self.take(request.cost, is_shadow_limited=index >= within)
                shadow = max(0, within - index - 1)
                before = plan.before(levels, admitted - index - 1, request.cost, shadow=shadow)
                future.set_result(Admitted(lease, before, plan, index >= within))

    def _refuse(self, request: AdmissionRequest, levels: Levels, wait: float, started_at: float) -> Exceeded:
        """Return the refusal of *request*, and remember it where it is certain."""
        plan, cost = self.plan, request.cost
        refusal = refusal_for(plan, levels, cost, wait)
        spent = [
            index
            for index, part in enumerate(plan.parts)
            if part.enforced and any(part.name(limit.name) in refusal.policies for limit in part.limits.counted)
        ]
        if spent:
            index, only = (spent[0], None) if len(spent) == 1 else (0, plan)
            policies = tuple(name for name in refusal.policies if not name.endswith(CONCURRENCY))
            has_room_at = until = started_at + wait - _ROUNDING_SECONDS
            if len(policies) > 1:
                frees = (resets_in for policy, _, resets_in in plan.levels(levels) if policy.name in policies)
                until = started_at + min(frees) - _ROUNDING_SECONDS
            limits = plan.parts[index].limits
            certain = _CertainRefusal(limits, only, request.version, policies, until, has_room_at)
            self.members[index].remember_refusal(cost, certain, started_at)
        return refusal

    def _refuse_again(self, spent: _CertainRefusal, now: float) -> Exceeded:
        """Return the refusal for what is *spent*, with what else was left by the last replies."""
        plan = self.plan
        levels = tuple(level for subject, limits, *_ in self._places for level in subject.levels(limits, now))
        policies = tuple(
            policy.name
            for policy, left, _ in plan.levels(levels)
            if policy.name in spent.policies or (policy.is_concurrency and policy.enforced and left <= 0)
        )
        return Exceeded(policies, spent.has_room_at - now, levels, plan)

    def _resolve_undecided(self, step: Step, outcome: int) -> bool:
        """Do as `resolve` for a *step* of which the server counted nothing."""
        for subject in self.members:
            subject.steps_in_flight -= 1
        self._return_backlogs(step)
        if outcome == UNSEEDED:
            return False
        for future in step.futures:
            set_result(future, STALE)
        for reader in step.more.readers if step.more is not None else ():
            set_result(reader, STALE)
        return not self.unreported()

    def _return_backlogs(self, step: Step) -> None:
        for subject, backlog in zip(self.members, self._take_backlogs(step), strict=True):
            subject.add_backlog(backlog)

    def _take_backlogs(self, step: Step) -> Sequence[Backlog]:
        """Return what *step* reports, by subject, and forget it."""
        of_step = [backlogs for other, backlogs in self._backlogs if other is step]
        self._backlogs = [entry for entry in self._backlogs if entry[0] is not step]
        return of_step[0] if of_step else [NO_BACKLOG] * len(self.members)


class LoneSubject(SubjectSet):
    """A set of one subject with one enforced rate and slots, as most tiers have: the same without loops."""

    __slots__ = ()

    @override
    def start(self, step: Step, moment: Moment) -> bytes:
        _, request, futures, more = step
        own = self.own
        if more is not None or own.backlog is not None:
            return super().start(step, moment)
        _, version, plan, cost, _, _, group_version = request
        version_of_group = self._checked(group_version)
        return encode_step(plan, version, version_of_group, cost, len(futures), (own.state_slots(),), ANY_MOMENT)

    @override
    def resolve(self, step: Step, reply: Sequence[int], at: int, started_at: float) -> bool:
        _, request, futures, more = step
        if reply[at] != 1 or len(futures) != 1 or more is not None or self._backlogs:
            return super().resolve(step, reply, at, started_at)
        own = self.own
        levels = (reply[at + 3], reply[at + 4] / 1000, reply[at + 5])
        own.is_in_flight = False
        own.steps_in_flight -= 1
        own.last_place = self._places[0]
        own.last_levels = levels
        own.updated_at = started_at
        own.slots_left = levels[2]
        if own.reported is not None:
            own.reported += 1
        if own.exhausted and request.cost:
            own.exhausted.clear()
        if not futures[0].done():
            own.held += 1
            futures[0].set_result(_new(Admitted, (own, levels, self.plan, False)))
        return own.held == own.reported and not own.queue


def subject_set(members: tuple[Subject, ...], request: AdmissionRequest, group_marker: bytes = b"") -> SubjectSet:
    """Return the set of *members* that *request*, and all with its plan and subjects, count against."""
    return (LoneSubject if request.plan.is_simple else SubjectSet)(members, request, group_marker)


def report_step(subject: Subject) -> Step:
    """Return what tells the server how many slots of *subject* are held, and its backlog."""
    request = subject.request
    if len(request.plan.parts) > 1:
        request = request._replace(plan=plan_of(request.plan.parts[:1]), others=())
    alone = subject.alone
    if alone is None or alone.plan is not request.plan:
        alone = subject.alone = subject_set((subject,), request)
    return Step(alone, request, [])


def _taken_from(places: Sequence[_Place]) -> tuple[Sequence[Subject], Sequence[Subject], Lease]:
    """Return of which subjects a request holds slots, which count quotas, and its lease."""
    subjects = [subject for subject, *_ in places]
    holding = [subject for subject, limits, *_ in places if limits.concurrency is not None]
    counting = [subject for subject, limits, *_ in places if limits.quotas]
    return holding, counting, subjects[0] if len(subjects) == len(holding) == 1 else JointLease(subjects, holding)
