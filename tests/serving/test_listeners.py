"""Where callers connect: addresses of either family and of both, and Unix sockets."""

import os
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.redises.ports import free_port
from tests.serving.processes import PROGRAM, ROOT, Served, served
from tests.serving.test_lifecycle import until

REQUEST = b"GET %b HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n%b\r\n"
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
together = pytest.mark.xdist_group("listeners")


def ask(address: str | Path | tuple[str, int], *fields: str, target: str = "/public/head") -> bytes:
    """Return all that a listener sends in response to one request with these *fields*."""
    family = (
        socket.AF_UNIX if isinstance(address, str | Path) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    )
    with socket.socket(family) as connection:
        connection.settimeout(15)
        connection.connect(str(address) if isinstance(address, Path) else address)
        connection.sendall(REQUEST % (target.encode(), "".join(f"{field}\r\n" for field in fields).encode()))
        response = b""
        while data := connection.recv(65536):
            response += data
    return response


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway on a port of both families, on a Unix socket that a killed process left, and on an address."""
    folder = tmp_path_factory.mktemp("everywhere")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(folder / "gateway.sock"))
    path = folder / "gateway.sock"
    settings = (
        'trusted_proxies = ["unix:"]\n[server]\n'
        f'listen = [":0", {{ address = "unix:{path}", mode = "0622" }}, "127.0.0.2:0"]'
    )
    with served(folder, settings=settings, listen=()) as gateway:
        yield gateway
    assert not path.exists()


def test_an_ignored_header_over_a_unix_socket_names_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    with served(tmp_path, settings=f'[server]\nlisten = ["127.0.0.1:0", "unix:{path}"]', listen=()) as gateway:
        assert b"\r\nX-Forwarded-For: unknown\r\n" in ask(path, "X-Forwarded-For: 203.0.113.9")
        until(lambda: 'from a Unix socket (as an address, "unix:")' in gateway.log)


def has_ipv6() -> bool:
    """Tell whether loopback has an address of IPv6, which containers often lack."""
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
        return True


@together
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1"])
def test_a_port_alone_is_served_in_both_families(everywhere: Served, host: str) -> None:
    if host == "::1" and not has_ipv6():
        pytest.skip("this host has no IPv6")
    response = ask((host, everywhere.port))
    assert response.startswith(b"HTTP/1.1 200 ")
    assert (b"X-Forwarded-For: ::1\r\n" in response) is (host == "::1")


@together
def test_a_unix_socket_has_its_mode_and_an_address_by_trusted_headers_alone(everywhere: Served) -> None:
    path = everywhere.folder / "gateway.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o622
    assert b"X-Forwarded-For: unknown\r\n" in ask(path)
    assert b"X-Forwarded-For: 203.0.113.9, unknown\r\n" in ask(path, "X-Forwarded-For: 203.0.113.9")
    assert b"X-Forwarded-For: 127.0.0.1\r\n" in ask(("127.0.0.1", everywhere.port), "X-Forwarded-For: 203.0.113.9")


@together
def test_all_addresses_are_reported(everywhere: Served) -> None:
    path = everywhere.folder / "gateway.sock"
    *tcp, other = [url for url in everywhere.urls if url.startswith("http")]
    assert tcp == [f"http://0.0.0.0:{everywhere.port}", f"http://[::]:{everywhere.port}"]
    assert other.startswith("http://127.0.0.2:")
    assert f"unix:{path}" in everywhere.urls


def test_a_reload_listens_where_the_new_settings_say(tmp_path: Path) -> None:
    first, second = tmp_path / "first.sock", tmp_path / "second.sock"
    with served(tmp_path, settings=f'[server]\nlisten = ["127.0.0.1:0", "unix:{first}"]', listen=()) as gateway:
        assert b" 200 " in ask(first)
        file = tmp_path / "machpay.toml"
        text = file.read_text()
        file.write_text(text.replace(str(first), str(second)))
        gateway.supervisor.send_signal(signal.SIGHUP)
        until(lambda: "are reloaded" in gateway.log)
        assert b" 200 " in ask(second)
        assert b" 200 " in ask(("127.0.0.1", gateway.port))  # the port that was picked at the start
        assert not first.exists()
        file.write_text(text.replace(f"unix:{first}", "unix:/nowhere/at/all"))
        gateway.supervisor.send_signal(signal.SIGHUP)
        until(lambda: "unix:/nowhere/at/all cannot be listened on" in gateway.log)
        assert b" 200 " in ask(second)


@together
@pytest.mark.skipif(NGINX is None and "CI" not in os.environ, reason="nginx is not installed")
def test_nginx_in_front_of_a_unix_socket_names_its_clients(everywhere: Served, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "listeners.md").read_text()
    servers = page.partition("```nginx\n")[2].partition("```")[0]
    port = free_port()
    servers = servers.replace("/run/machpay/gateway.sock", str(everywhere.folder / "gateway.sock"))
    servers = servers.replace("server {\n", f"server {{\n  listen 127.0.0.1:{port};\n")
    folders = "".join(f" {kind}_temp_path {kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (tmp_path / "nginx.conf").write_text(f"events {{}}\nhttp {{ access_log off;{folders}\n{servers} }}")
    switches = "daemon off; master_process off; pid pid;"
    command = [NGINX or "nginx", "-p", str(tmp_path), "-c", "nginx.conf", "-e", "stderr", "-g", switches]
    nginx = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        with socket.socket() as probe:
            until(lambda: probe.connect_ex(("127.0.0.1", port)) == 0)
        response = ask(("127.0.0.1", port), "X-Forwarded-For: 198.51.100.7")
    finally:
        nginx.terminate()
        nginx.wait()
    assert response.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nX-Forwarded-For: 127.0.0.1, unknown\r\n" in response
    assert b"\r\nForwarded: for=127.0.0.1;proto=http;host=api.test, for=unknown\r\n" in response


def test_a_control_plane_alone_serves_proxies_at_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    settings = (
        f'trusted_proxies = ["unix:"]\n[server]\ncontrol_plane = "only"\n'
        f'listen = ["127.0.0.1:0", {{ address = "unix:{path}", mode = "0600" }}]'
    )
    fields = ("X-Forwarded-Method: GET", "X-Forwarded-Uri: /public/x", "X-Forwarded-For: 203.0.113.9")
    with served(tmp_path, settings=settings, listen=()) as gateway:
        assert ask(path, *fields, target="/authorize/traefik").startswith(b"HTTP/1.1 200 ")
        address = ("127.0.0.1", gateway.port)
        assert ask(address, *fields, target="/authorize/traefik").startswith(b"HTTP/1.1 404 ")
        assert ask(address, target="/v1/keys").startswith(b"HTTP/1.1 401 ")
        file = tmp_path / "machpay.toml"
        file.write_text(file.read_text().replace('mode = "0600"', 'mode = "0666"'))
        gateway.supervisor.send_signal(signal.SIGHUP)
        until(lambda: "are reloaded" in gateway.log)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666


def test_an_upstream_may_be_at_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    app = subprocess.Popen(
        [os.fspath(PROGRAM.with_name("uvicorn")), "tests.serving.unix_app:app", "--uds", str(path)],
        stderr=subprocess.DEVNULL,
    )
    try:
        until(path.exists)
        with served(tmp_path, environ={"MACHPAY_UPSTREAMS__LIVE": f"unix:{path}"}) as gateway:
            response = ask(("127.0.0.1", gateway.port))
    finally:
        app.kill()
        app.wait()
    assert response.startswith(b"HTTP/1.1 200 ")
    assert response.endswith(b"GET /public/head for api.test")


@pytest.mark.parametrize(
    "prepare, address, message",
    [
        ("file", "unix:{folder}/s", "is there and is no socket: choose another path"),
        ("server", "unix:{folder}/s", "another process listens on unix:{folder}/s"),
        ("", "unix:{folder}/none/s", "its folder must exist and be writable"),
    ],
)
def test_a_path_that_cannot_be_listened_on_is_reported(
    tmp_path: Path, prepare: str, address: str, message: str
) -> None:
    path = tmp_path / "s"
    if prepare == "file":
        path.touch()
    (tmp_path / "machpay.toml").write_text('[upstreams]\nlive = "http://127.0.0.1:1"\n')
    with socket.socket(socket.AF_UNIX) as taken:
        if prepare == "server":
            taken.bind(str(path))
            taken.listen()
        ended = subprocess.run(
            [PROGRAM, "serve", "--listen", address.format(folder=tmp_path), "--management", ""],
            cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    assert ended.returncode == 1
    assert message.format(folder=tmp_path) in ended.stderr
    assert "Traceback" not in ended.stderr
    assert path.exists() is bool(prepare)  # nothing of another's is removed
