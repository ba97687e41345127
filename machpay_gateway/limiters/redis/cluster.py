"""A connection to a Cluster: each call goes to the server that owns its key's slot, and follows slots that move."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError

from machpay_gateway.limiters.redis.connection import LossSignal, RedisCall, Reply, ServerConnection
from machpay_gateway.limiters.redis.resp import encode_command

Address = tuple[str, int]
_MAX_REDIRECTIONS = 5  # a slot that moves redirects once or twice; more means that the map never stabilizes


def slots_in(ranges: list[list[Any]], queried_host: str) -> dict[int, Address]:
    """Return the primary of each slot, by the reply of *queried_host* to CLUSTER SLOTS.

    Raises ClusterDownError when a slot has none: its keys could be neither read nor written.
    """
    slots: dict[int, Address] = {}
    for first, last, (host, port, *_), *_ in ranges:
        address = (bytes(host or b"").decode() or queried_host, int(port))  # an empty host means the one that replied
        slots.update(dict.fromkeys(range(first, last + 1), address))
    if len(slots) < REDIS_CLUSTER_HASH_SLOTS:
        raise ClusterDownError(f"{REDIS_CLUSTER_HASH_SLOTS - len(slots)} slots have no server")
    return slots


class ClusterConnection(LossSignal):
    """A pipelined connection over one to each primary. It is lost with the first of them, to read the map again."""

    is_cluster = True

    def __init__(
        self,
        slots: dict[int, Address],
        connections: dict[Address, ServerConnection],
        connect: Callable[[Address], Awaitable[ServerConnection]],
    ) -> None:
        """Send by *slots* over *connections*; *connect* makes one to a server that is not in the map."""
        super().__init__()
        self._slots = slots
        self._connections = connections
        self._connect = connect
        self._connecting = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        for connection in connections.values():
            self._spawn(self._fail_with(connection))

    def send(self, calls: Sequence[RedisCall]) -> None:
        """Send *calls*; those about one key stay in order."""
        by_server: dict[Address, list[RedisCall]] = {}
        for call in calls:
            address = self._slots[key_slot(call.key)]
            redirected = call._replace(on_reply=partial(self._on_reply, call, _MAX_REDIRECTIONS))
            by_server.setdefault(address, []).append(redirected)
        for address, of_server in by_server.items():
            self._connections[address].send(of_server)

    async def close(self) -> None:
        """Close all connections."""
        self.fail(ConnectionError("closed"))
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self._connections.values():
            await connection.close()

    def _on_reply(self, call: RedisCall, redirections: int, reply: Reply) -> None:
        if isinstance(reply, MovedError | AskError) and redirections:
            # Neither was executed. MOVED is final, ASK is for this one command while its slot is migrating.
            self._spawn(self._redirect(call, redirections - 1, reply))
        else:
            call.on_reply(reply)

    async def _redirect(self, call: RedisCall, redirections: int, reply: MovedError | AskError) -> None:
        address = (reply.host, int(reply.port))
        try:
            connection = await self._connection_to(address)
        except (RedisError, OSError) as exc:
            self.fail(exc)
            return
        redirected = call._replace(on_reply=partial(self._on_reply, call, redirections))
        if isinstance(reply, MovedError):
            self._slots[key_slot(call.key)] = address
            connection.send([redirected])
        else:
            connection.send([RedisCall(call.key, encode_command("ASKING"), lambda _: None), redirected])

    async def _connection_to(self, address: Address) -> ServerConnection:
        async with self._connecting:
            if address not in self._connections:
                self._connections[address] = await self._connect(address)
                self._spawn(self._fail_with(self._connections[address]))
            return self._connections[address]

    async def _fail_with(self, connection: ServerConnection) -> None:
        self.fail(await connection.wait_lost())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
