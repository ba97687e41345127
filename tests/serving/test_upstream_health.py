"""Health checks of upstream servers: what takes one out, what brings it back, and how workers share the results."""

import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

import pytest

from machpay_gateway import Gateway
from machpay_gateway.core.decision.route_options import RouteOptions
from machpay_gateway.core.network.service import UpstreamService
from machpay_gateway.core.network.upstream import Upstream as UpstreamServers
from machpay_gateway.core.network.upstream_options import HealthCheck, UpstreamOptions
from machpay_gateway.proxy.pool import ServerPool
from machpay_gateway.proxy.routing import UpstreamRouter
from machpay_gateway.serving import upstream_health
from machpay_gateway.serving.readiness import checks_of, status_of
from machpay_gateway.serving.upstream_health import UpstreamHealth
from tests.proxy.harness import Upstream, deaf
from tests.proxy.http2.test_upstreams import Http2Server
from tests.redises.servers import running_server
from tests.serving.processes import served
from tests.serving.test_lifecycle import ask, status
from tests.serving.test_lifecycle import until as until_it_holds
from tests.serving.test_metrics import ANYWHERE, value

CHECK = HealthCheck("/healthz?x=1", interval_seconds=0.1, timeout_seconds=0.3, unhealthy=3, healthy=2)
PATIENCE_SECONDS = 10


@pytest.fixture(autouse=True)
def polls_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_health, "_POLL_SECONDS", 0.05)


@dataclass
class Server(Upstream):
    """An upstream that answers checks with its *statuses*, the last one for ever."""

    statuses: list[int] = field(default_factory=lambda: [200])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)
        writer.close()


@asynccontextmanager
async def checked(
    folder: Path, *upstreams: Upstream | Http2Server, check: HealthCheck = CHECK, scheme: str = "http"
) -> AsyncIterator[ServerPool]:
    """Yield the pool of one worker."""
    options = UpstreamOptions(health=check)
    urls = [f"{scheme}://127.0.0.1:{upstream.port}" for upstream in upstreams]
    router = UpstreamRouter({None: UpstreamService({"live": UpstreamServers.of(urls, options)})}, None, RouteOptions())
    health = UpstreamHealth(router.pools, folder)
    health.start()
    try:
        yield router.pools["live"]
    finally:
        await health.close()
        router.close()


