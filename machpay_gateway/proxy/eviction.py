"""Connection eviction: which connection closes when a new one exceeds the limit of a process.

One address may hold all connections while nobody else needs one: it may be a load balancer that is not configured as a
trusted proxy, or a load test. Beyond the limit, the address block with the most connections loses one that serves no
response. Counting is O(1) for each connection; only eviction searches, and it examines few.
"""

from collections.abc import Iterator
from typing import Protocol

from machpay_gateway.core.network.address import address_block
from machpay_gateway.proxy.downstream import NEVER

_MAX_EXAMINED = 64  # connections for each new one: about 20 µs


class Evictable(Protocol):
    """What eviction needs to know about a connection."""

    address: int | None
    is_trusted: bool

    @property
    def idle_since(self) -> float:
        """When it began to wait for its client, by the monotonic clock; NEVER if it must not be closed."""


class ConnectionTable:
    """The open connections by the address block of their peer. Mutable."""

    def __init__(self) -> None:
        """Begin without connections."""
        self._blocks: dict[object, dict[Evictable, None]] = {}
        self._by_size: dict[int, dict[object, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, connection: Evictable) -> None:
        """Add *connection*."""
        block = _block_of(connection)
        connections = self._blocks.setdefault(block, {})
        connections[connection] = None
        self._count += 1
        self._resize(block, len(connections) - 1, len(connections))

    def discard(self, connection: Evictable) -> None:
        """Remove *connection* if it is there."""
        block = _block_of(connection)
        connections = self._blocks.get(block)
        if connections is None or connection not in connections:
            return
        del connections[connection]
        self._count -= 1
        self._resize(block, len(connections) + 1, len(connections))
        if not connections:
            del self._blocks[block]

    def victim_for(self, newcomer: Evictable) -> Evictable | None:
        """Return the connection to close for *newcomer*, which was added already; None if *newcomer* has to close.

        The victim belongs to the largest block, which must be larger than the newcomer's. Of the connections examined
        it is the one idle for longest, else one that waits for a request body; never one whose response has begun.
        """
        budget = _MAX_EXAMINED
        for connections in self._larger_than(len(self._blocks[_block_of(newcomer)])):
            examined = [connection for connection, _ in zip(connections, range(budget), strict=False)]
            victim = min(examined, key=_idle_since, default=None)
            if victim is not None and victim.idle_since < NEVER:
                return victim
            for connection in examined:  # move them to the end, so the next search examines others
                del connections[connection]
                connections[connection] = None
            budget -= len(examined)
            if budget <= 0:
                return None
        return None

    def _larger_than(self, size: int) -> Iterator[dict[Evictable, None]]:
        for larger in sorted(self._by_size, reverse=True):
            if larger <= size:
                return
            for block in self._by_size[larger]:
                yield self._blocks[block]

    def _resize(self, block: object, before: int, after: int) -> None:
        if before:
            blocks = self._by_size[before]
            del blocks[block]
            if not blocks:
                del self._by_size[before]
        if after:
            self._by_size.setdefault(after, {})[block] = None


def _idle_since(connection: Evictable) -> float:
    return connection.idle_since


def _block_of(connection: Evictable) -> object:
    """Return the key under which *connection* counts: a trusted proxy has many callers, so each counts by itself."""
    address = connection.address
    return connection if address is None or connection.is_trusted else address_block(address)
