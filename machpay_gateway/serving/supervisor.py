"""The process that keeps workers running: it owns the listening sockets, and serves no request itself.

SIGTERM and SIGINT shut down gracefully: all workers drain, then the process exits. SIGHUP reloads the settings and, if
they are valid, replaces the workers one by one. A worker that dies is restarted. One whose heartbeat stops is killed
and restarted.

Time counts only while this process runs itself: when the whole host was stopped, its workers did not hang.
"""

import asyncio
import logging
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import ceil
from tempfile import TemporaryDirectory

from machpay_gateway.core.errors import ConfigurationError, GatewayError
from machpay_gateway.serving.activation import VARIABLES, activated_sockets, listening_on
from machpay_gateway.serving.listening import Listening, bind, listen_on, socket_name
from machpay_gateway.serving.servable import (
    HEARTBEAT_SECONDS,
    PREPARED,
    READY,
    RELEASED,
    REPLACED,
    check_servable,
)
from machpay_gateway.settings import Options, Settings, load_settings
from machpay_gateway.settings.listeners import to_text
from machpay_gateway.settings.server import ServerSettings

logger = logging.getLogger("machpay_gateway")

_START_SECONDS = 60  # in which a worker reports that it serves
_SILENT_SECONDS = 6  # without a heartbeat: a worker that serves is stopped then, or its event loop hangs
_KILL_SECONDS = 5.0  # beyond what draining may take
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_STABLE_SECONDS = 60.0  # a worker that ran for this long is restarted without a pause


@dataclass(frozen=True, slots=True)
class ServingProcess:
    """The first URL for callers, the URL for operators or None, the number of workers, and all URLs for callers."""

    url: str
    management: str | None
    workers: int
    urls: Sequence[str]


@dataclass(eq=False, slots=True)
class _WorkerProcess:
    """A worker's process, and the pipe on which it reports its stages and its heartbeats."""

    process: Process
    reports: asyncio.StreamReader
    pause: float = 0.0  # before it was started in place of one that died
    is_wanted: bool = True
    silent_seconds: int = 0
    _stages: dict[bytes, asyncio.Future[bool]] = field(init=False)

    def __post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._stages = {stage: loop.create_future() for stage in (PREPARED, READY, RELEASED)}

    @property
    def is_hung(self) -> bool:
        """Whether it has been silent for too long. A start may take longer than the pause between two heartbeats."""
        return self.silent_seconds >= (_SILENT_SECONDS if self._stages[READY].done() else _START_SECONDS)

    async def listen(self) -> None:
        """Read its reports until it exits."""
        while line := await self.reports.readline():
            self.silent_seconds = 0
            if (stage := self._stages.get(line)) is not None and not stage.done():
                stage.set_result(True)
        for stage in self._stages.values():
            if not stage.done():
                stage.set_result(False)

    async def reaches(self, stage: bytes) -> bool:
        """Wait until the worker reports *stage*, and return whether it did so before it exited."""
        reached = self._stages[stage]
        await asyncio.wait([reached])  # which, unlike await, is not canceled with the caller
        return reached.result()


