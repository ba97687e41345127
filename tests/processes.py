"""What servers of tests have in common: one process with a port and a log, and a watch that ends it with the tests."""

import subprocess
from pathlib import Path


class PortTakenError(Exception):
    """Another process was faster to listen on the port."""


class WatchedProcess:
    """A server's process, and beside it a shell that ends it when this process ends without a chance to do so."""

    def __init__(self, port: int, log_path: Path) -> None:
        self.port = port
        self.log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        """Tell whether the process is there; a frozen one is."""
        return self._process is not None and self._process.poll() is None

    @property
    def _log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def _watch_by(self, script: str, *arguments: str) -> None:
        """Begin the watch: *script* reads a line, and without one, when the pipe closes, ends what it was told."""
        self._watch = subprocess.Popen(["/bin/sh", "-c", script, "watch", *arguments], stdin=subprocess.PIPE)

    def _refuse_if_ended(self) -> None:
        """Raise PortTakenError, or RuntimeError with the log, when the process has ended while starting."""
        if not self.is_running:
            failure = f"The server on port {self.port} ended while starting; its log:\n{self._log}"
            raise PortTakenError(failure) if "Address already in use" in self._log else RuntimeError(failure)

    def _end(self) -> None:
        """Wait for a process that is ending, and call off its watch."""
        if self._process is not None:
            self._process.wait()
        if self._watch is not None:
            self._watch.communicate(b"\n")
        self._process = self._watch = None
