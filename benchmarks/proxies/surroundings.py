"""What stands around every proxy of a run: the upstream, Redis and keys; and a proxy started among them."""

import asyncio
import getpass
import json
import os
import ssl
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory

from benchmarks.bare import PATH
from benchmarks.processes import LOAD_CORE, SERVER_CORE, Server, alone, free_port, redis_server, running, wait_for
from benchmarks.proxies.entrants import UPSTREAM, Entrant
from machpay_gateway import Gateway

KEYS = 64
_CONFIGURATIONS = Path(__file__).with_name("configurations")
_OK = 200
_ATTEMPTS, _PAUSE_SECONDS = 200, 0.05
_SCOPES = ("skills:execute", "skills:list")


class _Text(Template):
    delimiter = "%"  # the other servers' files are full of dollars


@dataclass(frozen=True)
class Surroundings:
    """What is there for every proxy of a run. *secrets* names a file with one secret a line."""

    upstream: Server
    secrets: Path
    values: Mapping[str, str]  # by what configurations call them


@contextmanager
def surroundings() -> Iterator[Surroundings]:
    """Start what stands around a proxy, with keys in a database of their own, until the block ends."""
    with alone(), TemporaryDirectory() as folder, redis_server() as (redis_url, _):
        database = Path(folder) / "machpay.db"
        minted = asyncio.run(_minted(database))
        secrets = Path(folder) / "secrets"
        secrets.write_text("\n".join(minted))
        values = {
            "credentials": json.dumps([{"key": secret, "client": f"load-{n}"} for n, secret in enumerate(minted)]),
            "database": str(database),
            "redis": redis_url.removeprefix("redis://").removesuffix("/0"),
            "user": getpass.getuser(),
        }
        with _started(UPSTREAM, values, LOAD_CORE, minted[0]) as upstream:
            yield Surroundings(upstream, secrets, values | {"upstream": str(upstream.port)})


@contextmanager
def serving_proxy(entrant: Entrant, around: Surroundings) -> Iterator[Server]:
    """Run *entrant* on the server's core, before the upstream, until the block ends."""
    secret = around.secrets.read_text().split()[0]
    with _started(entrant, around.values, SERVER_CORE, secret) as server:
        yield server


def status_of_answer(connection: HTTPConnection, secret: str) -> int:
    """Ask once, read the answer and return its status; *connection* stays open."""
    connection.request("GET", PATH, headers={"Authorization": f"Bearer {secret}"})
    answer = connection.getresponse()
    answer.read()
    return answer.status


async def _minted(database: Path) -> list[str]:
    """Create keys that may do what the load does, from here alone, and return their secrets."""
    async with Gateway(config=os.devnull, database=f"sqlite:///{database}", scopes=_SCOPES) as gateway:
        account = await gateway.accounts.create("load", "enterprise")
        made = [
            await gateway.keys.create(
                account.id, name=f"load {number}", scopes=_SCOPES, environment="live", allowed_ips=["127.0.0.0/8"]
            )
            for number in range(KEYS)
        ]
    return [secret for _, secret in made]


@contextmanager
def _started(entrant: Entrant, values: Mapping[str, str], core: int, secret: str) -> Iterator[Server]:
    with TemporaryDirectory() as folder:
        port = free_port()
        ways = {"folder": folder, "port": str(port), "management": str(free_port())}
        command, environment = _command(entrant, {**values, **ways}), _environment(entrant, folder, values)
        printed = Path(folder) / "printed"
        with printed.open("wb") as output, running(command, core, environment=environment, output=output) as process:
            server = Server(entrant.label, process, port)
            try:
                wait_for(process, port)
                _wait_for_an_answer(server, secret, is_encrypted=entrant.is_encrypted)
            except SystemExit as exc:
                sys.exit(f"{entrant.label}: {exc}\n{printed.read_text(errors='replace')[-2000:]}")
            yield server


def _command(entrant: Entrant, values: dict[str, str]) -> list[str]:
    values |= {name: _Text(value).substitute(values) for name, value in entrant.values.items()}
    if entrant.configuration:
        text = _Text((_CONFIGURATIONS / entrant.configuration).read_text())
        (Path(values["folder"]) / entrant.configuration).write_text(text.substitute(values))
    path = entrant.program.path()
    assert path is not None, f"{entrant.label} is not there"
    return [path, *(_Text(argument).substitute(values) for argument in entrant.arguments)]


def _environment(entrant: Entrant, folder: str, values: Mapping[str, str]) -> dict[str, str]:
    return {
        "GOMAXPROCS": "1",  # one core's worth of threads, as the others' configurations say
        "XDG_CONFIG_HOME": folder,
        "XDG_DATA_HOME": folder,
        "PYTHONPATH": str(entrant.program.modules),
        "BENCHMARK_UPSTREAM": f"http://127.0.0.1:{values.get('upstream', '')}",
    }


def _wait_for_an_answer(server: Server, secret: str, *, is_encrypted: bool) -> None:
    """Wait until *server* has read its configuration: some listen before they have."""
    told: object = None
    trusting = ssl._create_unverified_context()  # noqa: S323, SLF001 - our own server on loopback
    for _ in range(_ATTEMPTS):
        try:
            host = "127.0.0.1", server.port
            connection = (
                HTTPSConnection(*host, timeout=10, context=trusting)
                if is_encrypted
                else HTTPConnection(*host, timeout=10)
            )
            with closing(connection):
                told = status_of_answer(connection, secret)
        except (OSError, HTTPException) as exc:
            told = repr(exc)
        if told == _OK:
            return
        time.sleep(_PAUSE_SECONDS)
    sys.exit(f"It did not answer with 200 within {_ATTEMPTS * _PAUSE_SECONDS:.0f} s, last: {told}.")
