"""What a worker does when there are more connections than it may have."""

import resource
import socket
import time
from contextlib import ExitStack
from pathlib import Path

from tests.serving.processes import served
from tests.serving.test_control_plane import tls_settings

ASK = b"GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n"


def status(connection: socket.socket) -> int:
    connection.settimeout(10)
    return int(connection.recv(65536).split(b" ")[1])


def test_one_connection_too_many_is_told_so_and_the_others_go_on(tmp_path: Path) -> None:
    with served(tmp_path, settings="[server]\nmax_connections = 2") as gateway, ExitStack() as stack:

        def connect() -> socket.socket:
            return stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port)))

        first, second, third = connect(), connect(), connect()
        assert status(third) == 503
        for connection in (first, second, first):
            connection.sendall(ASK)
            assert status(connection) == 200
        first.close()
        again = connect()
        again.sendall(ASK)
        assert status(again) == 200


def test_a_handshake_may_take_no_longer_than_a_head(tmp_path: Path) -> None:
    _, settings = tls_settings(tmp_path)
    with (
        served(tmp_path, settings=f"{settings}\nhead_seconds = 0.5") as gateway,
        socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as silent,
    ):
        assert silent.recv(1) == b""


def test_few_file_descriptors_turn_callers_away_and_nothing_else(tmp_path: Path) -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (96, 96))

    with served(tmp_path, before=few) as gateway, ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), timeout=10)) for _ in range(200)
        ]
        for connection in connections:
            connection.sendall(ASK)
        fields = []
        for connection in connections:
            try:
                fields.append(status(connection))
            except (OSError, IndexError):  # turned away before the request was read: a reset
                fields.append(503)
        assert set(fields) == {200, 503}
        assert fields.count(200) >= 20
        for connection in connections:
            connection.close()
        last = 0
        for _ in range(100):  # it has to notice that they are gone
            with socket.create_connection(("127.0.0.1", gateway.port)) as later:
                later.sendall(ASK)
                if (last := status(later)) == 200:
                    break
            time.sleep(0.05)
        assert last == 200
