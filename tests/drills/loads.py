"""Load processes side by side, and what they were answered together."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from secrets import token_hex

from tests.drills.checker import Request, Span, most_at_once
from tests.drills.load import LOST, NOT_CONNECTED, PATIENCE_SECONDS, Answer, Plan, read_notes
from tests.drills.workers import ROOT, Fleet

READY_SECONDS = 1.0  # that a process takes to begin
_LATE_SECONDS = PATIENCE_SECONDS + 10


@dataclass(frozen=True)
class Load:
    """A process under way."""

    plan: Plan
    process: subprocess.Popen[bytes]

    def answers(self) -> list[Answer]:
        """Wait until it has ended, and return what it was answered."""
        self.process.wait(max(0.0, self.plan.ends_at - time.monotonic()) + _LATE_SECONDS)
        assert self.process.returncode == 0, "a load process has failed: see its traceback above"
        return read_notes(Path(self.plan.notes))


@contextmanager
def running_loads(plans: Iterable[Plan], folder: Path) -> Iterator[list[Load]]:
    """Run a process for each of *plans*; what still runs at the end of the block is killed."""
    loads: list[Load] = []
    try:
        for plan in plans:
            path = folder / f"{token_hex(4)}.json"
            plan.write(path)
            command = [sys.executable, "-m", "tests.drills.load", str(path)]
            loads.append(Load(plan, subprocess.Popen(command, cwd=ROOT)))
        yield loads
    finally:
        for load in loads:
            load.process.kill()
            load.process.wait()


def steady(fleet: Fleet, path: str, secret: str, began_at: float, seconds: float) -> Plan:
    """Return the plan of a small load: four connections, two or so to a worker, that ask some thirty times a second."""
    return Plan(
        fleet.ports,
        path,
        [secret],
        notes_in(fleet),
        connections=4,
        starts_at=began_at,
        ends_at=began_at + seconds,
        pause_seconds=0.02,
        refused_pause_seconds=0.05,
    )


def notes_in(fleet: Fleet) -> str:
    """Return a path for the notes of one process."""
    return str(fleet.folder / f"{token_hex(4)}.notes")


def window_requests(answers: Iterable[Answer]) -> list[Request]:
    """Return *answers* as the checker of windows takes them: what was refused for another reason says nothing."""
    requests = []
    for answer in answers:
        if answer.status == 200:
            requests.append(Request(answer.sent, answer.entered, "admitted"))
        elif answer.code == "rate_limited":
            requests.append(Request(answer.sent, answer.came, "refused"))
        elif answer.status == LOST:
            requests.append(Request(answer.sent, inf, "unknown"))
    return requests


def highest_concurrency(answers: Iterable[Answer]) -> int:
    """Return how many of the requests surely held a slot at once."""
    return most_at_once(Span(answer.entered, answer.left) for answer in answers if answer.status == 200)


def slowest_seconds(answers: Iterable[Answer]) -> float:
    """Return the longest that an answer took."""
    return max((answer.came - answer.sent for answer in answers if answer.status > 0), default=0.0)


def print_row(name: str, answers: Sequence[Answer], figure: str) -> None:
    """Print one line of the drills' table."""
    counts = Counter(answer.status for answer in answers)
    other = {status: count for status, count in sorted(counts.items()) if status not in {200, 429, 503, NOT_CONNECTED}}
    text = ", ".join(f"{status or 'lost'}: {count}" for status, count in other.items()) or "0"
    columns = [name, len(answers) - counts[NOT_CONNECTED], counts[200], counts[429], counts[503], text]
    print("\n" + " | ".join(map(str, columns)) + f" | {slowest_seconds(answers) * 1000:.0f} | {figure}")
