"""Judges servers by what they report of themselves: a plain function for each subject.

Most warn of problems that would only appear later: at the first restart, when memory is full, when a command is first
needed.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from redis.exceptions import ResponseError

from machpay_gateway.core.check_result import CheckResult, CheckStatus
from machpay_gateway.limiters.redis.connection import REPLY_TIMEOUT_SECONDS
from machpay_gateway.limiters.redis.refusals import IN_CLUSTER, AccessRefusedError, LimiterUse, explain

_SLOW_SECONDS = 0.005  # every request waits this long for its decision
_SKEW_SECONDS = 1.0
_NEARLY_FULL = 0.9
_OLDEST_VERSION = [6, 2]


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What one server reports of itself; None for what it does not let us read."""

    name: str  # "" when it is unknown
    refusals: Sequence[ResponseError] = ()  # of commands that the limiter runs
    info: Mapping[str, str] | None = None
    snapshots: str | None = None  # their schedule, "" for never
    cluster: Mapping[str, str] | None = None
    round_trips: Sequence[float] = ()  # in seconds
    ahead_seconds: float | None = None  # by which its clock is ahead of this host's


Check = Callable[[ServerFacts, LimiterUse], CheckResult | None]


def check_results(servers: Sequence[ServerFacts], use: LimiterUse) -> Sequence[CheckResult]:
    """Return the results for *servers*; where they differ, each result names its servers."""
    results = [result for check in CHECKS for result in _of_each(check, servers, use)]
    slowest = max(servers, key=lambda server: median(server.round_trips or [0.0]))
    furthest = max(servers, key=lambda server: abs(server.ahead_seconds or 0.0))
    for result, server in ((latency(slowest), slowest), (clock(furthest), furthest)):
        if result is not None:
            results.append(_with_names(result, [server]) if len(servers) > 1 else result)
    return results


def access(server: ServerFacts, use: LimiterUse) -> CheckResult:
    """Return whether the server runs the limiter's commands."""
    refusal = explain(AccessRefusedError(server.refusals), use)
    if (server.info or {}).get("cluster_enabled") == "1" and not use.in_cluster:
        refusal = IN_CLUSTER
    if refusal is not None:
        return CheckResult("redis access", CheckStatus.WRONG, refusal.message, refusal.way_out)
    return CheckResult("redis access", CheckStatus.OK, f"all needed commands are allowed on keys {use.prefix}:*")


def version(server: ServerFacts, _use: LimiterUse) -> CheckResult:
    """Return whether the server's version is supported."""
    if server.info is None:
        message = "its version, memory and persistence cannot be read: the user may not run INFO"
        remedy = "`ACL SETUSER USER +info` lets them be checked; the limiter does not need it"
        return CheckResult("redis version", CheckStatus.WARNING, message, remedy)
    if server.info.get("server_name") == "valkey":
        message = f"Valkey {server.info.get('valkey_version', 'of unknown version')}"
        return CheckResult("redis version", CheckStatus.OK, message)
    message = f"Redis {server.info.get('redis_version', 'of unknown version')}"
    if [int(number) for number in re.findall(r"\d+", message)[:2]] < _OLDEST_VERSION:
        remedy = "run Redis 6.2 or later, or Valkey"
        return CheckResult("redis version", CheckStatus.WRONG, f"{message} is too old", remedy)
    return CheckResult("redis version", CheckStatus.OK, message)


def cluster(server: ServerFacts, use: LimiterUse) -> CheckResult | None:
    """Return whether a Cluster serves all slots."""
    if not use.in_cluster:
        return None
    if server.cluster is None:
        message = "its state cannot be read: the user may not run CLUSTER INFO"
        return CheckResult("redis cluster", CheckStatus.OK, message)
    state, primaries = server.cluster.get("cluster_state"), server.cluster.get("cluster_size")
    message = f"state {state}, {primaries} primar{'y' if primaries == '1' else 'ies'}"
    if state == "ok":
        return CheckResult("redis cluster", CheckStatus.OK, message)
    message += f", {server.cluster.get('cluster_slots_ok')} of 16384 slots served"
    remedy = "`redis-cli --cluster check HOST:PORT` shows what is missing"
    return CheckResult("redis cluster", CheckStatus.WRONG, message, remedy)


