"""The gateway as it runs: worker processes of uvicorn that share a database and a Redis, each on a port of its own."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

from machpay_gateway import Gateway, Tier
from machpay_gateway.core.keys.key import mint_secret
from machpay_gateway.core.limits.rate import SharedLimits
from tests.redises.ports import HOST, free_port

ROOT = Path(__file__).parents[2]
_OPENER = build_opener(ProxyHandler({}))
_UVICORN = (
    *("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"),
    *("--timeout-keep-alive", "600"),  # a connection that waits for the next burst is not to be closed meanwhile
)
_START_SECONDS, _STOP_SECONDS = 40.0, 20.0


class Worker:
    """One process."""

    def __init__(self, port: int, log: Path, environment: Mapping[str, str], ahead_seconds: int) -> None:
        self.port = port
        self.log = log
        self._ahead_seconds = ahead_seconds
        self._environment = environment
        self.process = self._started()

    def restart(self) -> None:
        """Start it again on the same port, when it is dead."""
        self.kill()
        self.process = self._started()
        self.wait()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it as an operator does."""
        self.process.terminate()
        self.process.wait(_STOP_SECONDS)

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def wait(self) -> None:
        """Return when it answers."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                _OPENER.open(f"http://{HOST}:{self.port}/quick", timeout=5).close()
            except OSError as exc:
                if getattr(exc, "code", None) == 401:
                    return
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no answer on port {self.port}; its log:\n{self.log.read_text()}") from exc
                time.sleep(0.05)

    def _started(self) -> subprocess.Popen[bytes]:
        server = ["tests.drills.wall_clock", str(self._ahead_seconds)] if self._ahead_seconds else ["uvicorn"]
        command = [sys.executable, "-m", *server, "tests.drills.application:app", "--host", HOST]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*command, "--port", str(self.port), *_UVICORN],
                cwd=ROOT,
                env=self._environment,
                stdout=log,
                stderr=log,
            )


@dataclass(frozen=True)
class Fleet:
    """Some workers, and what they have in common."""

    workers: Sequence[Worker]
    folder: Path
    database: str
    redis: str
    tiers: Mapping[str, Tier]

    @property
    def ports(self) -> list[int]:
        return [worker.port for worker in self.workers]

    @asynccontextmanager
    async def gateway(self) -> AsyncIterator[Gateway]:
        """Open the gateway as an operator's process has it."""
        async with Gateway(database=self.database, redis=self.redis, tiers=self.tiers) as gateway:
            yield gateway

    async def keys(
        self,
        count: int = 1,
        *,
        tier: str = "standard",
        account: str = "",
        owner: str | None = None,
        scopes: Sequence[str] = ("skills:execute",),
    ) -> list[tuple[str, str]]:
        """Return the ids and the secrets of new keys, of an *account* in *tier*; without a name it has the tier's."""
        name = account or tier
        async with Gateway(database=self.database, tiers=self.tiers) as gateway:
            found = await gateway.accounts.find(name) or await gateway.accounts.create(name, tier)
            made = [
                await gateway.keys.create(found.id, name="drill", scopes=scopes, environment="live", owner=owner)
                for _ in range(count)
            ]
            return [(record.id, secret) for record, secret in made]

    def check_logs(self) -> None:
        """Fail when a worker has told of an exception that nobody expected."""
        for worker in self.workers:
            text = worker.log.read_text(errors="replace")
            assert "Traceback" not in text, f"worker on port {worker.port}:\n{text[-5000:]}"


@contextmanager
def running_workers(
    count: int,
    redis: str,
    tiers: Mapping[str, Tier],
    *,
    on_failure: str = "local",
    database: str = "",
    ahead_seconds: int = 0,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Fleet]:
    """Run *count* workers on the servers at *redis*, with *tiers* over the usual ones.

    Without a *database*, they share a file of SQLite. Their clocks are *ahead_seconds* of the real one. *settings* are
    further ones, by name.
    """
    with tempfile.TemporaryDirectory(prefix="drill-") as name:
        folder = Path(name)
        database = database or f"sqlite:///{folder / 'machpay.db'}"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MACHPAY_")}
        environment |= {
            "MACHPAY_DATABASE": database,
            "MACHPAY_REDIS": redis,
            "MACHPAY_ON_LIMITER_FAILURE": on_failure,
            "MACHPAY_FAILURE_LIMIT": "1000000/minute",  # all callers are one address here
        }
        environment |= {f"MACHPAY_{name.upper()}": value for name, value in (settings or {}).items()}
        for tier_name, tier in tiers.items():
            environment.update(_variables(f"MACHPAY_TIERS__{tier_name.upper()}", tier))
        workers: list[Worker] = []
        try:
            for number in range(count):
                log = folder / f"worker{number}.log"
                workers.append(Worker(free_port(), log, environment, ahead_seconds))
            for worker in workers:
                worker.wait()
            yield Fleet(workers, folder, database, redis, tiers)
        finally:
            for worker in workers:
                worker.kill()


def _variables(prefix: str, limits: Tier | SharedLimits) -> Iterator[tuple[str, str]]:
    """Yield the settings of *limits* as environment variables that begin with *prefix*."""
    for name in ("rate", "concurrency", "quota", "account", "owner"):
        value = getattr(limits, name, None)
        variable = f"{prefix}__{name.upper()}"
        if isinstance(value, SharedLimits):
            yield from _variables(variable, value)
        elif value:
            yield variable, str(value) if isinstance(value, str | int) else "; ".join(value)


def resident_megabytes(process: int) -> int:
    """Return how much memory *process* holds."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1_000_000


def unknown_secret() -> str:
    """Return a well-formed secret that no key has."""
    return mint_secret("live", os.urandom(32))
