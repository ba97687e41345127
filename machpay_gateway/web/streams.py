"""Responses and WebSockets in progress, and how they end when their credential is no longer good.

One timer for each event loop looks at all of them: a task or a timer for each would cost more than the decision does.
Responses that come in one piece, as nearly all do, are none of them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import perf_counter
from typing import Any

from starlette.types import Message, Receive, Send

from machpay_gateway.core.decision.decision import Denied
from machpay_gateway.core.decision.problem import PROBLEMS
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.limits.admission import Lease

logger = logging.getLogger("machpay_gateway")

CHECK_SECONDS = 20.0  # between two looks at the credential of what is in progress: revoked ones end within 60 s
EVENT_STREAM = b"text/event-stream"  # in lower case, as frameworks write it
GRACE_SECONDS = 5.0  # for a client to take the last message, and for an application to hear that its client is gone
_CHECKS_AT_ONCE = 64

Task = asyncio.Task[Any]
Loop = asyncio.AbstractEventLoop
Check = Callable[[RequestFacts, Route], Awaitable[Denied | None]]


class OpenStream:
    """A response or WebSocket in progress. *is_ended* says that its credential is no longer good.

    *lease* is held until its last message, and *send* goes to the server. *task* is what the application sends from.
    """

    __slots__ = (
        "_is_cancelled", "_is_event_stream", "_is_websocket", "_lease", "_send",
        "facts", "is_ended", "is_over", "route", "task",
    )  # fmt: skip

    def __init__(self, start: Message, *, facts: RequestFacts, route: Route, lease: Lease | None, send: Send) -> None:
        """Watch over the response that the message *start*, which this task has just sent, begins."""
        self._is_websocket = start["type"] == "websocket.accept"
        self._is_event_stream = any(
            name == b"content-type" and value.startswith(EVENT_STREAM) for name, value in start.get("headers", ())
        )
        self._lease = lease
        self._send = send
        # Asked for here and not for each request, which would cost 1 % of them. An application that sends from a task
        # of its own waits for it, and ends with it.
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - whatever sends is one
        self.task: Task = task
        self.facts, self.route = facts, route
        self.is_ended = self.is_over = self._is_cancelled = False

    def send(self, message: Message) -> Awaitable[None]:
        """Send on what the application sends. What it sends after the end goes nowhere."""
        if not self.is_ended:
            return self._send(message)
        return _swallow() if self._is_websocket else _refuse()

    def finish(self) -> None:
        """Give the slot back after the last message: the application may have tasks that run on after it."""
        self.is_over = True
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()

    def close(self) -> None:
        """Leave the task to its server, now that the application has returned."""
        self.finish()
        if self._is_cancelled:
            self.task.uncancel()

    def explains(self, error: BaseException) -> bool:
        """Tell whether *error*, which the application ended by, follows from the end of its stream."""
        if isinstance(error, asyncio.CancelledError):
            # If a server that stops has cancelled it too, that one gets what it wants: the task ends now.
            return self._is_cancelled
        if self.is_ended:
            logger.debug("The application failed after its stream was ended.", exc_info=error)
        return self.is_ended

    async def end(self, denied: Denied) -> None:
        """Have the client see the end, and the application too."""
        self.is_ended = True
        self.finish()
        if self._is_websocket:
            code = PROBLEMS[denied.reason].close_code
            await _send_last(self._send, {"type": "websocket.close", "code": code, "reason": str(denied.reason)})
            await asyncio.sleep(GRACE_SECONDS)  # for one that does not listen
        elif self._is_event_stream:  # which has no end of its own, so its client asks again in any case
            await _send_last(self._send, {"type": "http.response.body", "body": b"", "more_body": False})
        # Any other body stays without its end: the server closes the connection, and the client sees that it is cut.

    def cancel(self) -> None:
        """Cancel the application."""
        self._is_cancelled = True
        self.task.cancel()


class StreamWatch:
    """Looks at all *open* streams every *seconds*, and ends those that *check* refuses."""

    def __init__(self, check: Check, *, seconds: float | None = None) -> None:
        """Watch nothing yet. *check* returns why a request could not begin now, None if it could."""
        self.open: set[OpenStream] = set()
        self._check = check
        self._seconds = CHECK_SECONDS if seconds is None else seconds
        self._timed: set[Loop] = set()
        self._rounds: dict[Loop, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def add(self, stream: OpenStream, began_at: float | None) -> None:
        """Watch *stream*, whose request *began_at*, by `time.perf_counter`. One of another thread is let be."""
        loop = asyncio.get_running_loop()
        if stream.task.get_loop() is not loop:
            return
        self.open.add(stream)
        if loop not in self._timed:
            self._forget_closed_loops()
            self._set_timer(loop)
        if began_at is not None and perf_counter() - began_at > self._seconds:
            loop.call_soon(self._begin_round, loop)  # it was silent for long, and its credential may have ended then

    def discard(self, stream: OpenStream) -> None:
        """Watch *stream* no more: its application has returned."""
        self.open.discard(stream)
        stream.close()

    def _set_timer(self, loop: Loop) -> None:
        self._timed.add(loop)
        loop.call_later(self._seconds, self._look, loop)

    def _look(self, loop: Loop) -> None:
        self._timed.discard(loop)
        if any(stream.task.get_loop() is loop for stream in tuple(self.open)):
            self._set_timer(loop)
            self._begin_round(loop)

    def _begin_round(self, loop: Loop) -> None:
        if loop not in self._rounds:  # the one before may wait for a store that does not answer
            streams = [stream for stream in tuple(self.open) if stream.task.get_loop() is loop]
            self._rounds[loop] = checking = loop.create_task(self._check_all(streams))
            checking.add_done_callback(lambda _: self._rounds.pop(loop, None))

    async def _check_all(self, streams: list[OpenStream]) -> None:
        for at in range(0, len(streams), _CHECKS_AT_ONCE):
            await asyncio.gather(*map(self._check_one, streams[at : at + _CHECKS_AT_ONCE]))

    async def _check_one(self, stream: OpenStream) -> None:
        denied = await self._check(stream.facts, stream.route)
        if denied is not None and stream in self.open and not stream.is_over:
            logger.info("request %s ended: its credential is no longer good", stream.facts.request_id.decode())
            ending = asyncio.create_task(self._end(stream, denied))  # a client may take its time
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def _end(self, stream: OpenStream, denied: Denied) -> None:
        await stream.end(denied)
        if stream in self.open:
            stream.cancel()

    def _forget_closed_loops(self) -> None:
        """Forget what test clients leave behind: they close their loops, whatever runs in them."""
        self._timed = {loop for loop in self._timed if not loop.is_closed()}
        self._rounds = {loop: task for loop, task in self._rounds.items() if not loop.is_closed()}
        self._ending = {task for task in self._ending if not task.get_loop().is_closed()}
        self.open = {stream for stream in self.open if not stream.task.get_loop().is_closed()}


async def _send_last(send: Send, message: Message) -> None:
    # The server may wait for a client that takes nothing, or know already that it is gone.
    with suppress(OSError, RuntimeError, TimeoutError):
        async with asyncio.timeout(GRACE_SECONDS):
            await send(message)


async def _refuse() -> None:
    raise OSError("the response was ended: its credential is no longer good")  # ASGI: as of a client that is gone


async def _swallow() -> None:
    await asyncio.sleep(0)  # an application that does nothing but send must not hold up the event loop


async def _disconnected() -> Message:
    return {"type": "websocket.disconnect", "code": 1006, "reason": ""}


def receive_until_end(receive: Receive, stream: Callable[[], OpenStream | None]) -> Receive:
    """Return *receive* for a WebSocket's application, which hears of nothing but the end once that has come."""

    def receive_until_ended() -> Awaitable[Message]:
        known = stream()
        return receive() if known is None or not known.is_ended else _disconnected()

    return receive_until_ended
