"""Group commit: all that one turn of the event loop asks for goes out as one script call, a few of them at a time.

A subject is asked about once at a time. So each step can say outright how many slots its worker holds, and whatever
became of an earlier one, lost or late, is put right by the next; a release costs nothing where another step follows.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import cast

from redis.exceptions import NoScriptError, RedisError

from machpay_gateway.core.limits.admission import AdmissionRequest, Answer
from machpay_gateway.limiters.redis.link import Link, RedisCall, Reply
from machpay_gateway.limiters.redis.scripts import Scripts
from machpay_gateway.limiters.redis.subject import Step, Subject
from machpay_gateway.limiters.redis.wire import bulk

LEASE_SECONDS = 10
ANSWER_SECONDS = 0.2  # that a reply may take, before the server counts as away
STARVED_SECONDS = 0.05  # of them, given to a loop that was itself held up and has the reply waiting to be read
_READ_SECONDS = 0.01  # within which it reads that in any case
_QUICK = 3  # batches under way, for chunks: a step costs the less the more of them go together
_LEFT_OVER = 1  # for less than a chunk: it leaves when nothing is under way, or with the next answer
_GATHER_SECONDS = 0.002  # that anything gathers at most: where answers take longer, more are under way
_UNDER_WAY = 32  # batches, whatever they wait for
_CHUNK = 24  # subjects that go out before the turn is over: the server works while the rest of it is read
_SUBJECTS = 256  # in a batch: about 2 ms of the server's time
_AS_BEFORE = -1  # of `admit.lua`: the slots that the step before has left
_ARGUMENTS_OF_WORKER, _ARGUMENTS, _REPLY_FIELDS = 2, 8, 5  # of `admit.lua`, the latter for each step
_LINGER_SECONDS = 0.01  # that a release nobody waits for itself waits for a question to ride with
_DRAIN_SECONDS = 0.001


class LateReply(Exception):
    """The server took longer than it may."""

    def __init__(self, told: str = f"no reply within {ANSWER_SECONDS * 1000:.0f} ms") -> None:
        super().__init__(told)


class _Batch:
    """What went out together and is not answered yet."""

    __slots__ = ("asked_at", "calls", "sent_at", "steps")

    def __init__(self, steps: list[Step], calls: int, asked_at: float, sent_at: float) -> None:
        self.steps = steps
        self.calls = calls
        self.asked_at = asked_at  # by the clock of the limits
        self.sent_at = sent_at  # by the machine's, as the loop's timers


class Batcher:
    """Gathers what subjects ask for, and settles it by what the link answers."""

    def __init__(
        self,
        scripts: Scripts,
        worker: str,
        *,
        clock: Callable[[], float],
        without: Callable[[Subject, AdmissionRequest], Answer],
        batches: Counter[int],
    ) -> None:
        """Ask by *scripts* as *worker*. *without* answers what cannot be asked; *batches* are counted by their size."""
        self._scripts = scripts
        self._who = bulk(worker, LEASE_SECONDS)
        self._clock = clock
        self._without = without
        self._batches = batches
        self._loop = asyncio.get_running_loop()
        self._link: Link | None = None
        self._ready: list[Subject] = []
        self._under_way: dict[_Batch, None] = {}  # in the order in which they went out
        self._watching: asyncio.TimerHandle | None = None
        self._gathering: asyncio.TimerHandle | None = None
        self._is_due = False
        self._late: list[Subject] = []
        self._lingering: asyncio.TimerHandle | None = None
        self.workers = 1  # last seen alive, with this one

    def ask(self, subject: Subject) -> None:
        """Ask about *subject* in this turn of the loop, or as soon as its last question was answered."""
        if subject.is_asking or subject.is_queued:
            return
        subject.is_queued = True
        self._ready.append(subject)
        if len(self._ready) >= _CHUNK:
            self._flush()
        elif not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._flush, _LEFT_OVER)

    def restate(self, subject: Subject) -> None:
        """Say that *subject* holds less than the server believes: at once if anyone may be waiting for a slot.

        As long as all workers together can be as late as this one and still leave slots free, it waits a little for
        the next question about the subject, which says it at no cost.
        """
        if subject.is_asking or subject.is_queued:
            return
        if subject.told is None or (subject.told - subject.held) * self.workers >= subject.slots_left:
            self.ask(subject)
        elif not subject.is_late:
            subject.is_late = True
            self._late.append(subject)
            if self._lingering is None:
                self._lingering = self._loop.call_later(_LINGER_SECONDS, self._restate_late)

    def take_up(self, link: Link) -> None:
        """Ask over *link* from now on."""
        self._link = link
        self._flush()

    def let_go(self) -> None:
        """Stop asking, and settle what is under way without an answer. What waits to be asked goes on waiting."""
        self._link = None
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        batches, self._under_way = self._under_way, {}
        for batch in batches:
            for step in batch.steps:
                self._fail(step)

    def give_up(self) -> None:
        """Settle what waits to be asked without asking."""
        for subject in self._ready:
            subject.is_queued = False
            subject.show_nothing()
            steps, subject.waiting = subject.waiting, []
            for step in steps:
                self._settle_without(step)
        self._ready = []

    async def drain(self) -> None:
        """Wait until nothing is left to ask, or nobody to ask it."""
        self._restate_late()
        while self._link is not None and (self._ready or self._under_way):  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(_DRAIN_SECONDS)

    def _restate_late(self) -> None:
        late, self._late, self._lingering = self._late, [], None
        for subject in late:
            subject.is_late = False
            if subject.held != subject.told:
                self.ask(subject)

    def _flush(self, most: int = _QUICK) -> None:
        """Send what is ready as long as fewer than *most* batches are under way; the rest follows soon."""
        self._is_due = False
        while self._ready and self._link is not None and len(self._under_way) < most:
            subjects, self._ready = self._ready[:_SUBJECTS], self._ready[_SUBJECTS:]
            self._send(self._link, [step for subject in subjects for step in subject.steps()])
        if self._ready and self._link is not None and self._gathering is None:
            self._gathering = self._loop.call_later(_GATHER_SECONDS, self._flush_gathered)

    def _flush_gathered(self) -> None:
        self._gathering = None
        self._flush(_UNDER_WAY)

    def _send(self, link: Link, steps: list[Step]) -> None:
        calls = [steps]
        if link.splits:
            calls = [list(of_one) for _, of_one in groupby(steps, key=lambda step: step.subject.key)]
        batch = _Batch(steps, len(calls), self._clock(), time.monotonic())
        self._under_way[batch] = None
        self._batches[len(steps)] += 1
        if self._watching is None:
            self._watching = self._loop.call_later(ANSWER_SECONDS - STARVED_SECONDS, self._watch)
        link.send([self._call(batch, of_call, link) for of_call in calls])

    def _call(self, batch: _Batch, steps: list[Step], link: Link, *, in_full: bool = False) -> RedisCall:
        keys: list[bytes] = []
        arguments = [self._who]
        told: Subject | None = None
        for subject, demand, waiting in steps:
            keys.append(subject.written_key)
            # What is held is said once: a subject's second step takes it as the first has left it.
            held, owed = (_AS_BEFORE, 0) if subject is told else (subject.told or 0, subject.owed_told)
            arguments.append(subject.written(demand, len(waiting), held, owed))
            told = subject
        count = _ARGUMENTS_OF_WORKER + _ARGUMENTS * len(steps)
        written = self._scripts.admit.written(keys, arguments, count, in_full=in_full)
        return RedisCall(steps[0].subject.key, written, partial(self._answered, batch, steps, link))

    def _watch(self, suspect: _Batch | None = None) -> None:
        """End the link when a batch has no answer in time: one timer for all, for most are answered long before."""
        oldest = next(iter(self._under_way), None)
        if oldest is None or self._link is None:
            self._watching = None
        elif oldest is suspect:
            self._watching = None
            self._link.end(LateReply())
        elif (left := oldest.sent_at + ANSWER_SECONDS - STARVED_SECONDS - time.monotonic()) > 0:
            self._watching = self._loop.call_later(left, self._watch)
        else:
            left = max(_READ_SECONDS, left + STARVED_SECONDS)
            self._watching = self._loop.call_later(left, self._watch, oldest)

    def _answered(self, batch: _Batch, steps: list[Step], link: Link, reply: Reply) -> None:
        if batch not in self._under_way:
            return
        if isinstance(reply, NoScriptError):
            # Not carried out; wherever the call goes now, the script goes along.
            link.send([self._call(batch, steps, link, in_full=True)])
            return
        if isinstance(reply, RedisError):
            link.end(reply)
            return
        self._settle(steps, cast("Sequence[int]", reply), batch.asked_at)
        batch.calls -= 1
        if not batch.calls:
            del self._under_way[batch]
        if self._ready and not self._is_due:
            self._flush()

    def _settle(self, steps: Sequence[Step], reply: Sequence[int], asked_at: float) -> None:
        fields = iter(reply)
        unsaid: list[Subject] = []
        for step, of_step in zip(steps, zip(*[fields] * _REPLY_FIELDS, strict=True), strict=True):
            subject = step.subject
            subject.settle(step, of_step, asked_at)
            if subject.waiting or subject.held != subject.told:
                unsaid.append(subject)
        # All of them first: a chunk may leave from here.
        for subject in unsaid:
            if subject.waiting:
                self.ask(subject)
            else:
                self.restate(subject)

    def _fail(self, step: Step) -> None:
        subject = step.subject
        subject.fail()
        self._settle_without(step)
        if subject.waiting and not subject.is_queued:
            subject.is_queued = True
            self._ready.append(subject)

    def _settle_without(self, step: Step) -> None:
        for future in step.waiting:
            if not future.done():
                future.set_result(self._without(step.subject, step.demand))
