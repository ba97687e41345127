"""A Cluster: each slot belongs to the shard of the server that owns it, and follows the slot when it moves.

Shards are independent: each has a connection, batches and outages of its own, so that a dead one takes none of the
others with it. A shard outlives its server: after a failover, it connects to the replica that owns its slots then.
"""

import asyncio
import random
from binascii import crc_hqx
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError

from machpay_gateway.limiters.redis.connection import (
    FAILURES,
    REPLY_TIMEOUT_SECONDS,
    PipelinedConnection,
    RedisCall,
    Reply,
    ServerConnection,
    execute,
)
from machpay_gateway.limiters.redis.resp import encode_command
from machpay_gateway.limiters.redis.servers import CLUSTER_SLOTS, Address, Servers, slots_in
from machpay_gateway.limiters.redis.shards import HashSlot, Shard, StartShard, new_key

_MAX_REDIRECTIONS = 5  # a slot that moves redirects once or twice; more means that the map never stabilizes
_CRC_POLYNOMIAL = 0x1021
_RETIRE_SECONDS = 1.0  # for the last steps of a shard without slots


class ShardConnection:
    """A connection to the primary of one shard, which follows redirections of single calls to others."""

    is_cluster = True

    def __init__(self, server: ServerConnection, redirect: "Redirect") -> None:
        """Send to *server*, and *redirect* calls that it does not execute."""
        self.server = server
        self._redirect = redirect

    def send(self, calls: Sequence[RedisCall]) -> None:
        """Send *calls*, in order."""
        self.server.send([self.with_redirections(call, _MAX_REDIRECTIONS) for call in calls])

    def with_redirections(self, call: RedisCall, left: int) -> RedisCall:
        """Return *call* as it is sent: its reply may redirect it as often as is *left*."""
        return call._replace(on_reply=partial(self._on_reply, call, left))

    def fail(self, reason: Exception) -> None:
        """Give it up for *reason*, unless it is lost already."""
        self.server.fail(reason)

    async def wait_lost(self) -> Exception:
        """Wait until it is lost, and return the reason."""
        return await self.server.wait_lost()

    async def close(self) -> None:
        """Close it."""
        await self.server.close()

    def _on_reply(self, call: RedisCall, left: int, reply: Reply) -> None:
        if isinstance(reply, MovedError | AskError) and left:
            # Neither was executed. MOVED is final, ASK is for this one command while its slot is migrating.
            self._redirect(self, call, left - 1, reply)
        else:
            call.on_reply(reply)


Redirect = Callable[[ShardConnection, RedisCall, int, MovedError | AskError], None]


