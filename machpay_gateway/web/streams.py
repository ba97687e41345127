"""Streams in progress, responses and WebSockets, and how they end when their credential is no longer valid.

One timer for each event loop rechecks all of them: a task or a timer for each would cost more than the decision. A
response that is sent in one piece, as nearly all are, is not a stream.
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
from machpay_gateway.log_throttle import LogThrottle

logger = logging.getLogger("machpay_gateway")

ENDED = "request %s ended: its credential is no longer valid"

CHECK_SECONDS = 20.0  # between two checks of a stream's credential: a revoked one ends within 60 s
EVENT_STREAM = b"text/event-stream"  # in lower case, as frameworks send it
GRACE_SECONDS = 5.0  # for a client to take the last message, and for an application to see the disconnect
_CHECKS_AT_ONCE = 64

Task = asyncio.Task[Any]
Loop = asyncio.AbstractEventLoop
Check = Callable[[RequestFacts, Route], Awaitable[Denied | None]]


class OpenStream:
    """A response or WebSocket in progress. *is_ended* says that its credential is no longer valid.

    *lease* is held until its last message, and *send* is the server's. The application sends from *task*.
    """

    __slots__ = (
        "_is_cancelled", "_is_event_stream", "_is_websocket", "_lease", "_send",
        "facts", "is_ended", "is_over", "route", "task",
    )  # fmt: skip

    def __init__(self, start: Message, *, facts: RequestFacts, route: Route, lease: Lease | None, send: Send) -> None:
        """Track the response that begins with the message *start* of the current task."""
        self._is_websocket = start["type"] == "websocket.accept"
        self._is_event_stream = any(
            name == b"content-type" and value.startswith(EVENT_STREAM) for name, value in start.get("headers", ())
        )
        self._lease = lease
        self._send = send
        # Only for streams, because looking it up costs 1 % of a request. An application that sends from another task
        # awaits that task, and ends with it.
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - ASGI messages are sent from a task
        self.task: Task = task
        self.facts, self.route = facts, route
        self.is_ended = self.is_over = self._is_cancelled = False

    def send(self, message: Message) -> Awaitable[None]:
        """Send *message* of the application; after the end, drop it."""
        if not self.is_ended:
            return self._send(message)
        return _swallow() if self._is_websocket else _refuse()

    def finish(self) -> None:
        """Release the concurrency slot after the last message: the application may have background tasks."""
        self.is_over = True
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()

    def close(self) -> None:
        """Finish after the application has returned, and take back a cancellation that it did not need."""
        self.finish()
        if self._is_cancelled:
            self.task.uncancel()

    def explains(self, error: BaseException) -> bool:
        """Return whether *error*, raised by the application, follows from the end of its stream."""
        if isinstance(error, asyncio.CancelledError):
            # If a server that shuts down has canceled it too, that is fine: the task ends now.
            return self._is_cancelled
        if self.is_ended:
            logger.debug("The application failed after its stream was ended.", exc_info=error)
        return self.is_ended

    async def end(self, denied: Denied) -> None:
        """End the stream for the client and the application."""
        self.is_ended = True
        self.finish()
        if self._is_websocket:
            code = PROBLEMS[denied.reason].close_code
            await _send_last(self._send, {"type": "websocket.close", "code": code, "reason": str(denied.reason)})
            await asyncio.sleep(GRACE_SECONDS)  # for an application that does not receive
        elif self._is_event_stream:  # its client reconnects after any end
            await _send_last(self._send, {"type": "http.response.body", "body": b"", "more_body": False})
        # Any other body stays incomplete: the server closes the connection, and the client sees that.

    def cancel(self) -> None:
        """Cancel the application."""
        self._is_cancelled = True
        self.task.cancel()


class StreamWatch:
    """Rechecks all *open* streams every *seconds*, and ends those that *check* refuses."""

    def __init__(self, check: Check, *, seconds: float | None = None) -> None:
        """Begin without streams. *check* returns why a request would be refused now, None if it would not."""
        self.open: set[OpenStream] = set()
        self._check = check
        self._throttle = LogThrottle(logger)
        self._seconds = CHECK_SECONDS if seconds is None else seconds
        self._timed: set[Loop] = set()
        self._rounds: dict[Loop, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def add(self, stream: OpenStream, began_at: float | None) -> None:
        """Track *stream*, whose request *began_at*, by `time.perf_counter`. Ignores streams of other event loops."""
        loop = asyncio.get_running_loop()
        if stream.task.get_loop() is not loop:
            return
        self.open.add(stream)
        if loop not in self._timed:
            self._forget_closed_loops()
            self._set_timer(loop)
        if began_at is not None and perf_counter() - began_at > self._seconds:
            loop.call_soon(self._begin_round, loop)  # it took long to begin, and its credential may have expired since

    def discard(self, stream: OpenStream) -> None:
        """Stop tracking *stream*: its application has returned."""
        self.open.discard(stream)
        stream.close()

    def _set_timer(self, loop: Loop) -> None:
        self._timed.add(loop)
        loop.call_later(self._seconds, self._on_timer, loop)

    def _on_timer(self, loop: Loop) -> None:
        self._timed.discard(loop)
        if any(stream.task.get_loop() is loop for stream in tuple(self.open)):
            self._set_timer(loop)
            self._begin_round(loop)

    def _begin_round(self, loop: Loop) -> None:
        if loop not in self._rounds:  # the one before may still wait for a store
            streams = [stream for stream in tuple(self.open) if stream.task.get_loop() is loop]
            self._rounds[loop] = checking = loop.create_task(self._check_all(streams))
            checking.add_done_callback(lambda _: self._rounds.pop(loop, None))

    async def _check_all(self, streams: list[OpenStream]) -> None:
        for at in range(0, len(streams), _CHECKS_AT_ONCE):
            await asyncio.gather(*map(self._check_one, streams[at : at + _CHECKS_AT_ONCE]))

    async def _check_one(self, stream: OpenStream) -> None:
        denied = await self._check(stream.facts, stream.route)
        if denied is not None and stream in self.open and not stream.is_over:
            self._throttle.log(logging.INFO, ENDED, stream.facts.request_id.decode())
            ending = asyncio.create_task(self._end(stream, denied))  # not awaited: a client may be slow
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def _end(self, stream: OpenStream, denied: Denied) -> None:
        await stream.end(denied)
        if stream in self.open:
            stream.cancel()

    def _forget_closed_loops(self) -> None:
        """Drop what belongs to closed event loops: test clients close them while streams are open."""
        self._timed = {loop for loop in self._timed if not loop.is_closed()}
        self._rounds = {loop: task for loop, task in self._rounds.items() if not loop.is_closed()}
        self._ending = {task for task in self._ending if not task.get_loop().is_closed()}
        self.open = {stream for stream in self.open if not stream.task.get_loop().is_closed()}


async def _send_last(send: Send, message: Message) -> None:
    # The server may wait for a client that reads nothing, or know that it has disconnected.
    with suppress(OSError, RuntimeError, TimeoutError):
        async with asyncio.timeout(GRACE_SECONDS):
            await send(message)


async def _refuse() -> None:
    raise OSError("the response was ended: its credential is no longer valid")  # ASGI: as after a disconnect


async def _swallow() -> None:
    await asyncio.sleep(0)  # an application that only sends must not block the event loop


async def _disconnected() -> Message:
    return {"type": "websocket.disconnect", "code": 1006, "reason": ""}


def receive_until_end(receive: Receive, stream: Callable[[], OpenStream | None]) -> Receive:
    """Return *receive* for a WebSocket's application: once the stream has ended, it reports a disconnect."""

    def receive_until_ended() -> Awaitable[Message]:
        current = stream()
        return receive() if current is None or not current.is_ended else _disconnected()

    return receive_until_ended
