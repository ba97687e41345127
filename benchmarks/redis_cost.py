"""What a decision costs Redis: time by its own count, memory for a full window, commands for a key that is spent."""

import time
from collections.abc import Iterator
from statistics import median
from typing import Any

from redis import Redis

from machpay_gateway.core.limits.plan import tier_plan
from machpay_gateway.core.limits.rate import TIERS, Tier
from machpay_gateway.limiters.redis.scripts import Scripts
from machpay_gateway.limiters.redis.steps import pack_step

_DECISIONS = 20_000
_WORKERS = 4
_CELLS = 61


def microseconds_per_decision(client: Redis, steps_per_call: int) -> float:
    """Return the time that `INFO commandstats` has for one decision, where a call carries *steps_per_call*."""
    script = client.script_load(Scripts().admit.source)
    keys = [f"cost:{number:022d}" for number in range(steps_per_call)]
    tier = TIERS["enterprise"]
    step = pack_step(tier_plan(Tier(f"{10**9}/minute", tier.concurrency)), (1, 1, 1), [0])
    client.config_resetstat()
    for _ in range(_DECISIONS // steps_per_call // 20):
        with client.pipeline(transaction=False) as pipeline:
            for _ in range(20):
                pipeline.evalsha(script, steps_per_call, *keys, "worker", 10, *[step] * steps_per_call)
            pipeline.execute()
    stats: dict[str, Any] = client.info("commandstats")["cmdstat_evalsha"]
    return float(stats["usec_per_call"]) / steps_per_call


def bytes_of_a_full_window(client: Redis) -> int:
    """Return the `MEMORY USAGE` of an enterprise subject with units in all cells, held by several workers."""
    key, tier = "full:0000000000000000000000", TIERS["enterprise"]
    for source in _at_every_second(Scripts().admit.source):
        script = client.script_load(source)
        for worker in range(_WORKERS):
            wanted = tier.limit // _CELLS // _WORKERS
            step = pack_step(tier_plan(Tier(f"{tier.limit}/minute", 10**6)), (1, 1, wanted), [100])
            client.evalsha(script, 1, key, f"worker-{worker}abc", 10, step)
    return int(client.memory_usage(key) or 0)


def round_trip_milliseconds(client: Redis) -> float:
    """Return the median time of a PING, from a client that does nothing else."""
    taken = []
    for _ in range(2000):
        began = time.perf_counter()
        client.ping()
        taken.append(time.perf_counter() - began)
    return median(taken) * 1000


def _at_every_second(source: str) -> Iterator[str]:
    """Yield the script with the clock at each second of a minute, for a server cannot be made to wait."""
    now = int(time.time())
    for second in range(_CELLS):
        yield source.replace("redis.call('TIME')", f"{{ '{now + second}', '0' }}")
