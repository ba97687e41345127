"""What other tests rely on: a server that comes back as it was, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.postgres.servers import Server, running_server
from tests.processes import PortTakenError
from tests.redises.waiting import wait_until

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 10


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_was_committed_is_there_after_a_crash_and_after_a_stop() -> None:
    with running_server() as server:
        server.execute("CREATE TABLE kept (number int)")
        for end in (server.crash, server.stop):
            server.execute("INSERT INTO kept SELECT count(*) FROM kept")
            end()
            assert not server.is_running
            server.start()
        assert server.execute("SELECT number FROM kept ORDER BY number") == [["0"], ["1"]]


@pytest.mark.parametrize("end", [Server.crash, Server.stop, Server.url], ids=["crashed", "stopped", "running"])
def test_no_process_and_no_folder_outlive_the_block_whatever_a_test_did(end: Callable[..., object]) -> None:
    seen: list[tuple[int, Path]] = []
    with suppress(ZeroDivisionError), running_server() as server:
        seen.append((server.pid, server.folder))
        end(*((server, "any") if end is Server.url else (server,)))
        raise ZeroDivisionError
    ((pid, folder),) = seen
    assert not is_alive(pid)
    assert not folder.exists()


def test_no_server_and_no_folder_outlive_a_process_that_was_killed() -> None:
    program = (
        "import os, signal\n"
        "from tests.postgres.servers import running_server\n"
        "with running_server() as server:\n"
        "    print(server.pid, server.folder, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    finished = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=False, timeout=30)
    assert finished.returncode == -signal.SIGKILL, finished.stderr
    folder = finished.stdout.decode().split()[1]
    wait_until(lambda: not Path(folder).exists(), seconds=PATIENCE_SECONDS, claim="the folder is gone")


def test_a_statement_that_fails_is_told(postgres_server: Server) -> None:
    with pytest.raises(RuntimeError, match='relation "nothing" does not exist'):
        postgres_server.execute("SELECT * FROM nothing")


def test_a_port_that_was_taken_in_the_meantime_is_given_up(
    postgres_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = iter((postgres_server.port, 0))
    monkeypatch.setattr("tests.postgres.servers.free_port", lambda: next(ports))
    monkeypatch.setattr("tests.postgres.servers._PORT_TRIES", 1)
    with pytest.raises(PortTakenError), running_server():
        pass


def test_each_test_has_a_database_of_its_own(
    postgres_server: Server, postgres_url: str, empty_postgres_url: str
) -> None:
    tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"
    migrated, empty = (
        postgres_server.execute(tables, database=url.rpartition("/")[2]) for url in (postgres_url, empty_postgres_url)
    )
    assert int(migrated[0][0]) >= 6
    assert empty == [["0"]]
