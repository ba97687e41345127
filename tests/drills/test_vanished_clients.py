"""WebSocket clients whose network goes away release their concurrency slots within a minute, without a byte from them.

The clients are in a network namespace of their own, whose link is cut: nothing says that they are gone.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.prepared import new_sqlite
from tests.serving.processes import PROGRAM, ROUTES, Served
from tests.serving.upstream import SWITCH

pytestmark = [pytest.mark.drill, pytest.mark.timeout(150)]

HOST, GUEST = "198.18.77.1", "198.18.77.2"  # RFC 2544: for tests
CLIENTS = 3
_CLIENT = """
import socket, sys
connections = []
for _ in range({count}):
    sock = socket.create_connection(("{host}", {port}))
    sock.sendall({request!r})
    assert sock.recv(65536).startswith(b"HTTP/1.1 101"), "no upgrade"
    connections.append(sock)
print("open", flush=True)
sys.stdin.read()
"""
_UPSTREAM = f"""
import asyncio
async def serve(reader, writer):
    head = await reader.readuntil(b"\\r\\n\\r\\n")
    if b"upgrade" in head.lower():
        writer.write({SWITCH!r})
        while SENDS:
            writer.write(b"x" * 100)
            await asyncio.sleep(1)
        await reader.read()
    else:
        writer.write(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: 2\\r\\n\\r\\nok")
        writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


@contextmanager
def namespace() -> Iterator[str]:
    """Yield the name of a network namespace with the address GUEST, linked to HOST."""
    name = f"machpay-{os.getpid()}"
    ours, theirs = f"mp{os.getpid()}a", f"mp{os.getpid()}b"
    if shutil.which("ip") is None:
        pytest.skip("needs `ip` (apt-get install iproute2)")
    if _ip(f"netns add {name}", check=False):
        pytest.skip("this process may not create network namespaces")
    try:
        _ip(f"link add {ours} type veth peer name {theirs} netns {name}")
        _ip(f"address add {HOST}/30 dev {ours}")
        _ip(f"link set {ours} up")
        _ip(f"-n {name} address add {GUEST}/30 dev {theirs}")
        _ip(f"-n {name} link set {theirs} up")
        yield name
    finally:
        _ip(f"link del {ours}", check=False)
        _ip(f"netns del {name}", check=False)


def _ip(arguments: str, *, check: bool = True) -> int:
    """Run `ip` with *arguments*, and return its exit status."""
    return subprocess.run(["/usr/bin/env", "ip", *arguments.split()], capture_output=True, check=check).returncode


@contextmanager
def process(*command: str, cwd: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run *command*, with pipes for its input and output, and end it."""
    with subprocess.Popen(
        command, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as started:
        try:
            yield started
        finally:
            started.terminate()


def _line(of: subprocess.Popen[str]) -> str:
    assert of.stdout is not None
    return of.stdout.readline().strip()


@contextmanager
def gateway(folder: Path, upstream: int) -> Iterator[Served]:
    """Serve at HOST, with one slot for each of the clients."""
    (folder / "machpay.toml").write_text(
        f'database = "{new_sqlite(folder / "machpay.db")}"\nunlisted_routes = "deny"\n'
        f'[tiers.few]\nrate = "1000/minute"\nconcurrency = {CLIENTS}\n'
        f'[server]\naccess_log = "off"\nmanagement = ""\n[upstreams]\nlive = "http://127.0.0.1:{upstream}"\n{ROUTES}'
    )
    with process(str(PROGRAM), "serve", "--listen", f"{HOST}:0", "--json", cwd=folder) as started:
        output = ""
        while not output.endswith("}"):
            line = _line(started)
            assert line, "it did not start"
            output += line
        yield Served(started, int(json.loads(output)["url"].rpartition(":")[2]), folder, None)  # type: ignore[arg-type]  # text


def _status(port: int, secret: str) -> int:
    connection = HTTPConnection(HOST, port, timeout=10)
    connection.request("GET", "/v1/x", headers={"Authorization": f"Bearer {secret}"})
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize("sends", [False, True], ids=["idle", "sending"])
def test_vanished_websocket_clients_release_their_slots_within_a_minute(tmp_path: Path, *, sends: bool) -> None:
    with ExitStack() as stack:
        name = stack.enter_context(namespace())
        upstream = stack.enter_context(process(sys.executable, "-c", f"SENDS = {sends}\n{_UPSTREAM}"))
        served = stack.enter_context(gateway(tmp_path, int(_line(upstream))))
        secret = served.secret(tier="few")
        request = (
            f"GET /v1/socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Authorization: Bearer {secret}\r\n\r\n"
        ).encode()
        script = _CLIENT.format(count=CLIENTS, host=HOST, port=served.port, request=request)
        clients = stack.enter_context(process("ip", "netns", "exec", name, sys.executable, "-c", script))
        assert _line(clients) == "open"
        assert _status(served.port, secret) == 429  # they hold all slots
        _ip(f"-n {name} link set mp{os.getpid()}b down")
        cut_at = time.monotonic()
        while _status(served.port, secret) != 200:
            assert time.monotonic() - cut_at < 60, "their slots are still held"
            time.sleep(0.5)
        print(f"slots are back after {time.monotonic() - cut_at:.0f} s")
