"""What each further limit costs, in Redis and in a worker, and what a Cluster costs beside one server, in turns.

`python -m benchmarks.plans`, and a part of `make bench`.
"""

import asyncio
import gc
import time
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

import click
import uvloop
from redis import Redis
from rich.console import Console
from rich.table import Table

from benchmarks.processes import SERVER_CORE, alone, pinned_to, redis_cluster, redis_server
from benchmarks.redis_cost import bytes_of_full_windows, microseconds_per_decision
from benchmarks.report import WIDTH, table_of
from machpay_gateway.core.limits.admission import AdmissionRequest, Admitted
from machpay_gateway.core.limits.plan import Part, Plan, SubjectKind, plan_of
from machpay_gateway.core.limits.ports import Limiter
from machpay_gateway.core.limits.rate import Limits
from machpay_gateway.limiters.memory import MemoryLimiter
from machpay_gateway.limiters.redis import RedisLimiter

_DECISIONS = 12_800
_CALLERS = 64  # each with a key of its own
_KEYS_OF_AN_ACCOUNT = 4
_RESYNC_SECONDS = 2.1  # in which a limiter that has just connected still counts by itself, too
_STEPS = 20  # in a call


def _part(kind: SubjectKind, rates: Sequence[str], concurrency: int | None = None, quota: Sequence[str] = ()) -> Part:
    return Part(kind, Limits.parse(rates, concurrency, quota))


_MINUTE, _SECOND, _MONTH, _DAY = "900000000/minute", "900000000/second", "900000000000/month", "900000000000/day"
_OWN = _part("key", [_MINUTE], 500)
PLANS: Mapping[str, Plan] = {
    "minute, slots": plan_of((_OWN,)),
    "+ second": plan_of((_part("key", [_MINUTE, _SECOND], 500),)),
    "+ month": plan_of((_part("key", [_MINUTE], 500, [_MONTH]),)),
    "+ second, month": plan_of((_part("key", [_MINUTE, _SECOND], 500, [_MONTH]),)),
    "+ account: minute": plan_of((_OWN, _part("account", [_MINUTE]))),
    "+ account: minute, slots": plan_of((_OWN, _part("account", [_MINUTE], 500))),
    "+ account: minute, slots, month": plan_of((_OWN, _part("account", [_MINUTE], 500, [_MONTH]))),
    "+ the same, owner: minute, day": plan_of(
        (_OWN, _part("account", [_MINUTE], 500, [_MONTH]), _part("owner", [_MINUTE], None, [_DAY]))
    ),
}
_DEFAULT, *_ = PLANS
_IN_CLUSTER = (_DEFAULT, "+ account: minute, slots, month")


class _Taken(NamedTuple):
    """µs of CPU of one decision: of Redis, of a worker with it, and of a worker without."""

    redis: float
    worker: float
    embedded: float


class _Spent(NamedTuple):
    """µs of a server's CPU for one decision: of one server, and of a Cluster's node."""

    alone: float
    cluster: float


def plans_tables(console: Console, rounds: int) -> Iterator[Table]:
    """Measure every plan in *rounds* of turns, and yield the tables."""
    with alone(), redis_server() as (url, client), redis_cluster() as (cluster_url, cluster), pinned_to(SERVER_CORE):
        taken: dict[str, list[_Taken]] = {name: [] for name in PLANS}
        spent: dict[str, list[_Spent]] = {name: [] for name in _IN_CLUSTER}
        for number in range(1, rounds + 1):
            console.print(f"plans: round {number} of {rounds}", style="dim")
            for name, plan in PLANS.items():
                taken[name].append(_measured(client, url, plan))
            for name in _IN_CLUSTER:
                alone_spends = uvloop.run(_spent(client, url, PLANS[name]))
                spent[name].append(_Spent(alone_spends, uvloop.run(_spent(cluster, cluster_url, PLANS[name]))))
        yield _table(taken, {name: bytes_of_full_windows(client, plan) for name, plan in PLANS.items()})
        yield _cluster_table(spent)


