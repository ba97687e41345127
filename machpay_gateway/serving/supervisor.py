"""The process that keeps workers running: it holds the listening sockets, and carries no request itself.

SIGTERM and SIGINT drain all workers and end; SIGHUP reads the settings anew and, if nothing is wrong with them, has the
workers replaced one by one. A worker that dies is started again.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from tempfile import TemporaryDirectory

from machpay_gateway.core.errors import ConfigurationError, GatewayError
from machpay_gateway.serving.servable import BACKLOG, PREPARED, READY, RELEASED, REPLACED, check_servable
from machpay_gateway.settings import Options, Settings, load_settings
from machpay_gateway.settings.server import ListenAddress

logger = logging.getLogger("machpay_gateway")

_START_SECONDS = 60.0
_KILL_SECONDS = 5.0  # beyond what draining may take
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_WELL_SECONDS = 60.0  # after which a worker that dies is not one that cannot live


@dataclass(frozen=True, slots=True)
class ServingProcess:
    """Where it serves: the URL for callers, and the one for operators, None for nowhere."""

    url: str
    management: str | None
    workers: int


@dataclass(eq=False, slots=True)
class _Running:
    """A worker's process, and the pipe on which it says how far it is."""

    process: Process
    reports: asyncio.StreamReader
    is_wanted: bool = True

    async def heard(self, word: bytes) -> bool:
        """Wait for *word*; False when the process ends without it."""
        while line := await self.reports.readline():
            if line == word:
                return True
        return False


