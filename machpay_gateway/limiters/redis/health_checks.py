"""Health checks of the servers for `machpay-gateway doctor`, over a connection like the limiter's own.

They collect the facts that `diagnostics` judges, and leave nothing behind in the servers.
"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from secrets import token_hex
from typing import cast
from urllib.parse import urlsplit

from redis.crc import key_slot
from redis.exceptions import ClusterDownError, ResponseError
from redis.sentinel import MasterNotFoundError

from machpay_gateway.core.check_result import CheckResult, CheckStatus
from machpay_gateway.core.limits.plan import tier_plan
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.limiters.redis.connection import FAILURES, PipelinedConnection, Reply, ServerConnection, execute
from machpay_gateway.limiters.redis.diagnostics import ServerFacts, check_results
from machpay_gateway.limiters.redis.refusals import LimiterUse, explain
from machpay_gateway.limiters.redis.resp import Argument
from machpay_gateway.limiters.redis.scripts import Scripts
from machpay_gateway.limiters.redis.servers import CONNECT_SECONDS, Address, Servers, servers_for
from machpay_gateway.limiters.redis.shards import new_key
from machpay_gateway.limiters.redis.steps import pack_step

Command = tuple[Argument, ...]

_TIMEOUT_SECONDS = 2.0  # of one reply: ten times what a decision waits, to tell a slow server from a dead one
_ROUNDS, _ROUNDS_SECONDS = 20, 2.0
_ONE_A_SECOND = tier_plan(Tier("1/second", concurrency=1))
_SENTINEL_ERRORS = re.compile(r" - \w+\((['\"])(.*?)\1\)")  # one for each sentinel, in redis-py's one message


def check_password_encoding(url: str) -> CheckResult | None:
    """Return what is wrong when a part of the password would be parsed, and displayed, as something else."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if "@" not in parts.path + parts.query + parts.fragment:
        return None
    message = "the URL has an @ behind a / or ? or #, so what is in front of it is not read as a password"
    return CheckResult("redis", CheckStatus.WRONG, message, "write those in a password as %40, %2F, %3F and %23")


async def check_redis(
    url: str, *, prefix: str, on_failure: str, clock: Callable[[], float] = time.time
) -> Sequence[CheckResult]:
    """Return the results for the servers of *url*, which contain no part of its password.

    Raises ConfigurationError when the URL is invalid.
    """
    servers, public_url = servers_for(url), _without_password(url)
    use = LimiterUse(prefix, on_failure, servers.kind)
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                checked, mistakes = await _connect(servers, prefix.encode(), use, stack)
        except FAILURES as exc:
            return [_unreachable(public_url, await servers.diagnose(exc), use)]
        try:
            facts = [await server.facts(clock) for server in checked]
            return [await _reachable(checked, public_url, facts, prefix), *mistakes, *check_results(facts, use)]
        except FAILURES as exc:
            return [_unreachable(public_url, exc, use)]


async def find_refusals(connection: PipelinedConnection, base: bytes) -> Sequence[ResponseError]:
    """Return what the server behind *connection* refuses of all that the limiter needs, on keys that begin with *base*.

    Raises `FAILURES`.
    """
    return await _CheckedServer(connection, base, "", in_cluster=connection.is_cluster).refusals()


