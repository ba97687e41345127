"""Which servers own which subjects: those of one shard share a connection, and are without it together."""

from collections.abc import Awaitable, Callable, Sequence
from secrets import token_hex
from typing import TYPE_CHECKING, Protocol

from machpay_gateway.core.clock_skew import ClockSkew
from machpay_gateway.limiters.redis.connection import PipelinedConnection
from machpay_gateway.limiters.redis.servers import Address, Servers

if TYPE_CHECKING:
    import asyncio

    from machpay_gateway.limiters.redis.batcher import Batcher
    from machpay_gateway.limiters.redis.connection_supervisor import ConnectionSupervisor


class Shard:
    """A primary of a Cluster with the slots that it owns, or the only server. Mutable."""

    __slots__ = (
        "address",
        "batcher",
        "clock_skew",
        "is_mapped",
        "resync_timer",
        "slot_count",
        "supervisor",
        "tried_key",
    )

    batcher: "Batcher"
    supervisor: "ConnectionSupervisor"

    def __init__(self) -> None:
        self.address: Address | None = None  # None for a single server, and for slots that no server owns
        self.clock_skew = ClockSkew()
        self.slot_count = 1
        self.is_mapped = False  # whether the address is from a map that was just read
        self.resync_timer: asyncio.TimerHandle | None = None
        self.tried_key = b""


class HashSlot:
    """What moves between shards as a whole: a slot of a Cluster, or all there is of a single server."""

    __slots__ = ("batcher", "shard", "supervisor")

    def __init__(self, shard: Shard) -> None:
        self.move_to(shard)

    def move_to(self, shard: Shard) -> None:
        """Let *shard* own it."""
        self.shard = shard
        self.batcher = shard.batcher
        self.supervisor = shard.supervisor


StartShard = Callable[[Callable[[Shard], Awaitable[PipelinedConnection]]], Shard]


class Topology(Protocol):
    """The shards, and the slot of each key."""

    @property
    def shards(self) -> Sequence[Shard]:
        """All shards that own slots."""

    def slot_of(self, key: bytes) -> HashSlot:
        """Return the slot of *key*."""

    def key_within(self, shard: Shard, prefix: bytes, *, is_new: bool = False) -> bytes:
        """Return a key of no subject that *shard* owns; another one each time when it *is new*."""

    async def close(self) -> None:
        """Stop following slots that move. The shards stay."""


class SingleServer:
    """The topology of a server, or of the primary that sentinels name."""

    def __init__(self, servers: Servers, start_shard: StartShard) -> None:
        self.shards: Sequence[Shard] = [start_shard(lambda _: servers.connect())]
        self._slot = HashSlot(self.shards[0])

    def slot_of(self, key: bytes) -> HashSlot:  # noqa: ARG002 - there is one for all
        """Return the only slot."""
        return self._slot

    def key_within(self, shard: Shard, prefix: bytes, *, is_new: bool = False) -> bytes:  # noqa: ARG002 - as above
        """Return a key of no subject."""
        return new_key(prefix)

    async def close(self) -> None:
        """Do nothing: no slot moves."""


def new_key(prefix: bytes, tag: bytes = b"") -> bytes:
    """Return a key of no subject, in the slot of *tag*, or in any without one."""
    token = token_hex(6).encode()
    return b"%s:{%s}%s" % (prefix, tag or token, token)