class Supervisor:
    """Keeps as many workers as the settings ask for."""

    def __init__(
        self,
        options: Options,
        *,
        changes: Mapping[str, str | float],
        told: Callable[[ServingProcess], None],
        log_level: int = logging.INFO,
    ) -> None:
        """Read the settings, and listen. *told* is called when it serves. Raises ConfigurationError.

        *changes* are of the settings in `server`, and hold for workers too, which log from *log_level* on.
        """
        self._options: Options = {**options, "server": changes}
        self._environ = os.environ | {f"MACHPAY_SERVER__{name.upper()}": str(value) for name, value in changes.items()}
        self._told = told
        self._log_level = log_level
        self.settings = _checked(self._options)
        server = self.settings.server
        self._listener = _listening(server.address)
        self._management = None if server.management_address is None else _listening(server.management_address)
        self._counts = TemporaryDirectory(prefix="machpay-", ignore_cleanup_errors=True)  # of workers, past their ends
        self._workers: list[_Running] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._changing = asyncio.Lock()

    async def run(self) -> None:
        """Serve until told to stop. Raises GatewayError when no worker can start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._begin, self.reload)
        starts = asyncio.gather(*(self._start() for _ in range(self.settings.server.workers)))
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((starts, stop), return_when=asyncio.FIRST_COMPLETED)
            if not self._stopping.is_set():
                await starts
                self._told(self._serving())
                await stop
        finally:
            self._stopping.set()
            await self._stop_all()
            await asyncio.gather(starts, stop, return_exceptions=True)

    async def reload(self) -> None:
        """Take the settings anew, unless something is wrong with them, and replace each worker."""
        async with self._changing:
            try:
                settings = _checked(self._options)
                await self._replace_all(settings)
            except GatewayError as exc:
                if self._stopping.is_set():  # which is why it did not start
                    return
                logger.error("The new settings are not taken, and the old ones stay:\n%s", exc)  # noqa: TRY400
                self._begin(lambda: self._start_missing(_FIRST_PAUSE))  # one that gave way for nothing
                return
            if (settings.server.listen, settings.server.management) != (
                self.settings.server.listen,
                self.settings.server.management,
            ):
                logger.warning("server.listen and server.management hold from the next start on, not from a reload.")
            self.settings = settings
            logger.info("The settings are read anew; %d workers serve by them.", settings.server.workers)

    async def _replace_all(self, settings: Settings) -> None:
        """Have a new worker in the place of each. Raises GatewayError when one cannot start."""
        # Those that still drain have given way to others already, and have nothing more to say.
        old, wanted = [worker for worker in self._workers if worker.is_wanted], settings.server.workers
        for number in range(max(len(old), wanted)):
            leaving = old[number] if number < len(old) else None
            if number < wanted:
                # What counts by itself may have no other beside it. Connections wait in the meantime.
                await self._start(after=leaving if settings.redis is None else None)
            if leaving is not None:
                self._replaced(leaving)

    async def _start(self, *, after: _Running | None = None) -> None:
        """Start a worker, and wait until it serves. Raises GatewayError when it cannot.

        *after* is one that is to stop counting before this one counts, and not before it is known that this one can.
        """
        worker = await self._spawned()
        if self._stopping.is_set():
            _signal(worker.process)
        self._workers.append(worker)
        is_ready = False
        with suppress(TimeoutError):
            async with asyncio.timeout(_START_SECONDS):
                if await worker.heard(PREPARED):
                    if after is not None:
                        self._replaced(after)
                        await after.heard(RELEASED)
                    is_ready = await worker.heard(READY)
        if not is_ready:
            self._workers.remove(worker)
            await _ended(worker.process, 0.0)
            raise ConfigurationError("A worker did not start; what it says above is why.")
        self._begin(lambda: self._watch(worker))

    async def _spawned(self) -> _Running:
        """Return a worker whose process has begun. Raises GatewayError when the system gives nothing for it."""
        try:
            reading, writing = os.pipe()
            try:
                process = await self._process(writing)
            except OSError:
                os.close(reading)
                raise
            finally:
                os.close(writing)
        except OSError as exc:
            raise GatewayError(f"A worker could not be started ({exc.strerror}).") from exc
        return _Running(process, await _reader(reading))

    async def _process(self, reports: int) -> Process:
        arguments = [str(self._options.get("config") or ""), self._counts.name, self._listener.fileno()]
        arguments += [-1 if self._management is None else self._management.fileno(), reports, self._log_level]
        files = [self._listener.fileno(), reports]
        files += [] if self._management is None else [self._management.fileno()]
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # what lies in the directory that this is run in is no module of ours, whatever its name
            "-m",
            "machpay_gateway.serving.worker",
            *map(str, arguments),
            stdin=asyncio.subprocess.PIPE,
            pass_fds=files,
            env=self._environ,
            process_group=0,  # what a terminal sends to all of its group is for the supervisor to hear
        )

    async def _watch(self, worker: _Running) -> None:
        """Start another worker when this one dies without being told to."""
        began_at = asyncio.get_running_loop().time()
        status = await worker.process.wait()
        if worker in self._workers:
            self._workers.remove(worker)
        if not worker.is_wanted or self._stopping.is_set():
            return
        logger.error("A worker has died with status %d; another one takes its place.", status)
        is_well = asyncio.get_running_loop().time() - began_at >= _WELL_SECONDS
        await self._start_missing(0.0 if is_well else _FIRST_PAUSE)

    async def _start_missing(self, pause: float) -> None:
        """Start a worker after *pause* seconds, and then later and later, until none is missing."""
        while not self._stopping.is_set():
            await asyncio.sleep(pause)
            pause = min(max(2 * pause, _FIRST_PAUSE), _LONGEST_PAUSE)
            try:
                async with self._changing:  # new settings may have brought one in the meantime
                    if sum(worker.is_wanted for worker in self._workers) < self.settings.server.workers:
                        await self._start()
            except GatewayError as exc:
                if not self._stopping.is_set():
                    logger.error("%s", exc)  # noqa: TRY400
            else:
                return

    def _replaced(self, worker: _Running) -> None:
        """Tell *worker*, unless it knows, that another one serves in its place."""
        if worker.is_wanted:
            worker.is_wanted = False
            _signal(worker.process, REPLACED)
            self._begin(lambda: self._left(worker))

    async def _left(self, worker: _Running) -> None:
        await _ended(worker.process, self.settings.server.drain_seconds + _KILL_SECONDS)

    async def _stop(self, worker: _Running) -> None:
        worker.is_wanted = False
        _signal(worker.process)
        await self._left(worker)

    async def _stop_all(self) -> None:
        await asyncio.gather(*(self._stop(worker) for worker in self._workers))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._listener.close()
        if self._management is not None:
            self._management.close()
        self._counts.cleanup()

    def _begin(self, work: Callable[[], object]) -> None:
        task = asyncio.ensure_future(work())  # type: ignore[call-overload]  # a coroutine each time
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _serving(self) -> ServingProcess:
        scheme = "https" if self.settings.server.tls_certificate else "http"
        management = None if self._management is None else f"http://{_shown(self._management)}"
        return ServingProcess(f"{scheme}://{_shown(self._listener)}", management, len(self._workers))


def _checked(options: Options) -> Settings:
    settings = load_settings(options)
    check_servable(settings)
    return settings


def _listening(address: ListenAddress) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server(address, family=family, backlog=BACKLOG)
    except OSError as exc:
        # create_server adds the address; a name that cannot be found has a number that os.strerror does not know.
        reason = (exc.strerror or str(exc)).partition(" (while ")[0]
        raise ConfigurationError(
            f"server: {address.host} port {address.port} cannot be listened on ({reason}): choose another address"
        ) from exc


def _shown(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _reader(file: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(file, "rb", buffering=0)
    )
    return reader


def _signal(process: Process, number: signal.Signals = signal.SIGTERM) -> None:
    # Not by its own method: that one would take the exit status of a process that has just ended from whoever waits.
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


async def _ended(process: Process, seconds: float) -> None:
    """Wait for the *process* to end, and end it by force after *seconds*."""
    try:
        async with asyncio.timeout(seconds):
            await process.wait()
    except TimeoutError:
        _signal(process, signal.SIGKILL)
        await process.wait()
