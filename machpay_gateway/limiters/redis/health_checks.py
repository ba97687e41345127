"""Are the servers fit for the limiter? Asked by `machpay-gateway doctor`, over a link like the limiter's own.

Here they are asked; what is well about the answers is said by `fitness`. Nothing stays behind in the servers.
"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from secrets import token_hex
from typing import Any, cast
from urllib.parse import urlsplit

from redis.crc import key_slot
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError
from redis.sentinel import MasterNotFoundError

from machpay_gateway.core.check_result import CheckResult, CheckStatus
from machpay_gateway.limiters.redis.cluster import slots_in
from machpay_gateway.limiters.redis.diagnostics import ServerFacts, Setting, judged
from machpay_gateway.limiters.redis.link import Link, Reply, answer
from machpay_gateway.limiters.redis.link_supervisor import FAILURES
from machpay_gateway.limiters.redis.scripts import Scripts
from machpay_gateway.limiters.redis.servers import CONNECT_SECONDS, servers_for
from machpay_gateway.limiters.redis.wire import Argument

Command = tuple[Argument, ...]

_PATIENCE_SECONDS = 2.0  # for one answer: ten times what a decision waits, to tell a slow server from one that is away
_ROUNDS, _ROUNDS_SECONDS = 20, 2.0
_COLLECTED = re.compile(r" - \w+\((['\"])(.*?)\1\)")  # what each sentinel said, in redis-py's one message


def misread(url: str) -> CheckResult | None:
    """Return what is wrong when a part of the password would be read, and shown, as something else."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if "@" not in parts.path + parts.query + parts.fragment:
        return None
    found = "the URL has an @ behind a / or ? or #, so what is in front of it is not read as a password"
    return CheckResult("redis", CheckStatus.WRONG, found, "write those in a password as %40, %2F, %3F and %23")


async def redis_findings(
    url: str, *, prefix: str, on_failure: str, clock: Callable[[], float] = time.time
) -> Sequence[CheckResult]:
    """Return what is found of the servers that *url* names, and nothing of a password in it.

    Raises ConfigurationError when it cannot be meant.
    """
    servers, shown = servers_for(url), _shown(url)
    setting = Setting(prefix, on_failure, in_cluster="+cluster:" in shown)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            link = await servers.link()
    except FAILURES as exc:
        return [_not_reached(shown, exc, setting)]
    try:
        told = [await server.told(clock) for server in await _servers(link, prefix)]
        return [await _reached(link, shown, told, prefix), *judged(told, setting)]
    except FAILURES as exc:
        return [_not_reached(shown, exc, setting)]
    finally:
        await link.close()


@dataclass(frozen=True, slots=True)
class _CheckedServer:
    """One server behind *link*: the one that has the keys which begin with *base*."""

    link: Link
    base: bytes
    name: str

    async def told(self, clock: Callable[[], float]) -> ServerFacts:
        """Return what it says of itself."""
        refusals = await self._refused()
        save = cast("Sequence[bytes] | None", await self._said("CONFIG", "GET", "save"))
        round_trips, ahead_seconds = await self._timed(clock)
        return ServerFacts(
            self.name or _fields(await self._said("CLIENT", "INFO"), " ", "=").get("laddr", ""),
            refusals,
            info=_fields(await self._said("INFO"), "\r\n", ":") or None,
            snapshots=save[1].decode() if save else None,
            cluster=_fields(await self._said("CLUSTER", "INFO"), "\r\n", ":") or None,
            round_trips=round_trips,
            ahead_seconds=ahead_seconds,
        )

    async def _refused(self) -> Sequence[ResponseError]:
        """Do there what the limiter does, until something of a step is refused, and return what is."""
        # Nothing is made before it is known that it can be removed.
        for step in (_without_effect(self.base), _writing(self.base), _admission(self.base)):
            if refusals := await self._refusals(step):
                return refusals
        return ()

    async def _refusals(self, commands: Sequence[Command]) -> Sequence[ResponseError]:
        """Run *commands*, in order and all at once, and return those answers that are errors."""
        answers = await asyncio.gather(*(self._ask(command) for command in commands), return_exceptions=True)
        for failure in answers:
            if isinstance(failure, BaseException) and not isinstance(failure, ResponseError):
                raise failure
        return [refusal for refusal in answers if isinstance(refusal, ResponseError)]

    async def _timed(self, clock: Callable[[], float]) -> tuple[Sequence[float], float | None]:
        """Return round trips, and by the shortest of them how far its clock is ahead."""
        rounds: list[tuple[float, float]] = []
        began = time.perf_counter()
        while len(rounds) < _ROUNDS and time.perf_counter() - began < _ROUNDS_SECONDS:
            here, sent = clock(), time.perf_counter()
            # TIME and not PING: it costs the same, and the limiter needs no right to PING.
            said = cast("Sequence[bytes] | None", await self._said("TIME"))
            if said is None:
                return (), None
            seconds = time.perf_counter() - sent
            rounds.append((seconds, int(said[0]) + int(said[1]) / 1e6 - (here + seconds / 2)))
        return [seconds for seconds, _ in rounds], min(rounds)[1]

    async def _said(self, *command: Argument) -> Reply | None:
        """Return the reply to *command*, None when it is refused."""
        try:
            return await self._ask(command)
        except ResponseError:
            return None

    async def _ask(self, command: Command) -> Reply:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await answer(self.link, self.base, command)


