"""One line of JSON for each request, written in batches: a request waits for no disk, and no reader of a pipe.

A line never holds a header, a query or a body, and what looks like a secret in a path is cut short. It is put together
by hand: a BoundLogger of structlog that renders it by orjson takes two to three times as long (`benchmarks.written`).
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import orjson

from machpay_gateway.core.decision.principal import Anonymous, Principal
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.network.address import format_address_or_none
from machpay_gateway.core.text import mask_secrets
from machpay_gateway.telemetry.steps import Steps
from machpay_gateway.web.path import LONG

logger = logging.getLogger(__name__)

STDOUT, OFF = "stdout", "off"
_FLUSH_SECONDS = 0.25
_MOST_LINES = 100_000  # that wait for a slow disk or reader; some 30 MB
_STDOUT_FILENO = 1
_AT = tuple(b'%03dZ","request_id":"' % number for number in range(1000))  # by the milliseconds of a second
_ENDED = b'%.3f,"decision_milliseconds":%.3f,"upstream_milliseconds":%.3f,"bytes":%d}\n'


class AccessLog:
    """Writes lines to *target*: `stdout`, or a file, which is opened anew for each batch so that it may be rotated."""

    def __init__(self, target: str, *, clock: Callable[[], float] = time.time) -> None:
        """Write nothing yet. *clock* is in seconds since the epoch."""
        self._target = target
        self._clock = clock
        self._lines: list[bytes] = []
        self.lost = 0  # lines, since it was made
        self._lost_told = 0
        self._second = 0
        self._prefix = b""
        self._alarm: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None

    def add(  # noqa: PLR0917 - what a line has, once for every request
        self,
        facts: RequestFacts,
        principal: Principal | Anonymous | None,
        route: Route | None,
        outcome: str,
        status: int,
        steps: Steps,
        sent_bytes: int,
        trace_id: bytes = b"",
    ) -> None:
        """Add the line of a request that ended by *steps*; None and what nobody knows is null.

        One without a trace has no *trace_id*.
        """
        now = self._clock()
        second = int(now)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime('{"time":"%Y-%m-%dT%H:%M:%S.', time.gmtime(second)).encode()
        if len(self._lines) >= _MOST_LINES:
            self.lost += 1
            return
        method, path, _, address, request_id, _, _ = facts
        began_at, _, decided_at, answered_at, ended_at = steps  # and not by properties, each of which is a call
        match = None if route is None else route.match
        key = None if principal is None else principal.key_id
        say = _said if path is None or len(path) < LONG else _said.__wrapped__
        if decided_at is None or answered_at is None:
            ended = _ended_early(steps, sent_bytes)
        else:  # as nearly always: one format for all numbers takes a third less time than one for each
            ended = _ENDED % (
                (ended_at - began_at) * 1000,
                (decided_at - began_at) * 1000,
                (answered_at - decided_at) * 1000,
                sent_bytes,
            )
        if trace_id:
            ended = b'%b,"trace_id":"%b"}\n' % (ended[:-2], trace_id)
        said = say(method, path, status, outcome, match, key, address)
        self._lines.append(b"".join((self._prefix, _AT[int((now - second) * 1000)], request_id, said, ended)))
        if self._alarm is None:
            self._alarm = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self._flush)

    async def close(self) -> None:
        """Write what is left."""
        if self._alarm is not None:
            self._alarm.cancel()
        while self._lines or self._writing is not None:
            if self._writing is None:
                self._flush()
            if self._writing is not None:
                await asyncio.wait([self._writing])  # which does not raise what `_written` tells

    def _flush(self) -> None:
        self._alarm = None
        loop = asyncio.get_running_loop()
        if self._writing is not None:
            self._alarm = loop.call_later(_FLUSH_SECONDS, self._flush)
            return
        lines, self._lines = self._lines, []
        self._writing = loop.run_in_executor(None, self._write, lines)
        self._writing.add_done_callback(partial(self._written, len(lines)))

    def _write(self, lines: list[bytes]) -> None:
        data = b"".join(lines)
        if self._target == STDOUT:
            _write_all(_STDOUT_FILENO, data)
            return
        with Path(self._target).open("ab", buffering=0) as file:
            _write_all(file.fileno(), data)

    def _written(self, count: int, writing: "asyncio.Future[None]") -> None:
        self._writing = None
        if self.lost > self._lost_told:
            logger.warning("%d lines are not in the access log: it is written too slowly.", self.lost - self._lost_told)
        if not writing.cancelled() and (error := writing.exception()) is not None:
            logger.warning("The access log cannot be written; its lines are lost meanwhile.", exc_info=error)
            self.lost += count
        self._lost_told = self.lost


@lru_cache(maxsize=4096)  # what is remembered must not fill the memory, so that lines with long paths are not
def _said(  # noqa: PLR0917 - what is remembered is found by position at least cost
    method: str, path: str | None, status: int, outcome: str, match: str | None, key: str | None, address: int | None
) -> bytes:
    """Return what the lines of many requests share, from the end of the id to the time that it took."""
    members = {
        "method": mask_secrets(method),
        "path": None if path is None else mask_secrets(path),
        "status": status,
        "outcome": str(outcome),
        "route": match,
        "key": key,
        "address": format_address_or_none(address),
    }
    return b'",%b,"milliseconds":' % orjson.dumps(members)[1:-1]


def _ended_early(steps: Steps, sent_bytes: int) -> bytes:
    """Return what `_ENDED` makes of other requests, of one that was not decided here or that no upstream answered."""
    began_at, _, decided_at, answered_at, ended_at = steps
    decision = b"null" if decided_at is None else b"%.3f" % ((decided_at - began_at) * 1000)
    upstream = b"null" if answered_at is None else b"%.3f" % ((answered_at - (decided_at or began_at)) * 1000)
    return b'%.3f,"decision_milliseconds":%b,"upstream_milliseconds":%b,"bytes":%d}\n' % (
        (ended_at - began_at) * 1000,
        decision,
        upstream,
        sent_bytes,
    )


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = os.write(file, view)  # on a line of its own: within the slice, mypyc 2.4 would call it twice
        view = view[written:]
