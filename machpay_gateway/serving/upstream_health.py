"""Health checks of upstream servers: one worker of a host makes them, and the others read its results from a file.

The worker that holds the lock checks; when it ends, however that happens, the system gives the lock to another one.
Workers with other settings, as during a reload, have a file and a lock of their own.
"""

import asyncio
import fcntl
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import orjson

from machpay_gateway.core.network.upstream_options import HealthCheck
from machpay_gateway.proxy.health_probe import probe_status
from machpay_gateway.proxy.pool import ServerPool
from machpay_gateway.proxy.upstream_server import UpstreamServer

logger = logging.getLogger("machpay_gateway")

_POLL_SECONDS = 1.0
_LONGEST = 200  # characters of an error


class UpstreamHealth:
    """Keeps the health of the servers in *pools* up to date, from `start` until `close`."""

    def __init__(self, pools: Mapping[str, ServerPool], folder: Path) -> None:
        """Do nothing yet. *folder* is the one that all workers of this host share."""
        self._servers = dict(_checked_servers(pools))
        digest = sha256(repr([(name, check) for name, (_, check) in self._servers.items()]).encode()).hexdigest()
        self._results = folder / f"{digest[:16]}.health"
        self._lock: int | None = None
        self._read_at = 0  # when the results that were read had been written, in nanoseconds
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start to check, or to read the results of the worker that does."""
        if self._servers:
            self._tasks.append(asyncio.create_task(self._run()))

    async def close(self) -> None:
        """Stop, so that another worker checks; the servers keep their health."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _run(self) -> None:
        while not self._takes_lock():
            self._read()
            await asyncio.sleep(_POLL_SECONDS)
        self._read()
        self._tasks += [
            asyncio.create_task(self._check_regularly(server, check, is_known=self._read_at > 0))
            for server, check in self._servers.values()
        ]

    def _takes_lock(self) -> bool:
        """Return whether this worker checks from now on."""
        lock = os.open(self._results.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def _read(self) -> None:
        """Take over the results in the file, if they are new."""
        with suppress(OSError, ValueError):
            written_at = self._results.stat().st_mtime_ns
            if written_at == self._read_at:
                return
            problems = orjson.loads(self._results.read_bytes())
            self._read_at = written_at
            for name, (server, _) in self._servers.items():
                server.set_health(is_healthy=name not in problems, problem=problems.get(name, ""))

    def _write(self) -> None:
        problems = {name: server.problem for name, (server, _) in self._servers.items() if not server.is_healthy}
        new = self._results.with_suffix(".new")
        try:
            new.write_bytes(orjson.dumps(problems))
            new.replace(self._results)
        except OSError as exc:
            logger.warning("The other workers do not learn which upstreams are healthy: %s", exc)

    async def _check_regularly(self, server: UpstreamServer, check: HealthCheck, *, is_known: bool) -> None:
        streak = 0  # of results that differ from the server's health
        while True:
            problem = await _problem_of(server, check)
            streak = 0 if server.is_healthy is (problem is None) else streak + 1
            needed = check.unhealthy if server.is_healthy else check.healthy
            if streak >= needed or (streak and not is_known):
                streak = 0
                server.set_health(is_healthy=problem is None, problem=problem or "")
                if problem is None:
                    logger.warning("Upstream %s is back: its health checks succeed.", server.name)
                else:
                    logger.warning("Upstream %s is out: %s.", server.name, problem)
                self._write()
            elif not is_known:
                self._write()  # so that the next one to check knows that this server has been checked
            is_known = True
            await asyncio.sleep(check.interval_seconds)


def _checked_servers(pools: Mapping[str, ServerPool]) -> Iterator[tuple[str, tuple[UpstreamServer, HealthCheck]]]:
    for name, pool in pools.items():
        if pool.health is not None:
            for server in pool.servers:
                yield f"{name} {server.name}", (server, pool.health)


async def _problem_of(server: UpstreamServer, check: HealthCheck) -> str | None:
    """Return what a check of *server* finds wrong, None if nothing."""
    try:
        status = await probe_status(server, check.path, check.timeout_seconds)
    except TimeoutError:
        return f"its health check got no response within {check.timeout_seconds:g} s"
    except OSError as exc:
        # asyncio calls whatever keeps it from connecting "Connect call failed".
        reason = os.strerror(exc.errno) if isinstance(exc, ConnectionError) and exc.errno else str(exc)[:_LONGEST]
        return f"its health check failed: {reason}"
    return None if check.expects(status) else f"its health check got status {status}"
