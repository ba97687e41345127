"""The demo as people run it: a process of its own, and the calls that it prints, made as printed."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

PROGRAM = Path(sys.executable).with_name("machpay-gateway")
STOP_SECONDS = 10
LAST_LINE = "keys revoke"


@dataclass(frozen=True)
class Demo:
    process: subprocess.Popen[str]
    lines: Sequence[str]

    @property
    def url(self) -> str:
        match = re.search(r"http://\S+:\d+", self.lines[0])
        assert match
        return match[0]

    def call(self, title: str) -> str:
        """Return the call that is printed under *title*."""
        return self.lines[self.lines.index(f"# {title}") + 1]

    def secret(self, name: str) -> str:
        """Return the secret of the key with that name."""
        at = next(index for index, line in enumerate(self.lines) if line.startswith(f"{name} key, "))
        return self.lines[at + 1].strip()

    def stop(self, number: signal.Signals) -> tuple[int, str]:
        """Send the signal; return the exit code and what was said on stderr."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=STOP_SECONDS)
        return self.process.returncode, errors


@contextmanager
def running_demo(folder: Path) -> Iterator[Demo]:
    """Start a demo on a free port, its temporary files in *folder*; yield it when it has said all it has to say."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MACHPAY_")}
    with subprocess.Popen(
        [PROGRAM, "demo", "--port", "0"],
        cwd=folder,
        env={**environment, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as process:
        try:
            yield Demo(process, list(_printed_lines(process)))
            process.terminate()
            process.wait(STOP_SECONDS)
        finally:
            process.kill()


def run_call(call: str, *, timeout: float = 30.0) -> str:
    """Run a printed line by the shell, or make the request that it describes when there is no curl here."""
    if has_shell() and (bash := shutil.which("bash")):
        ran = subprocess.run([bash, "-c", call], capture_output=True, text=True, timeout=timeout, check=True)
        return ran.stdout
    return _request(shlex.split(call))


def has_shell() -> bool:
    """Tell whether printed lines can be run as they are."""
    return bool(shutil.which("curl") and shutil.which("bash"))


def _printed_lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        yield line.rstrip("\n")
        if LAST_LINE in line:
            return
    assert process.stderr is not None
    raise AssertionError(f"the demo ended early: {process.stderr.read()}")


def _request(words: list[str]) -> str:
    """Make the request of one plain curl command."""
    method, url, body, headers = "GET", "", None, {}
    rest = iter(words[1:])
    for word in rest:
        if word == "-X":
            method = next(rest)
        elif word == "-H":
            name, _, value = next(rest).partition(": ")
            headers[name] = value
        elif word == "-d":
            body = next(rest)
            method = "POST" if method == "GET" else method
        elif not word.startswith("-"):
            url = word
    answer = httpx2.request(method, url, headers=headers, content=body)
    head = "\n".join(
        [f"HTTP/1.1 {answer.status_code}", *(f"{name}: {value}" for name, value in answer.headers.items())]
    )
    return f"{head}\n\n{answer.text}" if "-i" in words else answer.text


def json_of(printed: str) -> dict[str, object]:
    """Return the JSON object that ends what curl *printed*, with or without a head."""
    parsed: dict[str, object] = json.loads(printed[printed.index("{") :])
    return parsed
