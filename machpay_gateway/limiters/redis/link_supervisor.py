"""Keeps one link up, and says when there is none: the breaker. The first good answer ends an outage.

A connection that was lost is made anew while those who ask wait, for as long as a reply may take. After that, and at
once when a server that is there does not answer, nobody waits: they are told, and a link is tried for by itself.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable

from redis.exceptions import NoScriptError, RedisError, ResponseError

from machpay_gateway.limiters.redis.batcher import ANSWER_SECONDS, LEASE_SECONDS, STARVED_SECONDS, Batcher, LateReply
from machpay_gateway.limiters.redis.link import Link, Reply, answer
from machpay_gateway.limiters.redis.scripts import Script
from machpay_gateway.limiters.redis.servers import CONNECT_SECONDS, Servers

logger = logging.getLogger(__name__)

FAILURES = (RedisError, OSError, TimeoutError, LateReply)
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 1.0
_STEADY_SECONDS = 0.5  # that a link must last for the next one to be tried for without a pause


class LinkSupervisor:
    """One worker's link to the servers."""

    def __init__(
        self,
        servers: Servers,
        commits: Batcher,
        *,
        beat: Script,
        workers_key: bytes,
        worker: str,
        recovered: Callable[[], None],
    ) -> None:
        """Keep *commits* linked to *servers*; *recovered* is called when a link is up, before it is used."""
        self.is_away = False
        self.reason: Exception | None = None  # of the outage
        self.link: Link | None = None
        self.tried = asyncio.Event()  # once, with whatever outcome
        self.linked = asyncio.Event()
        self.away_since = 0.0  # by the monotonic clock
        self._servers = servers
        self._commits = commits
        self._beat = beat
        self._workers_key = workers_key
        self._worker = worker
        self._recovered = recovered
        self._patience: asyncio.TimerHandle | None = None
        self._running = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Let go of the link."""
        self._running.cancel()
        await asyncio.wait([self._running])
        self._stop_waiting()

    async def beat(self, lease_seconds: int = LEASE_SECONDS) -> None:
        """Say that this worker is alive, or with no lease that it leaves, and learn how many there are.

        A link on which that is not answered in time ends.
        """
        link = self.link
        if link is None:
            return
        try:
            await self._said(link, lease_seconds)
        except FAILURES as exc:
            link.end(exc)

    async def _run(self) -> None:
        pause = 0.0
        self._begin_waiting()
        while True:
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads workers, guards nothing
            try:
                link = await self._linked()
            except FAILURES as exc:
                self.note_outage(exc)
                pause = _longer(pause)
                continue
            up_since = time.monotonic()
            try:
                reason = await self._used(link)
            finally:
                await link.close()
            # A server may take a beat and refuse all else, when its memory is full: it is not asked in a tight loop.
            pause = 0.0 if time.monotonic() - up_since > _STEADY_SECONDS else _longer(pause)
            if isinstance(reason, LateReply | ResponseError | TimeoutError):
                self.note_outage(reason)
            else:
                self._begin_waiting()

    async def _linked(self) -> Link:
        """Return a link on which a write was answered in time."""
        async with asyncio.timeout(CONNECT_SECONDS):
            link = await self._servers.link()
        try:
            await self._said(link, LEASE_SECONDS)
        except BaseException:
            await link.close()
            raise
        return link

    async def _used(self, link: Link) -> Exception:
        self._note_answer()
        self.link = link
        self._recovered()
        self._commits.take_up(link)
        self.linked.set()
        self.tried.set()
        try:
            return await link.ended()
        finally:
            self.linked.clear()
            self.link = None
            self._commits.let_go()

    async def _said(self, link: Link, lease_seconds: int) -> None:
        said = await run(link, self._beat, self._workers_key, [self._worker, lease_seconds])
        self._commits.workers = max(1, int(said))  # type: ignore[call-overload]  # an integer, by beat.lua

    def _begin_waiting(self) -> None:
        if not self.is_away and self._patience is None:
            lost = LateReply("the connection was lost")
            self._patience = asyncio.get_running_loop().call_later(ANSWER_SECONDS, self.note_outage, lost)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def note_outage(self, reason: Exception) -> None:
        """Let nobody wait from now on."""
        self._stop_waiting()
        self.reason = reason
        if not self.is_away:
            self.is_away = True
            self.away_since = time.monotonic()
            logger.warning(
                "Redis does not answer: limits are decided without it. %s: %s", type(reason).__name__, reason
            )
        self._commits.give_up()
        self.tried.set()

    def _note_answer(self) -> None:
        self._stop_waiting()
        if self.is_away:
            self.is_away = False
            logger.warning("Redis answers again, after %.1f s.", time.monotonic() - self.away_since)


def _longer(pause: float) -> float:
    return min(max(2 * pause, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)


async def run(link: Link, script: Script, key: bytes, arguments: list[str | int | bytes]) -> Reply:
    """Run *script* on one *key* and return its reply. Raises FAILURES, LateReply when it takes too long."""
    running = asyncio.ensure_future(_run(link, script, key, arguments))
    try:
        # In two parts: a loop that was itself held up has the reply waiting to be read.
        for seconds in (ANSWER_SECONDS - STARVED_SECONDS, STARVED_SECONDS):
            await asyncio.wait([running], timeout=seconds)
            if running.done():
                return running.result()
    finally:
        running.cancel()
    raise LateReply


async def _run(link: Link, script: Script, key: bytes, arguments: list[str | int | bytes]) -> Reply:
    try:
        return await answer(link, key, script.call([key], arguments))
    except NoScriptError:
        return await answer(link, key, script.call_in_full([key], arguments))
