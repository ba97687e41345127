"""This release beside the one before, on one database and one Redis under load: deployed, migrated and rolled back.

The release before is the newest commit with its schema, or the checkout that `PREVIOUS_RELEASE` names.
"""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from machpay_gateway.stores.schema import HEAD, PREVIOUS, REVISIONS
from tests.postgres.servers import running_server as running_postgres
from tests.redises.ports import HOST, free_port
from tests.redises.servers import running_server as running_redis
from tests.redises.waiting import wait_until

ROOT = Path(__file__).parents[2]
_PROGRAM = "from machpay_gateway.cli.main import main; main()"
_SECONDS = 3.0  # of load after each step
_PAUSE_SECONDS = 0.005
SETTINGS = """
unlisted_routes = "deny"
[tiers.standard]
rate = "1000000/minute"
concurrency = 50
quota = "900000/day"
account = { quota = "1000000/month" }
[server]
control_plane = "only"
[[routes]]
match = "GET /healthz"
public = true
"""


def git(*arguments: str) -> bytes:
    program = shutil.which("git")
    if program is None:
        pytest.skip("git is not installed")
    done = subprocess.run([program, *arguments], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"the release before is not in this checkout: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """The sources of the release before."""
    if (named := os.environ.get("PREVIOUS_RELEASE")) is not None:
        return Path(named)
    later = REVISIONS[REVISIONS.index(PREVIOUS) + 1]
    script = f"machpay_gateway/stores/migrations/versions/{later}_*.py"
    added = git("log", "--diff-filter=A", "--format=%H", "--", script).split()
    if not added:
        pytest.skip("the release before is not in this checkout")
    with tarfile.open(fileobj=io.BytesIO(git("archive", f"{added[-1].decode()}^", "machpay_gateway"))) as archive:
        archive.extractall(tmp_path / "before", filter="data")
    return tmp_path / "before"


@dataclass
class Release:
    """The program in the folder *sources*."""

    sources: Path
    folder: Path
    environment: dict[str, str]

    def __post_init__(self) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MACHPAY_")}
        self.environment = inherited | self.environment | {"PYTHONPATH": str(self.sources)}

    def run(self, *arguments: str) -> Any:  # noqa: ANN401 - JSON
        command = [sys.executable, "-c", _PROGRAM, *arguments, "--json"]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@dataclass
class Place:
    """A port where one release after the other serves, and the callers who use it meanwhile."""

    secret: str
    statuses: Counter[object]
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    is_in_use: threading.Event = field(default_factory=threading.Event)
    caller: threading.Thread | None = None

    def deploy(self, release: Release) -> None:
        """Replace what serves here by *release*, as a balancer does: callers are elsewhere meanwhile."""
        self.take_out()
        listen = ["--listen", f"{HOST}:{self.port}", "--management", ""]
        with (release.folder / f"log.{self.port}").open("ab") as log:
            command = [sys.executable, "-c", _PROGRAM, "serve", *listen]
            self.process = subprocess.Popen(
                command, cwd=release.folder, env=release.environment, stdout=subprocess.DEVNULL, stderr=log
            )
        wait_until(lambda: self._ask() == 200, seconds=60, claim=f"port {self.port} serves")
        self.is_in_use.set()
        self.caller = threading.Thread(target=self._call)
        self.caller.start()

    def reload(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def take_out(self) -> None:
        self.is_in_use.clear()
        if self.caller is not None:
            self.caller.join()
        if self.process is not None:
            self.process.terminate()
            assert self.process.wait(60) == 0
        self.caller = self.process = None

    def _call(self) -> None:
        while self.is_in_use.is_set():
            self.statuses[self._ask()] += 1
            time.sleep(_PAUSE_SECONDS)

    def _ask(self) -> object:
        connection = HTTPConnection(HOST, self.port, timeout=10)
        try:
            connection.request("GET", "/v1/whoami", headers={"Authorization": f"Bearer {self.secret}"})
            return connection.getresponse().status
        except OSError as exc:
            return repr(exc)
        finally:
            connection.close()


@contextmanager
def places(secret: str, statuses: Counter[object]) -> Iterator[list[Place]]:
    both = [Place(secret, statuses) for _ in range(2)]
    try:
        yield both
    finally:
        for place in both:
            place.take_out()


@pytest.mark.drill
@pytest.mark.timeout(300)
@pytest.mark.parametrize("database", ["postgresql", "sqlite"])
def test_a_deployment_rolls_forward_and_back_without_a_failed_request(
    database: str, before: Path, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        redis = stack.enter_context(running_redis())
        url = f"sqlite:///{tmp_path}/keys.db"
        if database == "postgresql":
            url = stack.enter_context(running_postgres()).make_database("keys")
        (tmp_path / "machpay.toml").write_text(SETTINGS)
        environment = {"MACHPAY_DATABASE": url, "MACHPAY_REDIS": redis.url, "MACHPAY_SECRET_KEY": "k" * 40}
        old, new = Release(before, tmp_path, environment), Release(ROOT, tmp_path, environment)
        assert old.run("migrate")["to"] == PREVIOUS
        old.run("accounts", "create", "main", "--tier", "standard")
        key = old.run("keys", "create", "--name", "k", "--environment", "live")
        statuses: Counter[object] = Counter()
        first, second = stack.enter_context(places(key["secret"], statuses))
        first.deploy(old)
        second.deploy(old)
        time.sleep(_SECONDS)
        second.deploy(new)  # on the schema of the release before, but for SQLite, which a start upgrades
        time.sleep(_SECONDS)
        assert new.run("migrate")["to"] == HEAD
        for place in (first, second):
            place.reload()
        time.sleep(_SECONDS)
        first.deploy(old)  # restarts on the newer schema
        second.deploy(new)
        time.sleep(_SECONDS)
        first.deploy(new)  # forward
        time.sleep(_SECONDS)
        first.deploy(old)  # and back
        second.deploy(old)
        time.sleep(_SECONDS)
        for place in (first, second):
            place.take_out()
        print(f"\n{database}: {statuses}")
        assert set(statuses) == {200}
        assert statuses[200] > 1000
        totals = [
            release.run("keys", "usage", key["id"], "--last", "2h", "--bucket", "minute") for release in (old, new)
        ]
        assert [usage["total"]["requests"] >= statuses[200] for usage in totals] == [True, True]
        assert totals[0]["total"] == totals[1]["total"]