async def _spent(client: Redis, url: str, plan: Plan) -> float:
    """Return the CPU time of the server at *url* for one decision, in µs: for all that it does, by its own count."""
    limiter = RedisLimiter(url, prefix="plans")
    await limiter.open()
    await asyncio.sleep(_RESYNC_SECONDS)
    requests = [_request(plan, number) for number in range(_CALLERS)]
    await _run(limiter, requests, 10)
    before = _cpu_seconds(client)
    await _run(limiter, requests, _DECISIONS // _CALLERS)
    spent = _cpu_seconds(client) - before
    await limiter.close()
    if limiter.counts:
        raise click.ClickException("Redis did not answer in time, so limits were decided without it: measure again.")
    return spent / _DECISIONS * 1e6


def _cpu_seconds(client: Redis) -> float:
    cpu: Any = client.info("cpu")
    return float(cpu["used_cpu_user"] + cpu["used_cpu_sys"])


def _measured(client: Redis, url: str, plan: Plan) -> _Taken:
    client.flushall()
    of_redis = microseconds_per_decision(client, plan, _STEPS)
    worker = uvloop.run(_worker(RedisLimiter(url, prefix="plans"), plan, _RESYNC_SECONDS))
    return _Taken(of_redis, worker, uvloop.run(_worker(MemoryLimiter(), plan, 0)))


async def _worker(limiter: Limiter, plan: Plan, settle_seconds: float) -> float:
    """Return this process' CPU time for one decision and its release, in µs."""
    await limiter.open()
    await asyncio.sleep(settle_seconds)
    requests = [_request(plan, number) for number in range(_CALLERS)]
    await _run(limiter, requests, 10)
    gc.collect()
    began = time.process_time()
    await _run(limiter, requests, _DECISIONS // _CALLERS)
    taken = time.process_time() - began
    await limiter.close()
    if limiter.counts:
        raise click.ClickException("Redis did not answer in time, so limits were decided without it: measure again.")
    return taken / _DECISIONS * 1e6


def _request(plan: Plan, number: int) -> AdmissionRequest:
    account = f"acct_{number // _KEYS_OF_AN_ACCOUNT}"
    others = tuple(f"{part.kind}:{account}" for part in plan.parts[1:])
    return AdmissionRequest(f"key_{number}", 1, plan, 1, others, account)


async def _run(limiter: Limiter, requests: Sequence[AdmissionRequest], times: int) -> None:
    async def call(request: AdmissionRequest) -> None:
        for _ in range(times):
            answer: Any = limiter.admit(request)
            if not isinstance(answer, Admitted):
                answer = await answer
            answer.lease.release()

    await asyncio.gather(*map(call, requests))


def _table(taken: Mapping[str, Sequence[_Taken]], sizes: Mapping[str, int]) -> Table:
    headings = ("Redis", "per limit", "worker", "per limit", "embedded", "per limit", "bytes")
    table = table_of(f"µs of CPU a decision, and of it each further limit ({_STEPS} in a call)", "plan", headings)
    base = _medians(taken[_DEFAULT])
    for name, samples in taken.items():
        further = _limits(PLANS[name]) - _limits(PLANS[_DEFAULT])
        cells = []
        for microseconds, first in zip(_medians(samples), base, strict=True):
            cells += [f"{microseconds:.1f}", f"{(microseconds - first) / further:.1f}" if further else ""]
        table.add_row(name, *cells, f"{sizes[name]}")
    return table


def _cluster_table(spent: Mapping[str, Sequence[_Spent]]) -> Table:
    table = table_of("µs of Redis' CPU a decision, all it does", "plan", ("one server", "Cluster", "of one server"))
    for name, samples in spent.items():
        alone_spends, cluster_spends = _medians(samples)
        table.add_row(name, f"{alone_spends:.1f}", f"{cluster_spends:.1f}", f"{cluster_spends / alone_spends:.0%}")
    return table


def _limits(plan: Plan) -> int:
    return len(plan.policies)


def _medians(samples: Sequence[tuple[float, ...]]) -> list[float]:
    return [median(column) for column in zip(*samples, strict=True)]


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Rounds; each measures every plan.")
def main(rounds: int) -> None:
    """Measure what each further limit costs."""
    console = Console(width=WIDTH)
    for table in plans_tables(console, rounds):
        console.print(table)


if __name__ == "__main__":
    main()
