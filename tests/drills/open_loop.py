"""Callers who do not wait for one another: `python -m tests.drills.open_loop PLAN` sends requests at a steady rate.

A load whose connections wait for their answers slows down with the server, and so hides how long callers wait.
"""

import asyncio
import json
import random
import sys
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from secrets import token_hex
from subprocess import Popen
from typing import NamedTuple

import uvloop

from tests.drills.load import HOST, LOST, read_answer, request_for
from tests.drills.workers import ROOT

_PATIENCE_SECONDS = 20.0
_MOST_CONNECTIONS = 2000


@dataclass(frozen=True)
class Rate:
    """What to send: *per_second* requests with secrets of the file *secrets*, one after the other or *at_random*.

    It opens *connections* to each port before it begins, so that all processes behind the port are used.
    """

    ports: Sequence[int]
    path: str
    secrets: str
    notes: str
    per_second: float
    seconds: float
    at_random: bool = False
    connections: int = 0


class Outcome(NamedTuple):
    """What became of one request: when it was to be sent, when its answer came, and the status or LOST.

    *number* is that of its secret.
    """

    due: float
    came: float
    status: int
    number: int


class _Callers:
    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._secrets = Path(rate.secrets).read_text().split()
        self._idle: dict[int, list[tuple[StreamReader, StreamWriter]]] = {port: [] for port in rate.ports}
        self._outcomes: list[Outcome] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> list[Outcome]:
        for port, idle in self._idle.items():
            idle += [await asyncio.open_connection(HOST, port) for _ in range(self._rate.connections)]
        began_at, number = time.monotonic(), 0
        while (due := began_at + number / self._rate.per_second) < began_at + self._rate.seconds:
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            if len(self._tasks) < _MOST_CONNECTIONS:
                self._spawn(due, number)
            else:
                self._outcomes.append(Outcome(due, due + _PATIENCE_SECONDS, LOST, number % len(self._secrets)))
            number += 1
        await asyncio.gather(*self._tasks)
        return self._outcomes

    def _spawn(self, due: float, number: int) -> None:
        turn, index = divmod(number, len(self._secrets))  # in each turn at another port
        if self._rate.at_random:
            index = random.randrange(len(self._secrets))  # noqa: S311 - spreads
        port = self._rate.ports[(number + turn) % len(self._rate.ports)]
        task = asyncio.create_task(self._ask(due, port, index))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, due: float, port: int, index: int) -> None:
        status = LOST
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                reader, writer = self._connection(port) or await asyncio.open_connection(HOST, port)
                writer.write(request_for(self._rate.path, self._secrets[index]))
                status, _ = await read_answer(reader)
                self._idle[port].append((reader, writer))
        except (OSError, EOFError, TimeoutError):
            pass  # it is lost
        self._outcomes.append(Outcome(due, time.monotonic(), status, index))

    def _connection(self, port: int) -> tuple[StreamReader, StreamWriter] | None:
        """Return any of the idle connections that are still open: the latest one would always be of the same worker."""
        idle = self._idle[port]
        while idle:
            index = random.randrange(len(idle))  # noqa: S311 - spreads
            idle[index], idle[-1] = idle[-1], idle[index]
            reader, writer = idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return None


@contextmanager
def running_rate(
    folder: Path,
    ports: Sequence[int],
    secrets: Sequence[str],
    per_second: float,
    seconds: float,
    *,
    path: str = "/quick",
    at_random: bool = False,
    connections: int = 0,
) -> Iterator["RunningRate"]:
    """Send requests to *ports* from a process of its own, whose files are in *folder*."""
    base = folder / token_hex(4)
    base.with_suffix(".secrets").write_text("\n".join(secrets))
    notes = base.with_suffix(".notes")
    rate = Rate(ports, path, f"{base}.secrets", str(notes), per_second, seconds, at_random, connections)
    base.with_suffix(".json").write_text(json.dumps(asdict(rate)))
    process = Popen([sys.executable, "-m", "tests.drills.open_loop", f"{base}.json"], cwd=ROOT)
    try:
        yield RunningRate(process, notes, seconds)
    finally:
        process.kill()
        process.wait()


class RunningRate(NamedTuple):
    """A process that sends requests."""

    process: "Popen[bytes]"
    notes: Path
    seconds: float

    async def outcomes(self) -> list[Outcome]:
        """Wait until it has ended, and return what became of its requests, in order."""
        await asyncio.to_thread(self.process.wait, self.seconds + _PATIENCE_SECONDS + 10)
        assert self.process.returncode == 0, "the load process has failed: see its traceback above"
        return sorted(Outcome(*row) for row in json.loads(self.notes.read_text()))


def main() -> None:
    rate = Rate(**json.loads(Path(sys.argv[1]).read_text()))
    Path(rate.notes).write_text(json.dumps(uvloop.run(_Callers(rate).run())))


if __name__ == "__main__":
    main()
