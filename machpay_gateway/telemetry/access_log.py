"""The access log: one line of JSON for each request, written in batches, so that no request waits for I/O.

A line never holds a header, a query or a body, and secrets in a path are masked. It is formatted by hand: structlog
with orjson takes two to three times as long (`benchmarks.written`).
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
from machpay_gateway.core.usage.outcome import RequestOutcome, policies_of
from machpay_gateway.log_throttle import LogThrottle
from machpay_gateway.telemetry.steps import Steps
from machpay_gateway.web.path import LONG

logger = logging.getLogger(__name__)

STDOUT, OFF = "stdout", "off"
_FLUSH_SECONDS = 0.25
_MAX_LINES = 100_000  # in the buffer, if the disk or the reader of the pipe is slow; some 30 MB
_STDOUT_FILENO = 1
_MILLISECONDS = tuple(b'%03dZ","request_id":"' % number for number in range(1000))
_DURATIONS = b'%.3f,"decision_milliseconds":%.3f,"upstream_milliseconds":%.3f,"bytes":%d}\n'


class AccessLog:
    """Writes lines to *target*: `stdout`, or a file, which is opened again for each batch so that it can be rotated."""

    def __init__(self, target: str, *, clock: Callable[[], float] = time.time) -> None:
        """Start empty. *clock* is in seconds since the epoch."""
        self._target = target
        self._clock = clock
        self._lines: list[bytes] = []
        self.lost = 0  # lines that were dropped, or could not be written
        self._dropped = self._failed = 0  # those that the process log does not have yet
        self._throttle = LogThrottle(logger)
        self._second = 0
        self._prefix = b""
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None

    def add(  # noqa: PLR0913, PLR0917 - positional, because it is called for every request
        self,
        facts: RequestFacts,
        principal: Principal | Anonymous | None,
        route: Route | None,
        outcome: RequestOutcome,
        status: int,
        steps: Steps,
        sent_bytes: int,
        trace_id: bytes = b"",
        forwarded_path: str | None = None,
    ) -> None:
        """Add the line of a finished request. Without a trace, *trace_id* is empty.

        *forwarded_path* is what the upstream got, if that is not the authorized path.
        """
        now = self._clock()
        second = int(now)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime('{"time":"%Y-%m-%dT%H:%M:%S.', time.gmtime(second)).encode()
        if len(self._lines) >= _MAX_LINES:
            self.lost += 1
            self._dropped += 1
            return
        method, path, _, address, request_id, _, _ = facts
        began_at, _, decided_at, answered_at, ended_at = steps  # unpacked: attributes of a NamedTuple cost more
        match = None if route is None else route.match
        key = None if principal is None else principal.key_id
        format_members = _shared_members if path is None or len(path) < LONG else _shared_members.__wrapped__
        if decided_at is None or answered_at is None:
            durations = _partial_durations(steps, sent_bytes)
        else:  # nearly always; one format operation takes a third less time than one for each number
            durations = _DURATIONS % (
                (ended_at - began_at) * 1000,
                (decided_at - began_at) * 1000,
                (answered_at - decided_at) * 1000,
                sent_bytes,
            )
        if trace_id:
            durations = b'%b,"trace_id":"%b"}\n' % (durations[:-2], trace_id)
        if forwarded_path is not None:
            durations = b'%b,"forwarded_path":%b}\n' % (durations[:-2], orjson.dumps(mask_secrets(forwarded_path)))
        members = format_members(method, path, status, outcome, match, key, address)
        self._lines.append(
            b"".join((self._prefix, _MILLISECONDS[int((now - second) * 1000)], request_id, members, durations))
        )
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self._flush)

    async def close(self) -> None:
        """Write the remaining lines."""
        if self._timer is not None:
            self._timer.cancel()
        while self._lines or self._writing is not None:
            if self._writing is None:
                self._flush()
            if self._writing is not None:
                await asyncio.wait([self._writing])  # unlike await, this does not raise; `_written` logs

    def _flush(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        if self._writing is not None:
            self._timer = loop.call_later(_FLUSH_SECONDS, self._flush)
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
        if self._dropped:
            self._throttle.add("dropped", self._log_dropped)
        if not writing.cancelled() and (error := writing.exception()) is not None:
            self.lost += count
            self._failed += count
            self._throttle.add("failed", partial(self._log_failed, error))

    def _log_dropped(self, _count: int) -> None:
        lines, self._dropped = self._dropped, 0
        logger.warning("%d lines are missing from the access log: it is written too slowly.", lines)

    def _log_failed(self, error: BaseException, _count: int) -> None:
        lines, self._failed = self._failed, 0
        logger.warning("%d lines are missing from the access log: it cannot be written (%s).", lines, error)


@lru_cache(maxsize=4096)  # long paths are not cached, which bounds its memory
def _shared_members(  # noqa: PLR0917 - positional arguments make the cheapest cache keys
    method: str,
    path: str | None,
    status: int,
    outcome: RequestOutcome,
    match: str | None,
    key: str | None,
    address: int | None,
) -> bytes:
    """Return the members that lines of many requests share, between the id and the durations."""
    members = {
        "method": mask_secrets(method),
        "path": None if path is None else mask_secrets(path),
        "status": status,
        "outcome": str(outcome),
        **({"violated_policies": policies} if (policies := policies_of(outcome)) else {}),
        "route": match,
        "key": key,
        "address": format_address_or_none(address),
    }
    return b'",%b,"milliseconds":' % orjson.dumps(members)[1:-1]


def _partial_durations(steps: Steps, sent_bytes: int) -> bytes:
    """Return `_DURATIONS` with null for steps that the request did not reach."""
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
        written = os.write(file, view)  # its own line: mypyc 2.4 would call it twice within the slice
        view = view[written:]
