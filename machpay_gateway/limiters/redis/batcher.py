"""Group commit: the steps of one turn of the event loop go out as one script call, with few batches in flight.

A subject has at most one step in flight. So each step can state in full how many slots its worker holds, and the next
one corrects whatever a lost or late one left behind; a release costs nothing when another step follows it.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple, cast

from redis.exceptions import NoScriptError, RedisError

from machpay_gateway.core.limits.admission import AdmissionRequest, Answer, LimiterUnavailable, PendingAnswer, abandon
from machpay_gateway.core.limits.calendar import DAY_SECONDS
from machpay_gateway.limiters.redis.connection import (
    REPLY_TIMEOUT_SECONDS,
    STARVED_SECONDS,
    LateReply,
    PipelinedConnection,
    RedisCall,
    Reply,
    set_result,
)
from machpay_gateway.limiters.redis.resp import encode_bulk
from machpay_gateway.limiters.redis.scripts import Scripts
from machpay_gateway.limiters.redis.steps import UNSEEDED, Moment
from machpay_gateway.limiters.redis.subject import Step, Subject, SubjectSet, report_step

LEASE_SECONDS = 10
_READ_SECONDS = 0.01  # in which an event loop reads a reply that is there
_MAX_CHUNKS_IN_FLIGHT = 3  # batches of whole chunks: the more steps share a batch, the less each costs
_MAX_REST_IN_FLIGHT = 1  # for less than a chunk: it leaves when nothing is in flight, or with the next reply
_GATHER_SECONDS = 0.002  # the longest that steps gather: where replies take longer, more batches are in flight
_MAX_IN_FLIGHT = 32  # batches, in any case
_CHUNK = 24  # subjects that go out before the turn is over: the server works while the loop reads more requests
_SUBJECTS = 256  # in a batch: about 2 ms of the server's time
_WORKER_ARGUMENTS = 2  # of `admit.lua`, before one for each step
_LINGER_SECONDS = 0.01  # that a release waits for a step to ride with, when nothing waits for the slot
_DRAIN_SECONDS = 0.001


class _Call(NamedTuple):
    """A call of `admit.lua` for started *steps*: its encoded *keys*, how many they are, and encoded *arguments*."""

    steps: Sequence[Step]
    keys: list[bytes]
    key_count: int
    arguments: list[bytes]


class _Batch:
    """Calls that went out together and have no reply yet."""

    __slots__ = ("calls", "sent_at", "started_at", "unanswered")

    def __init__(self, calls: Sequence[_Call], started_at: float, sent_at: float) -> None:
        self.calls = calls
        self.unanswered = len(calls)
        self.started_at = started_at  # by the limiter's clock
        self.sent_at = sent_at  # by the machine's, as the loop's timers


class Batcher:
    """Gathers the steps of subjects into batches, and resolves them by the server's replies."""

    def __init__(
        self,
        scripts: Scripts,
        worker: str,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        decide_locally: Callable[[SubjectSet, AdmissionRequest], Answer | PendingAnswer],
        seed: Callable[[Step], None],
        batches: Counter[int],
    ) -> None:
        """Run *scripts* as *worker*.

        *wall_clock* is in seconds since the epoch. *decide_locally* answers without the server; *seed* gets each step
        that lacks the count of a quota. *batches* counts batches by size.
        """
        self._scripts = scripts
        self._encoded_worker = encode_bulk(worker, LEASE_SECONDS)
        self._clock = clock
        self._wall_clock = wall_clock
        self._decide_locally = decide_locally
        self._seed = seed
        self._batches = batches
        self._loop = asyncio.get_running_loop()
        self._connection: PipelinedConnection | None = None
        self._ready: list[Subject] = []
        self._in_flight: dict[_Batch, None] = {}  # in the order in which they went out
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._gather_timer: asyncio.TimerHandle | None = None
        self._is_flush_scheduled = False
        self._charged: list[Subject] = []  # while their steps were in flight
        self._lingering: list[Subject] = []
        self._linger_timer: asyncio.TimerHandle | None = None
        self.connected = 0  # in which second, for `Moment`
        self.workers = 1  # alive at the last heartbeat, with this one

    def submit(self, subject: Subject) -> None:
        """Send the steps of *subject* in this turn of the loop, or once its step in flight is resolved."""
        if subject.is_in_flight or subject.is_queued:
            return
        subject.is_queued = True
        self._ready.append(subject)
        if len(self._ready) >= _CHUNK:
            self._flush()
        elif not self._is_flush_scheduled:
            self._is_flush_scheduled = True
            self._loop.call_soon(self._flush, _MAX_REST_IN_FLIGHT)

    def report_charge(self, subject: Subject) -> None:
        """Report the backlog of *subject* at once, or once its step in flight is resolved."""
        if subject.is_in_flight:
            self._charged.append(subject)
        else:
            self.submit(subject)

    def report_release(self, subject: Subject) -> None:
        """Report that *subject* holds fewer slots than the server counts: at once if a request may wait for one.

        While slots stay free even if all workers are as late as this one, the report waits a little for the next step
        of the subject, which makes it at no cost.
        """
        if subject.is_in_flight or subject.is_queued:
            return
        if subject.reported is None or (subject.reported - subject.held) * self.workers >= subject.slots_left:
            self.submit(subject)
        elif not subject.is_lingering:
            subject.is_lingering = True
            self._lingering.append(subject)
            if self._linger_timer is None:
                self._linger_timer = self._loop.call_later(_LINGER_SECONDS, self._report_lingering)

    def attach(self, connection: PipelinedConnection) -> None:
        """Send over *connection* from now on."""
        self._connection = connection
        self._flush()

    def detach(self) -> None:
        """Stop sending, and resolve the steps in flight without the server. Queued steps keep waiting."""
        self._connection = None
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
            self._deadline_timer = None
        batches, self._in_flight = self._in_flight, {}
        for batch in batches:
            for call in batch.calls:
                for step in call.steps:
                    self._fail(step)

    def fail_queued(self) -> None:
        """Resolve the queued steps without the server."""
        for subject in self._ready:
            subject.is_queued = False
            waiting, subject.queue = subject.queue, []
            for step in waiting:
                self.resolve_locally(step)
        self._ready = []

    def requeue(self) -> None:
        """Let each queued step go the way of its subject, whose slot may have moved to another shard."""
        subjects, self._ready = self._ready, []
        for subject in subjects:
            subject.is_queued = False
            subject.slot.batcher.submit(subject)

    async def drain(self) -> None:
        """Wait until no step is left, or the connection is lost."""
        self._report_lingering()
        while self._connection is not None and (self._ready or self._in_flight):  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(_DRAIN_SECONDS)

    def _report_lingering(self) -> None:
        subjects, self._lingering, self._linger_timer = self._lingering, [], None
        for subject in subjects:
            subject.is_lingering = False
            if subject.held != subject.reported:
                self.submit(subject)

    def _flush(self, max_in_flight: int = _MAX_CHUNKS_IN_FLIGHT) -> None:
        """Send what is ready while fewer than *max_in_flight* batches are in flight; the rest follows soon."""
        self._is_flush_scheduled = False
        while self._ready and self._connection is not None and len(self._in_flight) < max_in_flight:
            subjects, self._ready = self._ready[:_SUBJECTS], self._ready[_SUBJECTS:]
            self._send(self._connection, subjects)
        if self._ready and self._connection is not None and self._gather_timer is None:
            self._gather_timer = self._loop.call_later(_GATHER_SECONDS, self._flush_gathered)

    def _flush_gathered(self) -> None:
        self._gather_timer = None
        self._flush(_MAX_IN_FLIGHT)

    def _send(self, connection: PipelinedConnection, subjects: list[Subject]) -> None:
        steps: list[Step] = []
        for subject in subjects:
            subject.is_queued, subject.is_in_flight = False, True
            if subject.queue:
                steps += subject.queue
                subject.queue = []
            else:
                steps.append(report_step(subject))
        calls = [steps]
        if connection.is_cluster:
            calls = [list(of_one) for _, of_one in groupby(steps, key=lambda step: step.subjects.own.key)]
        moment = Moment(int(self._wall_clock() // DAY_SECONDS), self.connected)
        sent = [_start(steps_of_call, moment, self._encoded_worker) for steps_of_call in calls]
        batch = _Batch(sent, self._clock(), time.monotonic())
        self._in_flight[batch] = None
        self._batches[len(steps)] += 1
        if self._deadline_timer is None:
            self._deadline_timer = self._loop.call_later(REPLY_TIMEOUT_SECONDS - STARVED_SECONDS, self._check_deadline)
        connection.send([self._call(batch, call, connection) for call in sent])

    def _call(
        self, batch: _Batch, call: _Call, connection: PipelinedConnection, *, with_source: bool = False
    ) -> RedisCall:
        count = _WORKER_ARGUMENTS + len(call.steps)
        encoded = self._scripts.admit.encode(call.keys, call.key_count, call.arguments, count, with_source=with_source)
        return RedisCall(call.steps[0].subjects.own.key, encoded, partial(self._on_reply, batch, call, connection))

    def _check_deadline(self, suspect: _Batch | None = None) -> None:
        """Give the connection up when a batch has no reply in time. One timer for all: most replies come long before.

        A batch past its deadline is a *suspect* first: an event loop that was blocked itself reads its reply now.
        """
        oldest = next(iter(self._in_flight), None)
        if oldest is None or self._connection is None:
            self._deadline_timer = None
        elif oldest is suspect:
            self._deadline_timer = None
            self._connection.fail(LateReply())
        elif (left := oldest.sent_at + REPLY_TIMEOUT_SECONDS - STARVED_SECONDS - time.monotonic()) > 0:
            self._deadline_timer = self._loop.call_later(left, self._check_deadline)
        else:
            left = max(_READ_SECONDS, left + STARVED_SECONDS)
            self._deadline_timer = self._loop.call_later(left, self._check_deadline, oldest)

    def _on_reply(self, batch: _Batch, call: _Call, connection: PipelinedConnection, reply: Reply) -> None:
        if batch not in self._in_flight:
            return
        if isinstance(reply, NoScriptError):
            # It was not executed. Wherever the call is redirected to, the script goes with it.
            connection.send([self._call(batch, call, connection, with_source=True)])
            return
        if isinstance(reply, RedisError):
            connection.fail(reply)
            return
        self._resolve(call.steps, cast("Sequence[int]", reply), batch.started_at)
        batch.unanswered -= 1
        if not batch.unanswered:
            del self._in_flight[batch]
        if self._ready and not self._is_flush_scheduled:
            self._flush()

    def _resolve(self, steps: Sequence[Step], reply: Sequence[int], started_at: float) -> None:
        at = 1  # after the number of the day
        unreported: dict[Subject, None] = {}
        for step in steps:
            subjects = step.subjects
            if not subjects.resolve(step, reply, at, started_at):
                if reply[at] == UNSEEDED:
                    self._seed(step)
                unreported |= dict.fromkeys(subjects.unreported())
            at += subjects.reply_fields
        # Only after all are resolved: a chunk may leave from here.
        for subject in unreported:
            # Its slot may have moved to another shard.
            if subject.queue:
                subject.slot.batcher.submit(subject)
            else:
                subject.slot.batcher.report_release(subject)
        charged, self._charged = self._charged, []
        for subject in charged:
            subject.slot.batcher.report_charge(subject)

    def _fail(self, step: Step) -> None:
        subject = step.subjects.own
        step.subjects.fail(step)
        self.resolve_locally(step)
        if subject.queue:
            subject.slot.batcher.submit(subject)

    def resolve_locally(self, step: Step) -> None:
        """Answer all that still waits for *step*, without the server."""
        for reader in step.more.readers if step.more is not None else ():
            set_result(reader, LimiterUnavailable("Redis does not answer"))
        for future in step.futures:
            if not future.done():
                answer = self._decide_locally(step.subjects, step.request)
                if isinstance(answer, Answer):
                    future.set_result(answer)
                else:
                    answer.add_done_callback(partial(_pass_on, future))


def _start(steps: Sequence[Step], moment: Moment, encoded_worker: bytes) -> _Call:
    """Start *steps* at a *moment*, and return the call for them."""
    keys: list[bytes] = []
    arguments = [encoded_worker]
    key_count = 0
    for step in steps:
        subjects = step.subjects
        keys.append(subjects.encoded_keys)
        arguments.append(subjects.start(step, moment))
        key_count += subjects.key_count
    return _Call(steps, keys, key_count, arguments)


def _pass_on(future: asyncio.Future[Answer], answer: PendingAnswer) -> None:
    if future.done() or answer.cancelled():
        abandon(answer)
    else:
        future.set_result(answer.result())
