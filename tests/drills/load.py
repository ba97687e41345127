"""One process that calls workers and notes what it was answered: `python -m tests.drills.load PLAN`.

It notes moments on the monotonic clock, which all processes of this host share.
"""

import asyncio
import json
import random
import sys
import time
from asyncio import StreamReader
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import uvloop

HOST = "127.0.0.1"
LOST, NOT_CONNECTED = 0, -1  # in place of a status: no answer came, and nobody was there to ask
PATIENCE_SECONDS = 40.0
_BURST_SECONDS = 0.2  # on each side of a boundary
_RECONNECT_SECONDS = 0.05


@dataclass(frozen=True)
class Plan:
    """What one process is to do: *connections* that each ask, and ask again *pause_seconds* after an answer.

    The connections take turns with *ports* and *secrets*. After a refusal the pause is *refused_pause_seconds*, more or
    less. With *burst_seconds*, they ask only around multiples of that on the wall clock, where windows that are not
    strict begin anew.
    """

    ports: Sequence[int]
    path: str
    secrets: Sequence[str]
    notes: str
    connections: int
    starts_at: float
    ends_at: float
    pause_seconds: float = 0.0
    refused_pause_seconds: float = 0.01
    burst_seconds: float = 0.0

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))


class Answer(NamedTuple):
    """What became of one request. The application was *entered* and *left*; both are *came* when it was not run.

    It was asked with the secret *number* of the plan. A refusal names the policies that it *violated*.
    """

    sent: float
    entered: float
    left: float
    came: float
    status: int
    code: str
    number: int = 0
    violated: Sequence[str] = ()


def read_notes(path: Path) -> list[Answer]:
    """Return the answers that a process has noted at *path*."""
    answers = []
    for line in path.read_text().splitlines():
        *moments, status, code, number, violated = line.split(" ")
        sent, entered, left, came = map(float, moments)
        names = tuple(filter(None, violated.split(",")))
        answers.append(Answer(sent, entered, left, came, int(status), code, int(number), names))
    return answers


def write_notes(path: Path, answers: Iterable[Answer]) -> None:
    """Note *answers* at *path*."""
    path.write_text("".join(" ".join([*map(str, answer[:-1]), ",".join(answer.violated)]) + "\n" for answer in answers))


async def read_answer(reader: StreamReader) -> tuple[int, bytes]:
    """Return the status and the last of the body of the next answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    fields = head.lower().split(b"\r\n")
    status = int(fields[0].split(b" ")[1])
    for field in fields:
        if field.startswith(b"content-length:"):
            return status, await reader.readexactly(int(field[15:]))
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body = (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)
    return status, body


def request_for(path: str, secret: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: drill\r\nauthorization: Bearer {secret}\r\n\r\n".encode()


class _Caller:
    """One connection, made anew whenever it is lost."""

    def __init__(self, plan: Plan, number: int, recorded: list[Answer]) -> None:
        self._plan = plan
        turn, self._number = divmod(number, len(plan.secrets))
        self._port = plan.ports[(self._number + turn) % len(plan.ports)]  # so a secret is used at each in turn
        self._recorded = recorded
        self._request = request_for(plan.path, plan.secrets[self._number])

    async def run(self) -> None:
        await asyncio.sleep(max(0.0, self._plan.starts_at - time.monotonic()))
        while time.monotonic() < self._plan.ends_at:
            sent = time.monotonic()
            try:
                reader, writer = await asyncio.open_connection(HOST, self._port)
            except OSError:
                self._note(sent, NOT_CONNECTED)
                await asyncio.sleep(_RECONNECT_SECONDS)
                continue
            try:
                await self._ask(reader, writer)
            finally:
                writer.close()

    async def _ask(self, reader: StreamReader, writer: asyncio.StreamWriter) -> None:
        """Ask until it is over, or the connection is."""
        while time.monotonic() < self._plan.ends_at:
            await self._burst()
            sent = time.monotonic()
            try:
                writer.write(self._request)
                async with asyncio.timeout(PATIENCE_SECONDS):
                    status, body = await read_answer(reader)
            except (OSError, EOFError):
                self._note(sent, LOST)
                return
            self._note(sent, status, body)
            if status == 200:
                await asyncio.sleep(self._plan.pause_seconds)
            else:
                await asyncio.sleep(self._plan.refused_pause_seconds * random.uniform(0.5, 1.5))  # noqa: S311 - spreads

    async def _burst(self) -> None:
        """Wait for the next burst, when there are any."""
        if every := self._plan.burst_seconds:
            until_next = (-time.time() - _BURST_SECONDS) % every
            if until_next < every - 2 * _BURST_SECONDS:
                await asyncio.sleep(min(until_next, max(0.0, self._plan.ends_at - time.monotonic())))

    def _note(self, sent: float, status: int, body: bytes = b"") -> None:
        came = time.monotonic()
        if status == 200:
            entered, left = map(float, body.split())
            self._recorded.append(Answer(sent, entered, left, came, status, "-", self._number))
            return
        problem = json.loads(body) if body.startswith(b"{") else {}
        code, violated = problem.get("code", "-"), problem.get("violated_policies", ())
        self._recorded.append(Answer(sent, came, came, came, status, code, self._number, violated))


async def _carry_out(plan: Plan) -> list[Answer]:
    recorded: list[Answer] = []
    callers = [_Caller(plan, number, recorded) for number in range(plan.connections)]
    await asyncio.gather(*(caller.run() for caller in callers))
    return recorded


def main() -> None:
    plan = Plan(**json.loads(Path(sys.argv[1]).read_text()))
    recorded = uvloop.run(_carry_out(plan))
    write_notes(Path(plan.notes), recorded)


if __name__ == "__main__":
    main()