def memory(server: ServerFacts, use: LimiterUse) -> CheckResult | None:
    """Return what happens to counters when memory is full: each has a TTL, so every policy but one may evict them."""
    if server.info is None:
        return None
    policy, limit = server.info.get("maxmemory_policy", "unknown"), int(server.info.get("maxmemory", 0))
    if limit == 0:
        return CheckResult("redis memory", CheckStatus.OK, "no maxmemory is set, so nothing is evicted")
    share = min(1.0, int(server.info.get("used_memory", 0)) / limit)
    message = f"{policy}, {share:.0%} of maxmemory used"
    if policy != "noeviction":
        message += ": when it is full, counters are evicted and their windows start over"
        return CheckResult("redis memory", CheckStatus.WARNING, message, "`CONFIG SET maxmemory-policy noeviction`")
    if share > _NEARLY_FULL:
        message += f": when it is full, writes are refused and {use.failure_mode}"
        return CheckResult("redis memory", CheckStatus.WARNING, message, "raise its `maxmemory`, or make room in it")
    return CheckResult("redis memory", CheckStatus.OK, message)


def persistence(server: ServerFacts, _use: LimiterUse) -> CheckResult | None:
    """Return which counters survive a restart. None must, so no result here is worse than OK."""
    if server.info is None:
        return None
    count = int(server.info.get("connected_slaves", 0))
    replicas = f"{count or 'no'} replica{'' if count == 1 else 's'}"
    if server.info.get("aof_enabled") == "1":
        return CheckResult("redis persistence", CheckStatus.OK, f"an append-only file, {replicas}")
    if server.snapshots:
        message = f"snapshots, {replicas}: a restart loses what was counted since the last one"
        return CheckResult("redis persistence", CheckStatus.OK, message)
    files = "nothing is written to disk"
    if server.snapshots is None:
        files = "no append-only file, and whether there are snapshots cannot be read (CONFIG GET is refused)"
    message = f"{files}, {replicas}: after a restart without a replica to take over, windows start over"
    return CheckResult("redis persistence", CheckStatus.OK, message, "where that matters: `CONFIG SET appendonly yes`")


def latency(server: ServerFacts) -> CheckResult | None:
    """Return how long a decision waits for the server."""
    if not server.round_trips:
        return None
    middle, longest = median(server.round_trips), max(server.round_trips)
    message = f"median {middle * 1000:.1f} ms, worst {longest * 1000:.1f} ms of {len(server.round_trips)} round trips"
    if middle > REPLY_TIMEOUT_SECONDS:
        message += f": a decision waits {REPLY_TIMEOUT_SECONDS * 1000:.0f} ms, then it is made without Redis"
        return CheckResult("redis latency", CheckStatus.WRONG, message, "run the gateway near to it")
    if middle > _SLOW_SECONDS or longest > REPLY_TIMEOUT_SECONDS:
        remedy = "run the gateway near to it; `SLOWLOG GET` shows what else keeps it busy"
        return CheckResult("redis latency", CheckStatus.WARNING, f"{message}: requests wait for it", remedy)
    return CheckResult("redis latency", CheckStatus.OK, message)


def clock(server: ServerFacts) -> CheckResult | None:
    """Return the skew of its clock. Windows go by its clock alone, a key's expiry by the gateway's."""
    if server.ahead_seconds is None:
        return None
    if abs(server.ahead_seconds) <= _SKEW_SECONDS:
        return CheckResult("redis clock", CheckStatus.OK, f"within {_SKEW_SECONDS:.0f} s of this host's")
    direction = "ahead of" if server.ahead_seconds > 0 else "behind"
    skew = f"{abs(server.ahead_seconds):.1f} s {direction} this host's"
    message = f"{skew}: limits do not depend on it, comparing logs does"
    return CheckResult("redis clock", CheckStatus.WARNING, message, "set the clocks of both by NTP")


CHECKS: Sequence[Check] = (access, version, cluster, memory, persistence)


def _of_each(check: Check, servers: Sequence[ServerFacts], use: LimiterUse) -> Iterator[CheckResult]:
    by_result: dict[CheckResult, list[ServerFacts]] = {}
    for server in servers:
        if (result := check(server, use)) is not None:
            by_result.setdefault(result, []).append(server)
    for result, of_result in by_result.items():
        yield result if len(by_result) == 1 else _with_names(result, of_result)


def _with_names(result: CheckResult, servers: Sequence[ServerFacts]) -> CheckResult:
    return replace(result, message=f"{', '.join(server.name for server in servers)}: {result.message}")
