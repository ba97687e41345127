"""What a decision costs Redis: time by its own count, memory for a full window, commands for a key that is spent."""

import time
from collections.abc import Iterator
from statistics import median
from typing import Any

from redis import Redis

from machpay_gateway.core.limits.calendar import DAY_SECONDS
from machpay_gateway.core.limits.plan import Plan
from machpay_gateway.core.limits.ports import StoredUnits
from machpay_gateway.limiters.redis.scripts import Scripts
from machpay_gateway.limiters.redis.steps import Moment, pack_step

_DECISIONS = 20_000
_WORKERS = 4
_CELLS = 61


def microseconds_per_decision(client: Redis, plan: Plan, steps_per_call: int) -> float:
    """Return the time that `INFO commandstats` has for one decision by *plan*, in calls of *steps_per_call*."""
    script = client.script_load(Scripts().admit.source)
    keys = [f"cost:{number:022d}" for number in range(steps_per_call * len(plan.parts))]
    step = _step(plan, 1, held=0)
    client.config_resetstat()
    for _ in range(_DECISIONS // steps_per_call // 20):
        with client.pipeline(transaction=False) as pipeline:
            for _ in range(20):
                pipeline.evalsha(script, len(keys), *keys, "worker", 10, *[step] * steps_per_call)
            pipeline.execute()
    stats: dict[str, Any] = client.info("commandstats")["cmdstat_evalsha"]
    return float(stats["usec_per_call"]) / steps_per_call


def bytes_of_full_windows(client: Redis, plan: Plan) -> int:
    """Return the most `MEMORY USAGE` of a subject of *plan* with units in all cells, held by several workers."""
    keys = [f"full:{number:022d}" for number in range(len(plan.parts))]
    client.delete(*keys)
    for source in _at_every_second(Scripts().admit.source):
        script = client.script_load(source)
        for worker in range(_WORKERS):
            client.evalsha(script, len(keys), *keys, f"worker-{worker}abc", 10, _step(plan, 40, held=100))
    return max(int(client.memory_usage(key) or 0) for key in keys)


def round_trip_milliseconds(client: Redis) -> float:
    """Return the median time of a PING, from a client that does nothing else."""
    taken = []
    for _ in range(2000):
        began = time.perf_counter()
        client.ping()
        taken.append(time.perf_counter() - began)
    return median(taken) * 1000


def _step(plan: Plan, wanted: int, *, held: int) -> bytes:
    """Return the step for *wanted* requests of cost 1 by a worker that holds *held* slots of each subject."""
    counts = {index: [StoredUnits(0, 0)] * len(part.limits.quotas) for index, part in enumerate(plan.parts)}
    today = int(time.time() // DAY_SECONDS)
    return pack_step(plan, (1, 0, 1, wanted), [held] * len(plan.parts), moment=Moment(today, 0), seeds=counts)


def _at_every_second(source: str) -> Iterator[str]:
    """Yield the script with the clock at each second of a minute, for a server cannot be made to wait."""
    now = int(time.time())
    for second in range(_CELLS):
        yield source.replace("redis.call('TIME')", f"{{ '{now + second}', '0' }}")
