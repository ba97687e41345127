"""The gateway as people run it: `machpay-gateway serve` in front of an upstream, each a process of its own."""

import asyncio
import atexit
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from machpay_gateway import Gateway
from tests.prepared import new_sqlite
from tests.redises.ports import free_port

ROOT = Path(__file__).parents[2]
PROGRAM = Path(sys.executable).with_name("machpay-gateway")
ROUTES = """
[[routes]]
match = "* /public/{rest:path}"
public = true
proxy = { max_body_bytes = 0 }

[[routes]]
match = "* /v1/{rest:path}"
scopes = "skills:execute"
"""
_STOP_SECONDS = 60


@dataclass(frozen=True)
class Served:
    """A gateway that serves. *log* is what it says."""

    supervisor: subprocess.Popen[bytes]
    port: int
    folder: Path
    management: str | None
    urls: Sequence[str] = ()

    @property
    def log(self) -> str:
        """All that was said on stderr."""
        return (self.folder / "stderr").read_text()

    def workers(self) -> list[int]:
        """Return the process ids of the workers."""
        children = Path(f"/proc/{self.supervisor.pid}/task/{self.supervisor.pid}/children").read_text()
        return [int(child) for child in children.split()]

    def resident_bytes(self) -> int:
        """Return the memory of all workers together."""
        return sum(
            int(line.split()[1]) * 1024
            for worker in self.workers()
            for line in Path(f"/proc/{worker}/smaps_rollup").read_text().splitlines()
            if line.startswith("Pss:")
        )

    def secret(self, *, tier: str = "standard", scopes: Sequence[str] = ("skills:execute",)) -> str:
        """Return the secret of a new key."""
        return self.key(tier=tier, scopes=scopes)[1]

    def key(self, *, tier: str = "standard", scopes: Sequence[str] = ("skills:execute",)) -> tuple[str, str]:
        """Return the id and the secret of a new key."""

        async def create() -> tuple[str, str]:
            async with Gateway(config=self.folder / "machpay.toml") as gateway:
                account = await gateway.accounts.find(tier) or await gateway.accounts.create(tier, tier)
                key, secret = await gateway.keys.create(account.id, name="test", scopes=scopes, environment="live")
                return key.id, secret

        return asyncio.run(create())


@contextmanager
def served(
    folder: Path,
    *,
    settings: str = "",
    routes: str = "",
    management: str = "",
    environ: Mapping[str, str] | None = None,
    listen: Sequence[str] = ("127.0.0.1:0",),
    before: Callable[[], None] | None = None,
    status: int = 0,
    fails_within: bool = False,
) -> Iterator[Served]:
    """Start a gateway in front of the upstream of this process's tests, and end it.

    Unless it *fails within* on purpose, it may log no traceback.

    It listens where *listen* says, or if that is empty, where the *settings* do.

    *before* is called in the gateway's process, whose exit *status* is to be this one.
    """
    database = new_sqlite(folder / "machpay.db")  # which each start would otherwise take half a second to make
    (folder / "machpay.toml").write_text(
        f'database = "{database}"\nunlisted_routes = "deny"\n{settings}\n'
        f'[upstreams]\nlive = "http://127.0.0.1:{upstream_port()}"\n{ROUTES}{routes}'
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MACHPAY_")}
    environment |= {"MACHPAY_SERVER__ACCESS_LOG": str(folder / "access.log")} | dict(environ or {})
    command = [str(PROGRAM), "serve", "--management", management, "--json"]
    command += [part for address in listen for part in ("--listen", address)]
    with (folder / "stderr").open("wb") as log:
        gateway = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            preexec_fn=before,  # noqa: PLW1509 - which only sets a limit
            start_new_session=True,  # as a terminal would start it: what ends its group does not end the tests
        )
    assert gateway.stdout is not None
    try:
        output = b""
        while not output.endswith(b"}\n"):
            line = gateway.stdout.readline()
            assert line, (folder / "stderr").read_text()
            output += line
        serving = json.loads(output)
        yield Served(gateway, urlsplit(serving["url"]).port or 0, folder, serving["management"], serving["urls"])
        gateway.terminate()
        assert gateway.wait(_STOP_SECONDS) == status
    finally:
        gateway.kill()
        gateway.wait()
        gateway.stdout.close()
    assert fails_within or "Traceback" not in (folder / "stderr").read_text()


@cache
def upstream_port() -> int:
    """Start the upstream, which keeps nothing of a request and so serves all tests, and return its port.

    It ends with this process: at the latest when its standard input does.
    """
    port = free_port()
    command = [sys.executable, "-m", "tests.serving.upstream", str(port)]
    upstream = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE)
    atexit.register(_end, upstream)
    _wait_for(port)
    return port


def _end(upstream: subprocess.Popen[bytes]) -> None:
    with upstream:
        upstream.kill()


def _wait_for(port: int) -> None:
    for _ in range(400):
        with socket.socket() as connection:
            if connection.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the upstream did not listen")