async def until(claim: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not claim():  # noqa: ASYNC110 - what is waited for knows of no event
            await asyncio.sleep(0.005)


def _lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_server_is_out_after_failures_in_a_row_and_back_after_successes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    statuses = [200, 503, 503, 200, 503, 503, 503, 200, 503, 204, 299, 200]
    async with Server() as good, Server(statuses=statuses) as bad, checked(tmp_path, good, bad) as pool:
        seen: list[tuple[int, bool]] = []

        def watch() -> bool:
            now = (len(bad.heads), pool.servers[1].is_healthy)
            if not seen or seen[-1] != now:
                seen.append(now)
            return len(bad.heads) >= 12

        await until(watch)
        out = [count for count, is_healthy in seen if not is_healthy]
        assert set(range(8, 11)) <= set(out) <= set(range(7, 12))  # a result comes after its request
        assert pool.servers[0].is_healthy
        assert _lines(caplog) == [
            f"Upstream http://127.0.0.1:{bad.port} is out: its health check got status 503.",
            f"Upstream http://127.0.0.1:{bad.port} is back: its health checks succeed.",
        ]
        host = f"Host: 127.0.0.1:{bad.port}\r\n".encode()
        assert all(head.startswith(b"GET /healthz?x=1 HTTP/1.1\r\n" + host) for head in bad.heads)


async def test_the_first_result_counts_at_once(tmp_path: Path) -> None:
    async with Server() as good, Server(statuses=[302]) as bad:
        check = HealthCheck("/", interval_seconds=60.0)
        async with checked(tmp_path, good, bad, check=check) as pool:
            await until(pool.problems)
            assert {pool.pick() for _ in range(4)} == {pool.servers[0]}


@pytest.mark.parametrize("statuses, is_healthy", [([503], True), ([200, 503], True), ([200], False), ([], False)])
async def test_which_statuses_a_healthy_server_has_is_a_setting(
    tmp_path: Path, statuses: list[int], *, is_healthy: bool
) -> None:
    check = HealthCheck("/", interval_seconds=0.1, statuses=statuses)
    async with Server(statuses=[503]) as one, checked(tmp_path, one, check=check) as pool:
        await until(lambda: len(one.heads) > 1)
        assert (not pool.problems()) is is_healthy


async def test_silent_closed_and_strange_servers_are_out(tmp_path: Path) -> None:
    async def strange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"SSH-2.0-OpenSSH\r\n")

    async def hung(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with Upstream() as closed:
        pass
    with deaf() as silent:
        async with (
            Upstream(strange) as other,
            Upstream(hung) as hanging,
            checked(tmp_path, closed, silent, other, hanging) as pool,
        ):
            await until(lambda: len(pool.problems()) == 4)
            assert list(pool.problems().values()) == [
                "its health check failed: Connection refused",
                "its health check got no response within 0.3 s",
                "its health check failed: not a response of HTTP/1",
                "its health check got no response within 0.3 s",
            ]


async def test_servers_of_http2_are_checked_over_streams(tmp_path: Path) -> None:
    statuses = {"200": ""}
    upstream = Http2Server(lambda call: call.respond([(":status", next(reversed(statuses)))], b"no"))
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    upstream.port = server.sockets[0].getsockname()[1]
    async with server, checked(tmp_path, upstream, scheme="h2c") as pool:
        await until(lambda: len(upstream.calls) > 1)
        assert not pool.problems()
        statuses["503"] = ""
        await until(pool.problems)
        assert list(pool.problems().values()) == ["its health check got status 503"]
        del statuses["503"]
        await until(lambda: not pool.problems())
        assert {(call.fields[":path"], call.fields[":authority"]) for call in upstream.calls} == {
            ("/healthz?x=1", f"127.0.0.1:{upstream.port}")
        }
        for connection in upstream.connections:
            connection.writer.close()


async def test_one_worker_checks_for_all_and_another_one_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Server() as good, Server(statuses=[503]) as bad:
        urls = [f"http://127.0.0.1:{bad.port}"]
        async with checked(tmp_path, good, bad) as follower_of_later:
            async with checked(tmp_path, good, bad) as follower:
                await until(lambda: list(follower_of_later.problems()) == list(follower.problems()) == urls)
            assert len(_lines(caplog)) == 1
            count = len(good.heads)
            await until(lambda: len(good.heads) > count + 2)
        async with checked(tmp_path, good, bad) as first, checked(tmp_path, good, bad) as second:
            await until(lambda: list(first.problems()) == list(second.problems()) == urls)
            bad.statuses[0] = 200
            await until(lambda: not first.problems() and not second.problems())
        assert len(_lines(caplog)) == 2  # one for each change, whoever checks


async def test_the_next_worker_to_check_knows_the_results_of_the_last(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = UpstreamOptions(health=HealthCheck("/", interval_seconds=0.1, unhealthy=100, healthy=100))
    async with Server(statuses=[503]) as bad:
        service = UpstreamService({"live": UpstreamServers.of([f"http://127.0.0.1:{bad.port}"], options)})
        routers = [UpstreamRouter({None: service}, None, RouteOptions()) for _ in range(2)]
        first, second = (UpstreamHealth(router.pools, tmp_path) for router in routers)
        first.start()
        await until(routers[0].pools["live"].problems)
        second.start()
        await first.close()
        bad.statuses[0] = 200  # one success does not bring it back
        count = len(bad.heads)
        await until(lambda: len(bad.heads) > count + 2)
        assert routers[1].pools["live"].problems()
        await second.close()
        assert len(_lines(caplog)) == 1


async def test_workers_with_other_settings_check_by_themselves(tmp_path: Path) -> None:
    other = HealthCheck("/other", interval_seconds=0.1)
    async with Server() as one, checked(tmp_path, one), checked(tmp_path, one, check=other):
        await until(lambda: {head.split()[1] for head in one.heads} == {b"/healthz?x=1", b"/other"})


async def test_readiness_is_degraded_while_a_server_is_out_and_never_not_ready(tmp_path: Path) -> None:
    async with (
        Gateway(database="memory://") as gateway,
        Server() as good,
        Server(statuses=[503]) as bad,
        checked(tmp_path, good, bad) as pool,
    ):

        async def readiness() -> tuple[str, str]:
            checks = await checks_of(gateway, is_draining=False, pools={"live": pool})
            return status_of(checks), checks["upstreams"]

        await until(lambda: len(pool.problems()) == 1)
        why = f"http://127.0.0.1:{bad.port}: its health check got status 503"
        assert await readiness() == (
            "degraded",
            f"degraded: 1 of 2 servers of `live` out ({why}); the others get its requests.",
        )
        good.statuses[0] = 500
        await until(lambda: len(pool.problems()) == 2)
        status, text = await readiness()
        assert status == "degraded"
        assert text.endswith("requests are tried there nevertheless.")
        good.statuses[0] = bad.statuses[0] = 200
        await until(lambda: not pool.problems())
        assert await readiness() == ("ready", "ok")


def test_served_workers_share_the_checks_and_show_what_is_out(tmp_path: Path) -> None:
    health = '[upstreams.health]\npath = "/public/health"\ninterval_seconds = 0.2\nstatuses = [204]\n'

    def lines() -> list[str]:
        return [line for line in gateway.log.splitlines() if "is out: its health check got status 200." in line]

    with running_server() as redis:
        settings = f'redis = "{redis.url}"\n[server]\nworkers = 2\nlog_format = "json"\n{health}'
        with served(tmp_path, settings=settings, management=ANYWHERE) as gateway:
            until_it_holds(lambda: value(gateway, "machpay_upstream_server_up", upstream="live") == 0)
            for _ in range(10):  # whichever worker
                with urlopen(f"{gateway.management}/readyz") as response:  # noqa: S310 - of ours
                    document = json.loads(response.read())
                assert document["status"] == "degraded"
                assert "its health check got status 200" in document["checks"]["upstreams"]
                assert status(ask(gateway, "/public/x")) == 200  # there is no other server
            (line,) = lines()
            os.kill(json.loads(line)["worker"], signal.SIGKILL)
            until_it_holds(lambda: "died with status" in gateway.log and value(gateway, "machpay_workers") == 2)
            assert value(gateway, "machpay_upstream_server_up", upstream="live") == 0
            assert lines() == [line]
