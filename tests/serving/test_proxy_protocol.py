"""Behind proxies that speak the PROXY protocol: HAProxy, and hand-made ones that misbehave."""

import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.certificates import Authority
from tests.redises.ports import free_port
from tests.serving.processes import Served, served
from tests.serving.test_lifecycle import until

pytestmark = pytest.mark.xdist_group("proxy protocol")

HAPROXY = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
REQUEST = b"GET /public/head HTTP/1.1\r\nHost: api.test\r\nX-Forwarded-For: 198.51.100.7\r\nConnection: close\r\n\r\n"
V1 = b"PROXY TCP4 203.0.113.9 127.0.0.1 40000 443\r\n"
V2 = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x12"
    + socket.inet_aton("203.0.113.9")
    + socket.inet_aton("127.0.0.1")
    + b"\x9c\x40\x01\xbb"
    + b"\x04\0\x03abc"
)
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"


@dataclass(frozen=True)
class Behind:
    """A gateway behind proxies on this host. Its ports are by whether callers use TLS; *path* is a Unix socket."""

    gateway: Served
    plain: int
    tls: int
    path: Path
    context: ssl.SSLContext


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    folder = tmp_path_factory.mktemp("behind")
    authority, path = Authority(folder), folder / "gateway.sock"
    files = authority.issue("server", "127.0.0.1")
    settings = (
        'trusted_proxies = ["127.0.0.1", "unix:"]\n[server]\nproxy_protocol = true\nhead_seconds = 1\n'
        f'listen = [{{ address = "127.0.0.1:0", tls = false }}, "127.0.0.2:0", "unix:{path}"]\n'
        f'tls_certificate = "{files.certificate}"\ntls_key = "{files.key}"'
    )
    with served(folder, settings=settings, listen=()) as gateway:
        plain, tls = (urlsplit(url).port or 0 for url in gateway.urls[:2])
        yield Behind(gateway, plain, tls, path, ssl.create_default_context(cafile=str(authority.path)))


def exchange(connection: socket.socket, *pieces: bytes) -> bytes:
    """Send *pieces* one after the other, and return all that comes back until the connection ends."""
    response = b""
    try:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.02)
        if not pieces:
            connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(65536):
            response += data
    except ConnectionError:
        pass
    return response


def via(port: int, *pieces: bytes, source: str = "127.0.0.1") -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(source, 0)) as connection:
        return exchange(connection, *pieces)


@pytest.mark.parametrize(
    "pieces, expected",
    [
        ([V1 + REQUEST], b"203.0.113.9"),
        ([V2 + REQUEST], b"203.0.113.9"),
        ([V1[:3], V1[3:20], V1[20:] + REQUEST[:5], REQUEST[5:]], b"203.0.113.9"),
        ([V2[:5], V2[5:17], V2[17:], REQUEST], b"203.0.113.9"),
        ([V1[:-1], b"\n" + REQUEST], b"203.0.113.9"),
        ([LOCAL + REQUEST], b"198.51.100.7, 127.0.0.1"),  # the proxy's own request, which it is trusted in
        ([b"PROXY UNKNOWN\r\n" + REQUEST], b"unknown"),
        ([V1.replace(b"203.0.113.9", b"127.0.0.1") + REQUEST], b"198.51.100.7, 127.0.0.1"),  # one proxy behind another
    ],
)
def test_the_header_says_who_the_client_is(behind: Behind, pieces: list[bytes], expected: bytes) -> None:
    response = via(behind.plain, *pieces)
    assert response.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nX-Forwarded-For: " + expected + b"\r\n" in response


@pytest.mark.parametrize(
    "pieces, source",
    [
        ([REQUEST], "127.0.0.1"),
        ([V1 + REQUEST], "127.0.0.9"),  # not a proxy of ours
        ([REQUEST], "127.0.0.9"),
        ([b"PROXY TCP4 nobody 127.0.0.1 1 2\r\n" + REQUEST], "127.0.0.1"),
        ([b"PROXY " + b"x" * 200 + b"\r\n" + REQUEST], "127.0.0.1"),
        ([V2[:14] + b"\xff\xff" + bytes(70000)], "127.0.0.1"),
        ([b"PROXY "], "127.0.0.1"),  # and no more: `head_seconds`
        ([V1 + V1 + REQUEST], "127.0.0.1"),
    ],
)
def test_others_get_nothing_of_an_upstream(behind: Behind, pieces: list[bytes], source: str) -> None:
    response = via(behind.plain, *pieces, source=source)
    assert response == b"" or (len(pieces[0]) > len(V1 + REQUEST) and response.startswith(b"HTTP/1.1 400 "))


def test_a_health_check_that_only_connects_is_no_line_of_the_log(tmp_path: Path) -> None:
    settings = 'trusted_proxies = ["127.0.0.1"]\n[server]\nproxy_protocol = true'
    with served(tmp_path, settings=settings) as gateway:
        assert via(gateway.port, source="127.0.0.1") == b""
        assert via(gateway.port, V1 + REQUEST).startswith(b"HTTP/1.1 200 ")
        assert "PROXY protocol" not in gateway.log
        via(gateway.port, REQUEST)
        until(lambda: "a valid header of the PROXY protocol: no header" in gateway.log)


def test_the_header_comes_before_tls(behind: Behind) -> None:
    for header in (V1, V2):
        with socket.create_connection(("127.0.0.2", behind.tls), timeout=10, source_address=("127.0.0.1", 0)) as plain:
            plain.sendall(header)
            with behind.context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
                response = exchange(connection, REQUEST)
        assert b"\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n" in response


def test_a_unix_socket_takes_the_header_where_its_peers_are_trusted(behind: Behind) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(behind.path))
        assert b"\r\nX-Forwarded-For: 203.0.113.9\r\n" in exchange(connection, V2 + REQUEST)


@contextmanager
def haproxy(folder: Path, server: str) -> Iterator[int]:
    """Run HAProxy in front of *server*, and return its port."""
    port = free_port()
    (folder / "haproxy.cfg").write_text(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n"
        f"listen gateway\n bind 127.0.0.1:{port}\n server gateway {server}\n"
    )
    command = [HAPROXY or "haproxy", "-f", str(folder / "haproxy.cfg"), "-db"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with socket.socket() as probe:
            until(lambda: probe.connect_ex(("127.0.0.1", port)) == 0)
        yield port
    finally:
        process.terminate()
        process.wait()


@pytest.mark.skipif(HAPROXY is None and "CI" not in os.environ, reason="haproxy is not installed")
@pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options unique-id,crc32c"])
def test_haproxy_passes_its_clients_on(behind: Behind, tmp_path: Path, option: str) -> None:
    with haproxy(tmp_path, f"127.0.0.1:{behind.plain} check inter 50ms {option}") as port:
        response = via(port, REQUEST, source="127.0.0.5")
    assert b"\r\nX-Forwarded-For: 127.0.0.5\r\n" in response
    with (
        haproxy(tmp_path, f"127.0.0.2:{behind.tls} {option} source 127.0.0.1") as port,
        socket.create_connection(("127.0.0.1", port), timeout=10, source_address=("127.0.0.5", 0)) as plain,
        behind.context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        response = exchange(connection, REQUEST)
    assert b"\r\nX-Forwarded-For: 127.0.0.5\r\nX-Forwarded-Proto: https\r\n" in response