class Supervisor:
    """Keeps `server.workers` workers running."""

    def __init__(
        self,
        options: Options,
        *,
        changes: Mapping[str, str | float | Sequence[str]],
        on_ready: Callable[[ServingProcess], None],
    ) -> None:
        """Load the settings, and listen. *on_ready* is called once all workers serve. Raises ConfigurationError.

        *changes* override the settings under `server`, here and in the workers.
        """
        self._options: Options = {**options, "server": changes}
        self._environ = {name: value for name, value in os.environ.items() if name not in VARIABLES} | {
            f"MACHPAY_SERVER__{name.upper()}": str(value) for name, value in changes.items() if name != "listen"
        }
        self._on_ready = on_ready
        self.settings = _load_settings(self._options)
        server = self.settings.server
        self._activated = activated_sockets(os.environ)
        self._listening = self._listen(server)
        self._management = self._activated.management
        if self._management is None and server.management_address is not None:
            self._management = listen_on(server.management_address)
        self._counts = TemporaryDirectory(prefix="machpay-", ignore_cleanup_errors=True)  # outlives each worker
        self._workers: list[_WorkerProcess] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._changing = asyncio.Lock()

    async def run(self) -> None:
        """Serve until a signal stops it. Raises GatewayError when a worker cannot start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._run_in_background, self.reload)
        starts = asyncio.gather(*(self._start() for _ in range(self.settings.server.workers)))
        stop = asyncio.create_task(self._stopping.wait())
        self._run_in_background(self._watch_heartbeats)
        try:
            await asyncio.wait((starts, stop), return_when=asyncio.FIRST_COMPLETED)
            if not self._stopping.is_set():
                await starts
                self._on_ready(self._serving())
                await stop
        finally:
            self._stopping.set()
            await self._stop_all()
            await asyncio.gather(starts, stop, return_exceptions=True)

    async def reload(self) -> None:
        """Reload the settings and replace each worker; invalid settings change nothing."""
        async with self._changing:
            try:
                settings = _load_settings(self._options)
                await self._listen_and_replace_all(settings)
            except GatewayError as exc:
                if self._stopping.is_set():  # the reason why the worker did not start
                    return
                logger.error("The new settings are not used; the old ones stay in effect:\n%s", exc)  # noqa: TRY400
                self._run_in_background(
                    lambda: self._start_missing(_FIRST_PAUSE)
                )  # for the worker that already gave way
                return
            if settings.server.management != self.settings.server.management:
                logger.warning("server.management changes with a restart, not with a reload.")
            self.settings = settings
            logger.info("The settings are reloaded; %d workers serve with them.", settings.server.workers)

    def _listen(self, server: ServerSettings, earlier: Listening | None = None) -> Listening:
        """Return the sockets for callers: those of a service manager, or else where *server* says."""
        if self._activated.callers:
            return listening_on(self._activated.callers, server.listeners)
        return bind(server.listeners, earlier)

    async def _listen_and_replace_all(self, settings: Settings) -> None:
        """Listen where *settings* say, and replace each worker. Raises GatewayError; then it listens where it did."""
        earlier, self._listening = self._listening, self._listen(settings.server, self._listening)
        try:
            await self._replace_all(settings)
        except GatewayError:
            self._listening.close(without=earlier)
            self._listening = earlier
            raise
        earlier.close(without=self._listening)

    async def _replace_all(self, settings: Settings) -> None:
        """Replace each worker by a new one. Raises GatewayError when one cannot start."""
        # A Redis that refuses the settings with which it served has changed itself: that is an outage, no mistake.
        has_served = (settings.redis, settings.redis_prefix) == (self.settings.redis, self.settings.redis_prefix)
        # Workers that still drain after an earlier reload have been replaced already.
        old, wanted = [worker for worker in self._workers if worker.is_wanted], settings.server.workers
        for number in range(max(len(old), wanted)):
            leaving = old[number] if number < len(old) else None
            if number < wanted:
                # Without Redis only one process may count at a time. Connections wait in the meantime.
                await self._start(after=leaving if settings.redis is None else None, has_served=has_served)
            if leaving is not None:
                self._retire(leaving)

    async def _start(
        self, *, after: _WorkerProcess | None = None, has_served: bool = False, pause: float = 0.0
    ) -> None:
        """Start a worker, and wait until it serves. Raises GatewayError when it cannot.

        *after* is a worker that must stop counting before this one starts to. It is retired only once this one has
        loaded its settings and reached the database. *has_served* is whether others have served before it with the same
        Redis: then it starts even if that refuses it. *pause* is how long this start has waited.
        """
        worker = await self._spawn(pause, has_served=has_served)
        if self._stopping.is_set():
            _signal(worker.process)
        self._workers.append(worker)
        self._run_in_background(worker.listen)
        is_ready = False
        if await worker.reaches(PREPARED):
            if after is not None:
                self._retire(after)
                await after.reaches(RELEASED)
            is_ready = await worker.reaches(READY)
        if not is_ready:
            self._workers.remove(worker)
            await _end(worker.process, 0.0)
            raise ConfigurationError("A worker did not start; its log lines above say why.")
        self._run_in_background(lambda: self._watch(worker))

    async def _spawn(self, pause: float, *, has_served: bool) -> _WorkerProcess:
        """Start a worker's process. Raises GatewayError when the system refuses a process or a pipe."""
        try:
            reading, writing = os.pipe()
            try:
                process = await self._process(writing, has_served=has_served)
            except OSError:
                os.close(reading)
                raise
            finally:
                os.close(writing)
        except OSError as exc:
            raise GatewayError(f"A worker could not be started ({exc.strerror}).") from exc
        return _WorkerProcess(process, await _reader(reading), pause)

    async def _process(self, reports: int, *, has_served: bool) -> Process:
        management = -1 if self._management is None else self._management.fileno()
        arguments = [str(self._options.get("config") or ""), self._counts.name, self._listening.to_argument()]
        arguments += map(str, (management, reports, int(has_served)))
        files = [*self._listening.files, reports]
        files += [] if self._management is None else [self._management.fileno()]
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # a file in the working directory must not be imported in place of a module
            "-m",
            "machpay_gateway.serving",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            pass_fds=files,
            # The numbers of the listeners are those of these settings, even if the file has changed since.
            env=self._environ | {"MACHPAY_SERVER__LISTEN": to_text(self._listening.listeners)},
            process_group=0,  # a terminal signals its whole group, and only the supervisor handles that
        )

    async def _watch(self, worker: _WorkerProcess) -> None:
        """Start another worker when this one exits without having been stopped."""
        began_at = asyncio.get_running_loop().time()
        status = await worker.process.wait()
        if worker in self._workers:
            self._workers.remove(worker)
        if not worker.is_wanted or self._stopping.is_set():
            return
        logger.error("A worker died with status %d; another one replaces it.", status)
        is_stable = asyncio.get_running_loop().time() - began_at >= _STABLE_SECONDS
        # A worker that dies whenever it has started must not fill the log, nor use a processor for starts alone.
        await self._start_missing(0.0 if is_stable else _longer(worker.pause))

    async def _watch_heartbeats(self) -> None:
        """Kill workers that hang; `_watch` replaces them."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            for worker in self._workers:
                worker.silent_seconds += 1  # however long that sleep took: this process may have been stopped
                if worker.is_hung:
                    logger.error(
                        "Worker %d has not reported for %d s: it is stopped, or its event loop hangs. It is killed.",
                        worker.process.pid,
                        worker.silent_seconds,
                    )
                    worker.silent_seconds = 0  # until it is gone
                    _signal(worker.process, signal.SIGKILL)

    async def _start_missing(self, pause: float) -> None:
        """Start a worker after *pause* seconds, and retry with exponential backoff until none is missing."""
        while not self._stopping.is_set():
            await asyncio.sleep(pause)
            try:
                async with self._changing:  # a reload may have started one in the meantime
                    if sum(worker.is_wanted for worker in self._workers) < self.settings.server.workers:
                        await self._start(has_served=True, pause=pause)
            except GatewayError as exc:
                if not self._stopping.is_set():
                    logger.error("%s", exc)  # noqa: TRY400
                pause = _longer(pause)
            else:
                return

    def _retire(self, worker: _WorkerProcess) -> None:
        """Tell *worker*, unless that was done, that another one replaces it."""
        if worker.is_wanted:
            worker.is_wanted = False
            _signal(worker.process, REPLACED)
            self._run_in_background(lambda: self._wait_until_exited(worker))

    async def _wait_until_exited(self, worker: _WorkerProcess) -> None:
        await _end(worker.process, self.settings.server.drain_seconds + _KILL_SECONDS)

    async def _stop(self, worker: _WorkerProcess) -> None:
        worker.is_wanted = False
        _signal(worker.process)
        await self._wait_until_exited(worker)

    async def _stop_all(self) -> None:
        await asyncio.gather(*(self._stop(worker) for worker in self._workers))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._listening.close()
        if self._management is not None:
            self._management.close()
        self._counts.cleanup()

    def _run_in_background(self, work: Callable[[], object]) -> None:
        task = asyncio.ensure_future(work())  # type: ignore[call-overload]  # a coroutine each time
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _serving(self) -> ServingProcess:
        has_tls = [self.settings.server.has_tls(listener) for listener in self._listening.listeners]
        urls = [
            bound.name if bound.is_unix else f"{'https' if has_tls[bound.listener] else 'http'}://{bound.name}"
            for bound in self._listening.sockets
        ]
        management = None if self._management is None else f"http://{socket_name(self._management)}"
        return ServingProcess(urls[0], management, len(self._workers), urls)


def _load_settings(options: Options) -> Settings:
    settings = load_settings(options)
    check_servable(settings)
    return settings


def _longer(pause: float) -> float:
    return min(max(2 * pause, _FIRST_PAUSE), _LONGEST_PAUSE)


async def _reader(file: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(file, "rb", buffering=0)
    )
    return reader


def _signal(process: Process, number: signal.Signals = signal.SIGTERM) -> None:
    # Process.send_signal would reap a process that has just exited, and `wait` elsewhere would lose its exit status.
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


async def _end(process: Process, seconds: float) -> None:
    """Wait for *process* to exit, and kill it after *seconds* in which this process ran itself."""
    for _ in range(ceil(seconds)):
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await process.wait()
                return
    _signal(process, signal.SIGKILL)
    await process.wait()
