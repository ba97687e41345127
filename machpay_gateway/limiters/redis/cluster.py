"""A link to a Cluster: each call goes to the server that has its key's slot, and follows slots that move."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError

from machpay_gateway.limiters.redis.link import Ending, RedisCall, Reply, ServerLink
from machpay_gateway.limiters.redis.wire import command

Address = tuple[str, int]
_REDIRECTIONS = 5  # a slot that moves is redirected once or twice; more is a map that never settles


def slots_in(ranges: list[list[Any]], asked: str) -> dict[int, Address]:
    """Return which primary has each slot, from the reply to CLUSTER SLOTS of the host that was *asked*.

    Raises ClusterDownError when a slot has none: its keys could not be asked about.
    """
    slots: dict[int, Address] = {}
    for first, last, (host, port, *_), *_ in ranges:
        address = (bytes(host or b"").decode() or asked, int(port))  # an empty host means the one that answers
        slots.update(dict.fromkeys(range(first, last + 1), address))
    if len(slots) < REDIS_CLUSTER_HASH_SLOTS:
        raise ClusterDownError(f"{REDIS_CLUSTER_HASH_SLOTS - len(slots)} slots have no server")
    return slots


class ClusterLink(Ending):
    """A link over one connection to each primary. It ends with the first of them: the map is drawn anew then."""

    splits = True

    def __init__(
        self,
        slots: dict[int, Address],
        links: dict[Address, ServerLink],
        connect: Callable[[Address], Awaitable[ServerLink]],
    ) -> None:
        """Send by *slots* over *links*; *connect* makes one to a server that was not in the map."""
        super().__init__()
        self._slots = slots
        self._links = links
        self._connect = connect
        self._connecting = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        for link in links.values():
            self._spawn(self._end_with(link))

    def send(self, calls: Sequence[RedisCall]) -> None:
        """Send *calls*; those about one key stay in order."""
        by_server: dict[Address, list[RedisCall]] = {}
        for call in calls:
            address = self._slots[key_slot(call.key)]
            followed = call._replace(answered=partial(self._answered, call, _REDIRECTIONS))
            by_server.setdefault(address, []).append(followed)
        for address, theirs in by_server.items():
            self._links[address].send(theirs)

    async def close(self) -> None:
        """End it, and let go of the connections."""
        self.end(ConnectionError("closed"))
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in self._links.values():
            await link.close()

    def _answered(self, call: RedisCall, redirections: int, reply: Reply) -> None:
        if isinstance(reply, MovedError | AskError) and redirections:
            # Neither was carried out. MOVED is for good, ASK for this one command while its slot is on the way.
            self._spawn(self._follow(call, redirections - 1, reply))
        else:
            call.answered(reply)

    async def _follow(self, call: RedisCall, redirections: int, reply: MovedError | AskError) -> None:
        address = (reply.host, int(reply.port))
        try:
            link = await self._link_to(address)
        except (RedisError, OSError) as exc:
            self.end(exc)
            return
        followed = call._replace(answered=partial(self._answered, call, redirections))
        if isinstance(reply, MovedError):
            self._slots[key_slot(call.key)] = address
            link.send([followed])
        else:
            link.send([RedisCall(call.key, command("ASKING"), lambda _: None), followed])

    async def _link_to(self, address: Address) -> ServerLink:
        async with self._connecting:
            if address not in self._links:
                self._links[address] = await self._connect(address)
                self._spawn(self._end_with(self._links[address]))
            return self._links[address]

    async def _end_with(self, link: ServerLink) -> None:
        self.end(await link.ended())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
