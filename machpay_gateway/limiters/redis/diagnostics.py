"""What is well about servers and what is not, by what they say of themselves: a plain function for each subject.

Most warn of what would only show later: at the first restart, when memory is full, when a command is first needed.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from redis.exceptions import MovedError, NoPermissionError, OutOfMemoryError, ReadOnlyError, ResponseError

from machpay_gateway.core.check_result import CheckResult, CheckStatus
from machpay_gateway.limiters.redis.batcher import ANSWER_SECONDS

_SLOW_SECONDS = 0.005  # a decision waits this long for the server, and a request for the decision
_SKEW_SECONDS = 1.0
_NEARLY_FULL = 0.9
_OLDEST = [6, 2]
_COMMAND = re.compile(r"'([^']+)' command")  # in a refusal of a command; one of a key names none

# All that the limiter does there, as ACL rules have it: to connect, and in its scripts.
_RIGHTS = (
    *("client|setname", "select", "eval", "evalsha", "time", "expire", "ttl", "zadd", "zcard", "zrem"),
    *("zremrangebyscore", "hdel", "hexists", "hget", "hgetall", "hincrby", "hmget", "hset"),
)
_CLUSTER_RIGHTS = ("cluster|slots", "asking")


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What one server says of itself; None is what it does not say to us."""

    name: str  # "" when that is not known
    refusals: Sequence[ResponseError] = ()  # of what the limiter does there
    info: Mapping[str, str] | None = None
    snapshots: str | None = None  # when they are made, "" for never
    cluster: Mapping[str, str] | None = None
    round_trips: Sequence[float] = ()  # in seconds
    ahead_seconds: float | None = None  # its clock, of this host's


@dataclass(frozen=True, slots=True)
class Setting:
    """How the limiter uses the servers, as far as it matters here."""

    prefix: str
    on_failure: str
    in_cluster: bool = False

    @property
    def without(self) -> str:
        """What becomes of limits while no server takes writes."""
        return f'on_limiter_failure = "{self.on_failure}" decides'

    @property
    def grant(self) -> str:
        """The command that gives a user every right that the limiter needs, whichever is missing."""
        rights = _RIGHTS + (_CLUSTER_RIGHTS if self.in_cluster else ())
        return f"`ACL SETUSER USER ~{self.prefix}:* {' '.join(f'+{right}' for right in rights)}`"


Judge = Callable[[ServerFacts, Setting], CheckResult | None]


def judged(servers: Sequence[ServerFacts], setting: Setting) -> Sequence[CheckResult]:
    """Return what is found of *servers*; where they differ, each finding says whose it is."""
    findings = [finding for judge in JUDGES for finding in _of_each(judge, servers, setting)]
    slowest = max(servers, key=lambda told: median(told.round_trips or [0.0]))
    furthest = max(servers, key=lambda told: abs(told.ahead_seconds or 0.0))
    for finding, told in ((latency(slowest), slowest), (clock(furthest), furthest)):
        if finding is not None:
            findings.append(_of(finding, [told]) if len(servers) > 1 else finding)
    return findings


def access(told: ServerFacts, setting: Setting) -> CheckResult:
    """Return whether the limiter may do there what it does."""
    kinds = {type(refusal) for refusal in told.refusals}
    if MovedError in kinds or ((told.info or {}).get("cluster_enabled") == "1" and not setting.in_cluster):
        return _wrong_access("it is one node of a Cluster", "write `redis` as redis+cluster://HOST:PORT")
    if ReadOnlyError in kinds:
        way_out = "name its primary, or let it be found by redis+sentinel:// or redis+cluster://"
        return _wrong_access("it is a replica and takes no writes", way_out)
    if NoPermissionError in kinds:
        return _forbidden(told.refusals, setting)
    if OutOfMemoryError in kinds:
        found = f"its memory is full, so it refuses writes: {setting.without}"
        return _wrong_access(found, "raise its `maxmemory`, or make room in it")
    if told.refusals:
        found = f"it refuses what the limiter does ({told.refusals[0]}): {setting.without}"
        return _wrong_access(found, "see its log")
    return CheckResult("redis access", CheckStatus.OK, f"all that is needed may be done with keys {setting.prefix}:*")


def version(told: ServerFacts, _setting: Setting) -> CheckResult:
    """Return whether the server is one that we know."""
    if told.info is None:
        found = "its version, memory and persistence cannot be read: the user may not run INFO"
        way_out = "`ACL SETUSER USER +info` lets them be checked; the limiter does not need it"
        return CheckResult("redis version", CheckStatus.WARNING, found, way_out)
    if told.info.get("server_name") == "valkey":
        return CheckResult(
            "redis version", CheckStatus.OK, f"Valkey {told.info.get('valkey_version', 'of no version')}"
        )
    found = f"Redis {told.info.get('redis_version', 'of no version')}"
    if [int(number) for number in re.findall(r"\d+", found)[:2]] < _OLDEST:
        return CheckResult(
            "redis version", CheckStatus.WRONG, f"{found} is too old", "run Redis 6.2 or later, or Valkey"
        )
    return CheckResult("redis version", CheckStatus.OK, found)


def cluster(told: ServerFacts, setting: Setting) -> CheckResult | None:
    """Return whether a Cluster serves all slots."""
    if not setting.in_cluster:
        return None
    if told.cluster is None:
        return CheckResult(
            "redis cluster", CheckStatus.OK, "its state cannot be read: the user may not run CLUSTER INFO"
        )
    state, primaries = told.cluster.get("cluster_state"), told.cluster.get("cluster_size")
    found = f"state {state}, {primaries} primar{'y' if primaries == '1' else 'ies'}"
    if state == "ok":
        return CheckResult("redis cluster", CheckStatus.OK, found)
    found += f", {told.cluster.get('cluster_slots_ok')} of 16384 slots served"
    return CheckResult(
        "redis cluster", CheckStatus.WRONG, found, "`redis-cli --cluster check HOST:PORT` says what is missing"
    )


