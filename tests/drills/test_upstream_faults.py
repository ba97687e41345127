"""Servers of a pool fail under load: failed requests, and the seconds until none fails, beside Envoy in the same run.

The table is printed, and written to `UPSTREAM_FIGURES`, by default `build/upstreams.md`. `UPSTREAM_RATE` is the number
of requests a second, by default 100.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.drills.open_loop import Outcome, running_rate
from tests.drills.pool_servers import Pool, envoy, machpay, running_pool
from tests.drills.workers import ROOT

PER_SECOND = float(os.environ.get("UPSTREAM_RATE", "100"))
BEFORE_SECONDS, FAULT_SECONDS, AFTER_SECONDS = 4.0, 12.0, 5.0
SLOW_SECONDS = 1.0
_CERTIFICATE_SECONDS = BEFORE_SECONDS + FAULT_SECONDS  # until the first one expires, of those that are renewed
_OK = 200

_CHECKED = """
retry_statuses = [503]
eject_5xx_rate = 0.5
resolve_seconds = 2
[upstreams.health]
path = "/healthz"
interval_seconds = 1
timeout_seconds = 1
unhealthy = 2
[proxy]
first_byte_seconds = 2
"""
_CLUSTER = """    dns_refresh_rate: 2s
    ignore_health_on_host_removal: true
    outlier_detection: {}
    health_checks:
    - timeout: 1s
      interval: 1s
      unhealthy_threshold: 2
      healthy_threshold: 2
      http_health_check: { path: "/healthz" }
"""
_PREVIOUS_HOSTS = "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
_ROUTE = f"""                  timeout: 2s
                  retry_policy:
                    retry_on: "5xx,connect-failure,reset,refused-stream"
                    num_retries: 1
                    host_selection_retry_max_attempts: 5
                    retry_host_predicate:
                    - name: envoy.retry_host_predicates.previous_hosts
                      typed_config:
                        "@type": {_PREVIOUS_HOSTS}
"""
Start = Callable[[Path, Pool], AbstractContextManager[int]]
PROXIES: dict[str, Start] = {
    "MachPay": partial(machpay, options=""),
    "MachPay, checks and retries": partial(machpay, options=_CHECKED),
    "Envoy": partial(envoy, cluster="", route=""),
    "Envoy, checks and retries": partial(envoy, cluster=_CLUSTER, route=_ROUTE),
}


@contextmanager
def killed(pool: Pool) -> Iterator[None]:
    pool.servers[0].kill()
    yield
    pool.servers[0].start()


@contextmanager
def hung(pool: Pool) -> Iterator[None]:
    pool.servers[0].send(signal.SIGSTOP)
    yield
    pool.servers[0].send(signal.SIGCONT)


@contextmanager
def unavailable(pool: Pool) -> Iterator[None]:
    pool.servers[0].send(signal.SIGUSR1)
    yield
    pool.servers[0].send(signal.SIGUSR1)


@contextmanager
def moved(pool: Pool) -> Iterator[None]:
    """The name points to another server, and the old one ends 5 s later, as in a careful deployment."""
    pool.point_name_to(pool.servers[1])
    time.sleep(5.0)
    pool.servers[0].kill()
    yield


@contextmanager
def renewed(pool: Pool) -> Iterator[None]:
    """All servers load another certificate, before the first one expires."""
    pool.issue(3600.0)
    for server in pool.servers:
        server.send(signal.SIGUSR2)
    yield


@contextmanager
def halved(pool: Pool) -> Iterator[None]:
    for server in pool.servers[:2]:
        server.kill()
    yield
    for server in pool.servers[:2]:
        server.start()


FAULTS: dict[str, Callable[[Pool], AbstractContextManager[None]]] = {
    "a server is killed": killed,
    "a server hangs": hung,
    "a server answers 503": unavailable,
    "its name moves": moved,
    "its certificate is renewed": renewed,
    "half of the pool is gone": halved,
}
# With checks and retries: the greatest share of requests during a fault that may fail, and seconds until none does.
_BOUNDS = {
    "a server is killed": (0.005, 1.0),
    "a server hangs": (0.15, 6.0),
    "a server answers 503": (0.02, 5.0),
    "its name moves": (0.005, 6.0),
    "its certificate is renewed": (0.005, 1.0),
    "half of the pool is gone": (0.005, 1.0),
}


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    rows: list[str] = []
    yield rows
    head = (
        f"{PER_SECOND:g} requests a second to four servers; a fault of {FAULT_SECONDS:g} s. A request fails when its "
        f"status is not 200 or it takes more than {SLOW_SECONDS:g} s.\n\n"
        "| what fails | proxy | failed of all | seconds until none fails |\n| --- | --- | --- | --- |"
    )
    text = "\n".join([head, *rows]) + "\n"
    print(f"\n{text}")
    path = Path(os.environ.get("UPSTREAM_FIGURES", ROOT / "build" / "upstreams.md"))
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


@pytest.mark.drill
@pytest.mark.timeout(120)
@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("fault", FAULTS)
def test_requests_that_fail_with_servers_of_a_pool(fault: str, proxy: str, table: list[str], tmp_path: Path) -> None:
    seconds = BEFORE_SECONDS + FAULT_SECONDS + AFTER_SECONDS
    with (
        running_pool(
            tmp_path,
            is_named=FAULTS[fault] is moved,
            certificate_seconds=_CERTIFICATE_SECONDS if FAULTS[fault] is renewed else None,
        ) as pool,
        PROXIES[proxy](tmp_path, pool) as port,
        running_rate(tmp_path, [port], ["x"], PER_SECOND, seconds, connections=8) as rate,
    ):
        time.sleep(BEFORE_SECONDS)
        began_at = time.monotonic()
        with FAULTS[fault](pool):
            time.sleep(max(began_at + FAULT_SECONDS - time.monotonic(), 0.0))
        outcomes = asyncio.run(rate.outcomes())
    # Those in flight when it begins count. The load may be late with those before, since it has to start first.
    during = [outcome for outcome in outcomes if outcome.due >= began_at - 0.1]
    failed = [outcome for outcome in during if _failed(outcome)]
    recovered = max((outcome.due - began_at for outcome in failed), default=0.0)
    table.append(f"| {fault} | {proxy} | {len(failed)} of {len(during)} | {max(recovered, 0.0):.1f} |")
    print(f"\n{table[-1]} {dict(Counter(outcome.status for outcome in failed))}")
    if proxy == "MachPay, checks and retries":
        share, most_seconds = _BOUNDS[fault]
        assert len(failed) <= share * len(during)
        assert recovered <= most_seconds


def _failed(outcome: Outcome) -> bool:
    return outcome.status != _OK or outcome.came - outcome.due > SLOW_SECONDS
