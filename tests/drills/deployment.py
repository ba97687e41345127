"""Two hosts of `machpay-gateway serve` with two workers each, on one PostgreSQL and one Redis, and what they depend on.

Each host has a folder for temporary files of its own: so the workers of one do not know of those of the other one.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey

from machpay_gateway import Gateway, Tier
from machpay_gateway.core.keys.key import mint_secret, secret_digest
from tests.drills.databases import add_keys
from tests.drills.workers import unknown_secret
from tests.postgres.fixtures import migrate
from tests.postgres.servers import Server as Postgres
from tests.postgres.servers import running_server as running_postgres
from tests.redises.cluster import Cluster, running_cluster
from tests.redises.faults import FaultProxy
from tests.redises.ports import HOST, free_port
from tests.redises.servers import Server as Redis
from tests.redises.servers import running_server
from tests.redises.waiting import wait_until
from tests.serving.processes import PROGRAM, ROOT, Served, served

DATABASE, USER, AUDIENCE = "fleet", "gateway", "api"
LITTLE = Tier("60 per 4 second", 50)
MUCH, MORE = Tier("1000000/minute", 500), Tier("2000000/minute", 500)
ACCOUNTS, KEYS_EACH, TOKENS = 9, 5, 5
LIMITED, REVOKED, BAD, UNSEEN = 4, 5, 5, 250
_SETTINGS = """
redis = "{redis}"
expected_workers = 4
failure_limit = "1000000/minute"
trust_seconds = 60
[tiers.much]
rate = "{much.rate}"
concurrency = {much.concurrency}
[tiers.more]
rate = "{more.rate}"
concurrency = {more.concurrency}
[tiers.little]
rate = "{little.rate}"
concurrency = {little.concurrency}
[server]
workers = 2
"""
_ISSUER = """
[[issuers]]
issuer = "{issuer.url}"
audience = "{audience}"
jwks = "{issuer.url}/jwks.json"
algorithms = ["ES256"]
tier = "much"
"""
# The clock of a process is an hour ahead while the file is there, but for the times of files. SIGUSR2 looks again.
_CLOCK = """
import os, signal, sys, time
_real, _ahead = time.time, 0
def _look(*_):
    global _ahead
    _ahead = 3600 if os.path.exists({path!r}) else 0
def _time():
    return _real() + (0 if sys._getframe(1).f_globals["__name__"].endswith("snapshots") else _ahead)
if sys.argv[0] == "-m" or "doctor" in sys.argv:
    _look()
    time.time = _time
    signal.signal(signal.SIGUSR2, _look)
"""


def accepts(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex((HOST, port)) == 0


class Upstream:
    """A server behind the gateways."""

    def __init__(self) -> None:
        self.port = 0  # chosen by the first start
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.port = self.port or free_port()
        command = [sys.executable, "-m", "tests.serving.upstream", str(self.port)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE)
        wait_until(lambda: accepts(self.port), seconds=20, claim="the upstream listens")

    def kill(self) -> None:
        if self._process is not None:
            with self._process:
                self._process.kill()


class TokenIssuer:
    """An issuer of tokens, and the server of its keys."""

    def __init__(self) -> None:
        self._key = ECKey.generate_key("P-256", {"kid": "drill"})
        self._server: ThreadingHTTPServer | None = None
        self.port = 0  # chosen by the first start

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        document = json.dumps({"keys": [self._key.as_dict(private=False)]}).encode()

        class Keys(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(document)))
                self.end_headers()
                self.wfile.write(document)

            def log_message(self, *_: Any) -> None:  # noqa: ANN401 - as inherited
                pass

        self._server = ThreadingHTTPServer((HOST, self.port), Keys)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def token(self, subject: str) -> str:
        claims = {"iss": self.url, "aud": AUDIENCE, "sub": subject, "exp": int(time.time()) + 7200}
        claims["scope"] = "skills:execute"
        return jwt.encode({"alg": "ES256", "kid": "drill"}, claims, self._key, algorithms=["ES256"])


@dataclass(frozen=True)
class Host:
    """One `machpay-gateway serve`, and how its programs are run."""

    gateway: Served
    environment: dict[str, str]

    def doctor(self) -> list[dict[str, Any]]:
        """Return what `doctor` finds here."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MACHPAY_")}
        done = subprocess.run(
            [str(PROGRAM), "doctor", "--json"],
            cwd=self.gateway.folder,
            env=environment | self.environment,
            capture_output=True,
            check=False,
        )
        findings: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
        return findings

    def signal(self, number: signal.Signals) -> None:
        for worker in self.gateway.workers():
            os.kill(worker, number)


@dataclass(frozen=True)
class Needs:
    """What is special about a deployment, so that something can fail in it."""

    is_cluster: bool = False
    is_proxied: bool = False  # Redis is reached through the proxy
    is_redis_away: bool = False  # while the hosts start
    is_issuer_away: bool = False  # the second one, as above
    more_keys: int = 0  # of an account of the callers


