"""Socket activation: a service manager opens the sockets, and passes them by LISTEN_FDS."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.prepared import new_sqlite
from tests.redises.ports import free_port
from tests.serving.processes import PROGRAM
from tests.serving.test_lifecycle import until
from tests.serving.test_listeners import ask

SETTINGS = """
[upstreams]
live = "http://127.0.0.1:9"
[[routes]]
match = "GET /public/{rest:path}"
public = true
[server]
access_log = "off"
"""
# Its arguments are file descriptors, which become those from 3 on, and the program.
LAUNCHER = """
import os, sys
*files, program = sys.argv[1:]
files = [os.dup2(int(file), 100 + number) for number, file in enumerate(files)]
for number, file in enumerate(files):
    os.dup2(file, 3 + number)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(program, [program, "serve", "--json"])
"""
ACTIVATE = shutil.which("systemd-socket-activate")


@contextmanager
def activated(
    folder: Path, sockets: Sequence[socket.socket], *, names: str, settings: str = ""
) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, object]]]:
    """Start a gateway as systemd does, with *sockets* from file descriptor 3 on. Yields it, and what it serves."""
    (folder / "machpay.toml").write_text(f'database = "{new_sqlite(folder / "machpay.db")}"\n{SETTINGS}{settings}')
    variables = {"LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": names}
    files = [sock.fileno() for sock in sockets]
    with (folder / "stderr").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, *map(str, files), str(PROGRAM)],
            cwd=folder, env=os.environ | variables, pass_fds=files, stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip
    assert process.stdout is not None
    try:
        output = b""
        while not output.endswith(b"}\n"):
            line = process.stdout.readline()
            assert line, (folder / "stderr").read_text()
            output += line
        yield process, json.loads(output)
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_sockets_of_a_service_manager_are_served_instead_of_listen(tmp_path: Path) -> None:
    path, unused = tmp_path / "activated.sock", free_port()
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.create_server(("127.0.0.1", 0)) as operators,
    ):
        unix.bind(str(path))
        unix.listen()
        settings = f'listen = "127.0.0.1:{unused}"\n'
        with activated(tmp_path, [tcp, operators, unix], names="a:management:b", settings=settings) as (
            process,
            serving,
        ):
            assert serving["urls"] == [f"http://127.0.0.1:{tcp.getsockname()[1]}", f"unix:{path}"]
            assert serving["management"] == f"http://127.0.0.1:{operators.getsockname()[1]}"
            for _ in range(2):
                for address in (tcp.getsockname(), path):
                    assert b" 502 " in ask(address).split(b"\r\n")[0]  # there is no upstream
                with urllib.request.urlopen(f"{serving['management']}/healthz") as response:  # noqa: S310 - our own
                    assert response.status == 200
                process.send_signal(signal.SIGHUP)
                until(lambda: "are reloaded" in (tmp_path / "stderr").read_text())
            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", unused)) != 0
        assert path.exists()  # the service manager's
        # Callers wait for the next start, as during an upgrade.
        with socket.create_connection(tcp.getsockname()) as early:
            early.sendall(b"GET /public/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            with activated(tmp_path, [tcp, unix], names="a:b"):
                early.settimeout(15)
                assert b" 502 " in early.recv(65536)


def test_what_is_no_listening_socket_is_reported(tmp_path: Path) -> None:
    message = "LISTEN_FDS: file descriptor 3 does not listen"
    with (
        socket.socket() as idle,
        pytest.raises(AssertionError, match=message),
        activated(tmp_path, [idle], names="a"),
    ):
        pass


@pytest.mark.skipif(ACTIVATE is None and "CI" not in os.environ, reason="systemd-socket-activate is not installed")
def test_systemd_passes_its_sockets(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "machpay.toml").write_text(f'database = "{new_sqlite(tmp_path / "machpay.db")}"\n{SETTINGS}')
    command = [ACTIVATE or "systemd-socket-activate", "-l", f"127.0.0.1:{port}", "--fdname=callers"]
    gateway = subprocess.Popen(
        [*command, PROGRAM, "serve", "--management", ""], cwd=tmp_path, stderr=subprocess.DEVNULL
    )
    try:
        with socket.socket() as probe:
            until(lambda: probe.connect_ex(("127.0.0.1", port)) == 0)  # which starts it
        assert b" 502 " in ask(("127.0.0.1", port)).split(b"\r\n")[0]
    finally:
        gateway.terminate()
        gateway.wait()