@dataclass(frozen=True, slots=True)
class _CheckedServer:
    """The server behind *connection*: it owns the keys which begin with *base*."""

    connection: PipelinedConnection
    base: bytes
    name: str
    in_cluster: bool

    async def facts(self, clock: Callable[[], float]) -> ServerFacts:
        """Return what it reports of itself."""
        refusals = await self.refusals()
        save = cast("Sequence[bytes] | None", await self._try("CONFIG", "GET", "save"))
        round_trips, ahead_seconds = await self._measure(clock)
        return ServerFacts(
            self.name or _parse_fields(await self._try("CLIENT", "INFO"), " ", "=").get("laddr", ""),
            refusals,
            info=_parse_fields(await self._try("INFO"), "\r\n", ":") or None,
            snapshots=save[1].decode() if save else None,
            cluster=_parse_fields(await self._try("CLUSTER", "INFO"), "\r\n", ":") or None,
            round_trips=round_trips,
            ahead_seconds=ahead_seconds,
        )

    async def refusals(self) -> Sequence[ResponseError]:
        """Run the limiter's commands, stage by stage, and return the refusals of the first stage that has any."""
        # Nothing is created before it is certain that it can be removed.
        for stage in (
            _without_effect(self.base, in_cluster=self.in_cluster),
            _writing(self.base),
            _admission(self.base),
        ):
            if refusals := await self._refusals_of(stage):
                return refusals
        return ()

    async def _refusals_of(self, commands: Sequence[Command]) -> Sequence[ResponseError]:
        """Run *commands*, pipelined, and return the replies that are errors."""
        replies = await asyncio.gather(*(self._run(command) for command in commands), return_exceptions=True)
        for failure in replies:
            if isinstance(failure, BaseException) and not isinstance(failure, ResponseError):
                raise failure
        return [refusal for refusal in replies if isinstance(refusal, ResponseError)]

    async def _measure(self, clock: Callable[[], float]) -> tuple[Sequence[float], float | None]:
        """Return round trips, and by the shortest of them how far its clock is ahead."""
        rounds: list[tuple[float, float]] = []
        started = time.perf_counter()
        while len(rounds) < _ROUNDS and time.perf_counter() - started < _ROUNDS_SECONDS:
            here, sent_at = clock(), time.perf_counter()
            # TIME and not PING: it costs the same, and the limiter needs no right to PING.
            reply = cast("Sequence[bytes] | None", await self._try("TIME"))
            if reply is None:
                return (), None
            seconds = time.perf_counter() - sent_at
            rounds.append((seconds, int(reply[0]) + int(reply[1]) / 1e6 - (here + seconds / 2)))
        return [seconds for seconds, _ in rounds], min(rounds)[1]

    async def _try(self, *command: Argument) -> Reply | None:
        """Return the reply to *command*, None when it is refused."""
        try:
            return await self._run(command)
        except ResponseError:
            return None

    async def _run(self, command: Command) -> Reply:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            return await execute(self.connection, self.base, command)


async def _connect(
    servers: Servers, prefix: bytes, use: LimiterUse, stack: AsyncExitStack
) -> tuple[Sequence[_CheckedServer], Sequence[CheckResult]]:
    """Connect to every server that takes writes, until *stack* ends. Returns them, and what is wrong with others.

    Raises `FAILURES` when none can be reached.
    """
    if not use.in_cluster:
        connection = await servers.connect()
        stack.push_async_callback(connection.close)
        return [_CheckedServer(connection, new_key(prefix), "", in_cluster=False)], ()
    owners = await servers.read_slots(servers.hosts)
    addresses = sorted(set(owners.values()))
    links = await asyncio.gather(*(_connect_to(servers, address) for address in addresses))
    checked, failures = [], {}
    for address, link in zip(addresses, links, strict=True):
        if isinstance(link, Exception):
            failures[_text_of(address)] = link
        else:
            stack.push_async_callback(link.close)
            base = next(key for key in iter(partial(new_key, prefix), b"") if owners.get(key_slot(key)) == address)
            checked.append(_CheckedServer(link, base, _text_of(address), in_cluster=True))
    if not checked:
        raise next(iter(failures.values()), None) or ClusterDownError("no slot has a server")
    return checked, [_shards_away(failures, len(addresses), use)] if failures else ()


async def _connect_to(servers: Servers, address: Address) -> ServerConnection | Exception:
    try:
        async with asyncio.timeout(CONNECT_SECONDS / 2):  # the map was read before
            return await servers.connect_to(address)
    except FAILURES as exc:
        return exc


def _text_of(address: Address) -> str:
    return "{}:{}".format(*address)


def _shards_away(failures: Mapping[str, Exception], shards: int, use: LimiterUse) -> CheckResult:
    reasons = ", ".join(f"{name} ({_reason(exc)})" for name, exc in failures.items())
    verb = "does" if len(failures) == 1 else "do"
    message = f"{len(failures)} of {shards} shards {verb} not answer: {reasons}: for their subjects, {use.failure_mode}"
    return CheckResult("redis", CheckStatus.WRONG, message, "see that they run, or let a replica take over")


