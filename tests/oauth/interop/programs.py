"""Programs in `node` that run beside the tests, and are spoken to line by line in JSON."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tests.node import NODE, inherited


class Failed(Exception):
    """A step of a program that ended in an error of its library."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(str(error))
        self.error = error


class Program:
    """A process that answers each line by one."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def read_result(self) -> Any:  # noqa: ANN401 - whatever JSON it prints
        """Return the next line."""
        line = _there(self._process.stdout).readline()
        assert line, f"the program ended with {self._process.wait()}"
        return json.loads(line)

    def tell(self, what: Any) -> None:  # noqa: ANN401 - whatever JSON it reads
        """Send it a line."""
        stdin = _there(self._process.stdin)
        stdin.write(json.dumps(what) + "\n")
        stdin.flush()

    def do(self, step: str, argument: Any = None) -> Any:  # noqa: ANN401 - what the step takes and tells
        """Return what *step* tells. Raises Failed."""
        self.tell([step, argument])
        answer = self.read_result()
        if "error" in answer:
            raise Failed(answer["error"])
        return answer["told"]


@contextmanager
def running(root: Path, name: str, *arguments: str) -> Iterator[Program]:
    """Run the program *name* of *root*; what it says is wrong goes where the tests' own does."""
    process = subprocess.Popen(
        [NODE, name, *arguments], cwd=root, env=inherited(), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield Program(process)
    finally:
        process.kill()
        process.communicate()


def _there(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