async def _servers(link: Link, prefix: str) -> Sequence[_CheckedServer]:
    """Return every server that takes writes, each with keys of its own, which nobody else uses."""
    bases = (f"{prefix}:{{doctor-{token_hex(6)}-{number}}}".encode() for number in count())
    base = next(bases)
    if not link.splits:
        return [_CheckedServer(link, base, "")]
    async with asyncio.timeout(_PATIENCE_SECONDS):
        ranges = cast("list[list[Any]]", await answer(link, base, ("CLUSTER", "SLOTS")))
    owners = {slot: f"{host}:{port}" for slot, (host, port) in slots_in(ranges, "").items()}
    servers: dict[str, _CheckedServer] = {}
    while len(servers) < len(set(owners.values())):
        base = next(bases)
        name = owners[key_slot(base)]
        servers.setdefault(name, _CheckedServer(link, base, name))
    return [servers[name] for name in sorted(servers)]


def _without_effect(base: bytes) -> Sequence[Command]:
    """Return what the limiter's scripts do, on keys that do not exist: some of it comes only once a worker has died."""
    hash_key, set_key, beat = base + b":hash", base + b":set", Scripts().heartbeat
    return [
        ("TIME",),
        ("HGET", hash_key, "field"),
        ("HMGET", hash_key, "field"),
        ("HEXISTS", hash_key, "field"),
        ("HGETALL", hash_key),
        ("HDEL", hash_key, "field"),
        ("TTL", hash_key),
        ("EXPIRE", hash_key, 60),
        ("ZADD", set_key, "XX", 1, "worker"),
        ("ZREMRANGEBYSCORE", set_key, "-inf", 1),
        ("ZREM", set_key, "worker"),
        ("ZCARD", set_key),
        beat.call_in_full([set_key], ["worker", 0]),
        beat.call([set_key], ["worker", 0]),
    ]


def _writing(base: bytes) -> Sequence[Command]:
    hash_key = base + b":hash"
    return [("HSET", hash_key, "field", 1), ("HINCRBY", hash_key, "field", 1), ("HDEL", hash_key, "field")]


def _admission(base: bytes) -> Sequence[Command]:
    """Return the scripts themselves, for a worker and a subject that nobody has, and what removes these again."""
    subject, workers, scripts = base + b":subject", base + b":workers", Scripts()
    return [
        scripts.heartbeat.call_in_full([workers], ["worker", 1]),
        scripts.heartbeat.call([workers], ["worker", 0]),
        # A lease of a second; of 1 unit in 1000 ms, 1 slot, version 1: cost 1, one request, no slot held, none owed.
        scripts.admit.call_in_full([subject], ["worker", 1, 1, 1000, 1, 1, 1, 1, 0, 0]),
        scripts.invalidate.call_in_full([subject], [1, 1]),
        ("EXPIRE", subject, 0),
    ]


async def _reached(link: Link, shown: str, told: Sequence[ServerFacts], prefix: str) -> CheckResult:
    found = f"{shown} answers"
    if "+sentinel:" in shown and told[0].name:
        found += f", and {told[0].name} is the primary that it names"
    workers_key = f"{prefix}:workers".encode()
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            # A worker that was not there leaves: that changes nothing, and says how many there are.
            workers = await answer(link, workers_key, Scripts().heartbeat.call([workers_key], [token_hex(6), 0]))
    except ResponseError:
        return CheckResult("redis", CheckStatus.OK, found)  # why, is said under access
    return CheckResult(
        "redis", CheckStatus.OK, f"{found}; {workers or 'no'} worker{'' if workers == 1 else 's'} at work"
    )


def _not_reached(shown: str, exc: Exception, setting: Setting) -> CheckResult:
    if isinstance(exc, AuthenticationError):
        way_out = "see the user and the password in `redis`"
        return CheckResult("redis", CheckStatus.WRONG, f"{shown} does not let us in ({_reason(exc)})", way_out)
    if isinstance(exc, NoPermissionError):
        return CheckResult("redis", CheckStatus.WRONG, f"{shown} does not let us in ({_reason(exc)})", setting.grant)
    found = f"{shown} does not answer ({_reason(exc)}): {setting.without}"
    return CheckResult("redis", CheckStatus.WRONG, found, "see that it runs, and that `redis` names it")


def _reason(exc: Exception) -> str:
    told = str(exc).strip().rstrip(".")
    if isinstance(exc, MasterNotFoundError):
        said = "; ".join(dict.fromkeys(text.rstrip(".") for _, text in _COLLECTED.findall(told)))
        return said or "no sentinel knows a primary by that name"
    return told or "nothing came in time"


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _fields(text: Reply | None, between: str, within: str) -> Mapping[str, str]:
    """Return the pairs in *text*; none when it is None."""
    lines = text.decode(errors="replace").split(between) if isinstance(text, bytes) else []
    return {name: value for name, sep, value in (line.partition(within) for line in lines) if sep}