@dataclass
class Deployment:
    """Two hosts, all that they depend on, and the secrets of their callers."""

    folder: Path
    postgres: Postgres
    redis: Redis
    proxy: FaultProxy
    issuers: Sequence[TokenIssuer]
    upstreams: Sequence[Upstream]
    cluster: Cluster | None = None
    hosts: list[Host] = field(default_factory=list)
    good: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    limited: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)
    flood: list[str] = field(default_factory=list)

    @property
    def database(self) -> str:
        return self.postgres.url(DATABASE)

    @property
    def ports(self) -> list[int]:
        return [host.gateway.port for host in self.hosts]

    async def make_keys(self, needs: Needs) -> None:
        """Make the keys of all callers."""
        async with Gateway(database=self.database, tiers={"much": MUCH, "more": MORE, "little": LITTLE}) as gateway:

            async def keys(account: str, tier: str, count: int) -> list[tuple[str, str]]:
                owner = await gateway.accounts.create(account, tier)
                made = [
                    await gateway.keys.create(owner.id, name="drill", scopes=["skills:execute"], environment="live")
                    for _ in range(count)
                ]
                return [(key.id, secret) for key, secret in made]

            for number in range(ACCOUNTS):
                self.good += [secret for _, secret in await keys(f"good{number}", "much", KEYS_EACH)]
            self.good += [self.issuers[0].token(f"user{number}") for number in range(TOKENS)]
            for number in range(LIMITED):
                self.limited += [secret for _, secret in await keys(f"limited{number}", "little", 1)]
            self.flood = [secret for _, secret in await keys("flood", "much", KEYS_EACH)]
            self.bad = [unknown_secret() for _ in range(BAD)]
            for key_id, secret in await keys("revoked", "much", REVOKED):
                self.revoked.append(secret)
                assert await gateway.keys.revoke(None, key_id)
        secrets = [mint_secret("live", number.to_bytes(32, "big")) for number in range(UNSEEN + needs.more_keys)]
        await add_keys(self.postgres, "good0", [secret_digest(secret.encode()) for secret in secrets])
        self.unseen = secrets[:UNSEEN]
        if needs.is_issuer_away:
            self.unseen = [self.issuers[1].token(f"user{number}") for number in range(UNSEEN)]

    @contextmanager
    def host(self, name: str, redis: str) -> Iterator[Host]:
        folder = self.folder / name
        (folder / "tmp").mkdir(parents=True)
        (folder / "sitecustomize.py").write_text(_CLOCK.format(path=str(folder / "ahead")))
        environment = {
            "MACHPAY_DATABASE": self.database,
            "MACHPAY_UPSTREAMS__LIVE": ",".join(f"http://{HOST}:{upstream.port}" for upstream in self.upstreams),
            "TMPDIR": str(folder / "tmp"),
            "PYTHONPATH": str(folder),
        }
        settings = _SETTINGS.format(redis=redis, much=MUCH, more=MORE, little=LITTLE)
        settings += "".join(_ISSUER.format(issuer=issuer, audience=AUDIENCE) for issuer in self.issuers)
        with served(folder, settings=settings, management=f"{HOST}:0", environ=environment) as gateway:
            yield Host(gateway, environment)


@contextmanager
def running_deployment(folder: Path, needs: Needs) -> Iterator[Deployment]:
    """Run two hosts, with *needs*."""
    with ExitStack() as stack:
        postgres = stack.enter_context(running_postgres())
        asyncio.run(migrate(postgres.make_database(DATABASE)))
        if needs.is_cluster:
            cluster = stack.enter_context(running_cluster("--cluster-require-full-coverage", "no"))
            redis, url = cluster.servers[0], cluster.url
        else:
            cluster, redis = None, stack.enter_context(running_server(users={USER: ()}))
            url = redis.url_for(USER)
        proxy = stack.enter_context(FaultProxy(redis.port))
        if needs.is_proxied:
            url = url.replace(f":{redis.port}/", f":{proxy.port}/")
        issuers, upstreams = [TokenIssuer(), TokenIssuer()], [Upstream(), Upstream()]
        deployment = Deployment(folder, postgres, redis, proxy, issuers, upstreams, cluster)
        for issuer in issuers:
            issuer.start()
            stack.callback(issuer.stop)
        if needs.is_issuer_away:
            issuers[1].stop()
        for upstream in upstreams:
            upstream.start()
            stack.callback(upstream.kill)
        asyncio.run(deployment.make_keys(needs))
        if needs.is_redis_away:
            redis.kill()
        for name in ("first", "second"):
            deployment.hosts.append(stack.enter_context(deployment.host(name, url)))
        yield deployment