def _without_effect(base: bytes, *, in_cluster: bool) -> Sequence[Command]:
    """Return what the limiter's scripts call, on missing keys: some of it they call only once a worker has died."""
    state, set_key, heartbeat = base + b":state", base + b":set", Scripts().heartbeat
    # A batch names keys of several slots, unless it goes to a Cluster: a node of one would refuse that.
    elsewhere = base.replace(b"{", b"{elsewhere-")
    keys_in_one_call = [] if in_cluster else [heartbeat.eval([set_key, elsewhere], ["worker", 0])]
    return [
        ("TIME",),
        ("MGET", state),
        ("TTL", state),
        ("EXPIRE", state, 60),
        ("ZADD", set_key, "XX", 1, "worker"),
        ("ZREMRANGEBYSCORE", set_key, "-inf", 1),
        ("ZREM", set_key, "worker"),
        ("ZCARD", set_key),
        heartbeat.eval([set_key], ["worker", 0]),
        heartbeat.evalsha([set_key], ["worker", 0]),
        *keys_in_one_call,
    ]


def _writing(base: bytes) -> Sequence[Command]:
    state = base + b":state"
    return [("SET", state, "", "EX", 1), ("SETRANGE", state, 0, " "), ("EXPIRE", state, 0)]


def _admission(base: bytes) -> Sequence[Command]:
    """Return the scripts themselves, for a worker and a subject of their own, and what removes these again."""
    subject, workers, scripts = base + b":subject", base + b":workers", Scripts()
    return [
        scripts.heartbeat.eval([workers], ["worker", 1]),
        scripts.heartbeat.evalsha([workers], ["worker", 0]),
        scripts.admit.eval(
            [subject], ["worker", 1, pack_step(_ONE_A_SECOND, (1, 0, 1, 1), [0])]
        ),  # a lease of a second
        scripts.invalidate.eval([subject], [1, 0, 1]),
        ("EXPIRE", subject, 0),
    ]


async def _reachable(
    checked: Sequence[_CheckedServer], public_url: str, facts: Sequence[ServerFacts], prefix: str
) -> CheckResult:
    message = f"{public_url} answers"
    if "+sentinel:" in public_url and facts[0].name:
        message += f", and the sentinels name {facts[0].name} as the primary"
    workers_key = f"{prefix}:workers".encode()
    # A worker that does not exist leaves: that changes nothing, and returns the number of workers.
    leave = Scripts().heartbeat.evalsha([workers_key], [token_hex(6), 0])
    workers: Reply = None
    for server in checked:
        # Of a Cluster, one server has the list of workers. Otherwise the result for access has the reason.
        with suppress(ResponseError):
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                workers = await execute(server.connection, workers_key, leave)
    if workers is None:
        return CheckResult("redis", CheckStatus.OK, message)
    message += f"; {workers or 'no'} worker{'' if workers == 1 else 's'} connected"
    return CheckResult("redis", CheckStatus.OK, message)


def _unreachable(public_url: str, exc: Exception, use: LimiterUse) -> CheckResult:
    if (refusal := explain(exc, use)) is not None:
        message = f"{public_url}: {refusal.message}"
        return CheckResult("redis", CheckStatus.WRONG, message, refusal.way_out)
    message = f"{public_url} does not answer ({_reason(exc)}): {use.failure_mode}"
    return CheckResult("redis", CheckStatus.WRONG, message, "see that it runs, and that `redis` names it")


def _reason(exc: Exception) -> str:
    text = str(exc).strip().rstrip(".")
    if isinstance(exc, MasterNotFoundError):
        messages = "; ".join(dict.fromkeys(error.rstrip(".") for _, error in _SENTINEL_ERRORS.findall(text)))
        return messages or "no sentinel knows a primary by that name"
    return text or "no reply in time"


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _parse_fields(text: Reply | None, between: str, within: str) -> Mapping[str, str]:
    """Return the pairs in *text*; none when it is None."""
    lines = text.decode(errors="replace").split(between) if isinstance(text, bytes) else []
    return {name: value for name, sep, value in (line.partition(within) for line in lines) if sep}