class Cluster:
    """The topology of a Cluster. At first one shard without an address has all slots; the first map divides them."""

    def __init__(self, servers: Servers, start_shard: StartShard, on_moved: Callable[[Shard], None]) -> None:
        """Find the shards of *servers*. *on_moved* is called with one that gets slots of another without connection."""
        self._servers = servers
        self._start_shard = start_shard
        self._on_moved = on_moved
        first = start_shard(self._connect)
        first.slot_count = REDIS_CLUSTER_HASH_SLOTS
        self.shards = [first]
        self._slots = [HashSlot(first) for _ in range(REDIS_CLUSTER_HASH_SLOTS)]
        self._reading: asyncio.Task[None] | None = None
        self._others: dict[Address, ServerConnection] = {}  # that calls were redirected to, by address
        self._connecting = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def slot_of(self, key: bytes) -> HashSlot:
        """Return the slot of *key*."""
        return self._slots[key_slot(key)]

    def key_within(self, shard: Shard, prefix: bytes, *, is_new: bool = False) -> bytes:
        """Return a key of no subject that *shard* owns; another one each time when it *is new*."""
        if is_new or not shard.tried_key or self.slot_of(shard.tried_key).shard is not shard:
            numbers = (number for number, slot in enumerate(self._slots) if slot.shard is shard)
            shard.tried_key = new_key(prefix, tag_of(next(numbers, 0)))
        return shard.tried_key

    async def close(self) -> None:
        """Stop following slots that move. The shards stay."""
        tasks = [*self._tasks] if self._reading is None else [*self._tasks, self._reading]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in self._others.values():
            await connection.close()

    async def _connect(self, shard: Shard) -> PipelinedConnection:
        if not shard.is_mapped:
            await self._read_map()
        shard.is_mapped = False
        if shard.address is None:
            raise ClusterDownError(f"{shard.slot_count} slots have no server")
        return ShardConnection(await self._servers.connect_to(shard.address), self._redirect)

    async def _read_map(self) -> None:
        """Read the map once for all shards that connect now."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._apply_next_map())
            self._reading.add_done_callback(lambda task: task.cancelled() or task.exception())  # all may be canceled
        await asyncio.shield(self._reading)

    async def _apply_next_map(self) -> None:
        # From a server that is known to answer. Another one each time: a part of the network may be cut off.
        connected = [shard for shard in self.shards if shard.supervisor.connection is not None]
        for shard in random.sample(connected, len(connected)):
            connection, address = shard.supervisor.connection, shard.address
            if connection is None or address is None:
                continue
            try:
                async with asyncio.timeout(REPLY_TIMEOUT_SECONDS):
                    ranges = cast("list[list[Any]]", await execute(connection, b"", CLUSTER_SLOTS))
            except FAILURES:
                continue
            self._apply(slots_in(ranges, address[0]))
            return
        addresses = [shard.address for shard in self.shards if shard.address is not None]
        self._apply(await self._servers.read_slots(list(dict.fromkeys([*self._servers.hosts, *addresses]))))

    def _apply(self, owners: Mapping[int, Address]) -> None:
        """Let the shard of each server own what the server does by *owners*; one shard has all that no server owns."""
        wanted: dict[Address | None, list[HashSlot]] = {}
        for number, slot in enumerate(self._slots):
            wanted.setdefault(owners.get(number), []).append(slot)
        by_address = {shard.address: shard for shard in self.shards}
        for address, slots in wanted.items():
            shard = by_address.get(address) or self._successor(slots, wanted) or self._add_shard()
            shard.address, shard.is_mapped = address, True
            self._assign(slots, shard)

    def _successor(self, slots: Sequence[HashSlot], wanted: Mapping[Address | None, object]) -> Shard | None:
        """Return the shard that had most of *slots*, if its server is lost, and owns nothing of what is *wanted*.

        That is a failover. One that is connected still has replies to come.
        """
        ((shard, _),) = Counter(slot.shard for slot in slots).most_common(1)
        return None if shard.address in wanted or shard.supervisor.connection is not None else shard

    def _add_shard(self) -> Shard:
        shard = self._start_shard(self._connect)
        shard.slot_count = 0
        self.shards.append(shard)
        return shard

    def _assign(self, slots: Sequence[HashSlot], shard: Shard) -> None:
        left: dict[Shard, None] = {}
        for slot in slots:
            if slot.shard is not shard:
                left[slot.shard] = None
                slot.shard.slot_count -= 1
                shard.slot_count += 1
                slot.move_to(shard)
        for other in left:
            other.batcher.requeue()
            if other.supervisor.connection is None and shard.supervisor.connection is not None:
                self._on_moved(shard)
            if not other.slot_count:
                self.shards.remove(other)
                self._spawn(_retire(other))

    def _redirect(self, source: ShardConnection, call: RedisCall, left: int, reply: MovedError | AskError) -> None:
        self._spawn(self._send_to_other(source, call, left, reply))

    async def _send_to_other(
        self, source: ShardConnection, call: RedisCall, left: int, reply: MovedError | AskError
    ) -> None:
        address = (reply.host, int(reply.port))
        try:
            connection = await self._connection_to(address)
        except FAILURES as exc:
            source.fail(exc)
            return
        redirected = source.with_redirections(call, left)
        if isinstance(reply, MovedError):
            self._follow(self.slot_of(call.key), address)
            connection.send([redirected])
        else:
            connection.send([RedisCall(call.key, encode_command("ASKING"), lambda _: None), redirected])

    def _follow(self, slot: HashSlot, address: Address) -> None:
        """Let the shard of the server at *address* own *slot*; if it is new, by the map, with all that has moved."""
        shard = next((shard for shard in self.shards if shard.address == address), None)
        if shard is None:
            self._spawn(self._read_map_if_possible())
        else:
            self._assign([slot], shard)

    async def _read_map_if_possible(self) -> None:
        with suppress(*FAILURES):  # the next redirection tries again
            await self._read_map()

    async def _connection_to(self, address: Address) -> ServerConnection:
        for shard in self.shards:
            if shard.address == address and isinstance(shard.supervisor.connection, ShardConnection):
                return shard.supervisor.connection.server
        async with self._connecting:
            connection = self._others.get(address)
            if connection is None or connection.is_lost:
                connection = self._others[address] = await self._servers.connect_to(address)
                self._spawn(self._close_lost(address, connection))
            return connection

    async def _close_lost(self, address: Address, connection: ServerConnection) -> None:
        await connection.wait_lost()
        if self._others.get(address) is connection:
            del self._others[address]
        await connection.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def tag_of(number: int) -> bytes:
    """Return three bytes in the slot with *number*: to search for them would block the event loop too long.

    A slot is the CRC-16 of what is in braces. Its last two bytes follow from that by running the CRC backwards.
    """
    for first in b"machpay":
        end = number
        for _ in range(16):
            end = (end ^ _CRC_POLYNOMIAL) >> 1 | 0x8000 if end & 1 else end >> 1
        tag = bytes([first]) + (end ^ crc_hqx(bytes([first]), 0)).to_bytes(2, "big")
        if not set(tag) & set(b"{}"):
            return tag
    raise AssertionError(f"no tag for slot {number}")


async def _retire(shard: Shard) -> None:
    """Let the last steps of *shard* be answered, and end it."""
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(_RETIRE_SECONDS):
                await shard.batcher.drain()
    finally:  # also when all are closed meanwhile
        await shard.supervisor.close()
        shard.batcher.fail_queued()
