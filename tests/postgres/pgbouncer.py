"""The distribution's PgBouncer, in the mode that gives a session of the server to one transaction at a time."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.postgres.servers import USER, Server, server_account
from tests.processes import PortTakenError, WatchedProcess
from tests.redises.ports import HOST, free_port
from tests.redises.waiting import wait_until

PROGRAM = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")
SESSIONS = 2  # of the server, for all clients together
_START_SECONDS = 10
_PORT_TRIES = 10
_WATCH = """trap '' HUP INT TERM; read _ || { kill -KILL "$1"; rm -rf "$2"; }"""
_CONFIGURATION = """
[databases]
* = host={host} port={server_port} user={user}
[pgbouncer]
listen_addr = {host}
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {sessions}
max_client_conn = 200
"""


class PgBouncer(WatchedProcess):
    """One PgBouncer in front of *server*; `running_pgbouncer` makes them."""

    def __init__(self, server: Server, folder: Path, port: int) -> None:
        super().__init__(port, folder / "log")
        self._folder = folder
        self._configuration = _CONFIGURATION.format(
            host=HOST, server_port=server.port, user=USER, port=port, sessions=SESSIONS
        )

    def url(self, server_url: str) -> str:
        """Return the URL of a database of the server, through this."""
        return f"postgresql://{USER}@{HOST}:{self.port}/{server_url.rpartition('/')[2]}"

    def start(self) -> None:
        assert PROGRAM is not None
        path = self._folder / "pgbouncer.ini"
        path.write_text(self._configuration)
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [PROGRAM, str(path)],
                cwd=self._folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **server_account(),
            )
        self._watch_by(_WATCH, str(self._process.pid), str(self._folder))
        wait_until(self._is_up, seconds=_START_SECONDS, claim=f"PgBouncer on port {self.port} is ready")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
        self._end()

    def _is_up(self) -> bool:
        self._refuse_if_ended()
        return "process up" in self._log


@contextmanager
def running_pgbouncer(server: Server) -> Iterator[PgBouncer]:
    """Run a PgBouncer in front of *server*."""
    for attempt in range(_PORT_TRIES):
        with tempfile.TemporaryDirectory(prefix="pgbouncer-", ignore_cleanup_errors=True) as name:
            Path(name).chmod(0o755)
            pooler = PgBouncer(server, Path(name), free_port())
            try:
                pooler.start()
            except PortTakenError:
                pooler.kill()
                if attempt == _PORT_TRIES - 1:
                    raise
                continue
            try:
                yield pooler
            finally:
                pooler.kill()
            return