def memory(told: ServerFacts, setting: Setting) -> CheckResult | None:
    """Return what becomes of counters when memory is full: each has a TTL, so every policy but one may take them."""
    if told.info is None:
        return None
    policy, most = told.info.get("maxmemory_policy", "unknown"), int(told.info.get("maxmemory", 0))
    if most == 0:
        return CheckResult("redis memory", CheckStatus.OK, "no maxmemory is set, so nothing is thrown away")
    share = min(1.0, int(told.info.get("used_memory", 0)) / most)
    found = f"{policy}, {share:.0%} of maxmemory used"
    if policy != "noeviction":
        found += ": when it is full, counters are thrown away and their windows begin anew"
        return CheckResult("redis memory", CheckStatus.WARNING, found, "`CONFIG SET maxmemory-policy noeviction`")
    if share > _NEARLY_FULL:
        found += f": when it is full, writes are refused and {setting.without}"
        return CheckResult("redis memory", CheckStatus.WARNING, found, "raise its `maxmemory`, or make room in it")
    return CheckResult("redis memory", CheckStatus.OK, found)


def persistence(told: ServerFacts, _setting: Setting) -> CheckResult | None:
    """Return what a restart leaves of the counters. None need survive it, so nothing here is wrong."""
    if told.info is None:
        return None
    count = int(told.info.get("connected_slaves", 0))
    replicas = f"{count or 'no'} replica{'' if count == 1 else 's'}"
    if told.info.get("aof_enabled") == "1":
        return CheckResult("redis persistence", CheckStatus.OK, f"an append-only file, {replicas}")
    if told.snapshots:
        found = f"snapshots, {replicas}: a restart forgets what was counted since the last one"
        return CheckResult("redis persistence", CheckStatus.OK, found)
    kept = "nothing is kept on disk"
    if told.snapshots is None:
        kept = "no append-only file, and whether there are snapshots cannot be read (CONFIG GET is refused)"
    found = f"{kept}, {replicas}: a restart without a replica to take over begins windows anew"
    return CheckResult("redis persistence", CheckStatus.OK, found, "where that matters: `CONFIG SET appendonly yes`")


def latency(told: ServerFacts) -> CheckResult | None:
    """Return how long a decision waits for the server."""
    if not told.round_trips:
        return None
    middle, longest = median(told.round_trips), max(told.round_trips)
    found = f"median {middle * 1000:.1f} ms, worst {longest * 1000:.1f} ms of {len(told.round_trips)} round trips"
    if middle > ANSWER_SECONDS:
        found += f": a decision waits {ANSWER_SECONDS * 1000:.0f} ms, then it is made without"
        return CheckResult("redis latency", CheckStatus.WRONG, found, "run the gateway near to it")
    if middle > _SLOW_SECONDS or longest > ANSWER_SECONDS:
        way_out = "run the gateway near to it; `SLOWLOG GET` shows what else keeps it busy"
        return CheckResult("redis latency", CheckStatus.WARNING, f"{found}: requests wait for it", way_out)
    return CheckResult("redis latency", CheckStatus.OK, found)


def clock(told: ServerFacts) -> CheckResult | None:
    """Return how far its clock is off. Windows go by its clock alone, and a key's expiry by the gateway's."""
    if told.ahead_seconds is None:
        return None
    if abs(told.ahead_seconds) <= _SKEW_SECONDS:
        return CheckResult("redis clock", CheckStatus.OK, f"within {_SKEW_SECONDS:.0f} s of this host's")
    way = "ahead of" if told.ahead_seconds > 0 else "behind"
    found = f"{abs(told.ahead_seconds):.1f} s {way} this host's: limits do not depend on it, comparing logs does"
    return CheckResult("redis clock", CheckStatus.WARNING, found, "set the clocks of both by NTP")


JUDGES: Sequence[Judge] = (access, version, cluster, memory, persistence)


def _wrong_access(found: str, way_out: str) -> CheckResult:
    return CheckResult("redis access", CheckStatus.WRONG, found, way_out)


def _forbidden(refusals: Sequence[ResponseError], setting: Setting) -> CheckResult:
    forbidden = [_COMMAND.search(str(refusal)) for refusal in refusals if isinstance(refusal, NoPermissionError)]
    commands = ", ".join(sorted({match[1].upper().replace("|", " ") for match in forbidden if match}))
    told = [f"run {commands}"] if commands else []
    if None in forbidden:
        told.append(f"use keys {setting.prefix}:*")
    return _wrong_access(f"the user may not {', nor '.join(told)}", setting.grant)


def _of_each(judge: Judge, servers: Sequence[ServerFacts], setting: Setting) -> Iterator[CheckResult]:
    by_finding: dict[CheckResult, list[ServerFacts]] = {}
    for told in servers:
        if (finding := judge(told, setting)) is not None:
            by_finding.setdefault(finding, []).append(told)
    for finding, theirs in by_finding.items():
        yield finding if len(by_finding) == 1 else _of(finding, theirs)


def _of(finding: CheckResult, servers: Sequence[ServerFacts]) -> CheckResult:
    return replace(finding, found=f"{', '.join(told.name for told in servers)}: {finding.found}")
