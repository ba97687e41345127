"""Who holds how many of the connections that a process takes, and whose place a newcomer gets when all are taken.

A single address may hold all of them as long as nobody else wants one: a load balancer that is not known as a trusted
proxy, or a load test. Under pressure the block of addresses that holds most gives way, by a connection that is not at
work. Counting is O(1) for each connection; the search happens under pressure alone, and looks at few.
"""

from collections.abc import Iterator

from machpay_gateway.core.network.address import address_block
from machpay_gateway.proxy.ports import NEVER, Placed

_MOST_LOOKS = 64  # at connections for each newcomer: about 20 µs


class Places:
    """Connections by the block of their peer's address. Mutable: it is the memory of who is there."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._blocks: dict[object, dict[Placed, None]] = {}
        self._by_size: dict[int, dict[object, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, connection: Placed) -> None:
        """Count *connection*."""
        block = _block_of(connection)
        held = self._blocks.setdefault(block, {})
        held[connection] = None
        self._count += 1
        self._resize(block, len(held) - 1, len(held))

    def discard(self, connection: Placed) -> None:
        """Count *connection* no more, if it is counted."""
        block = _block_of(connection)
        held = self._blocks.get(block)
        if held is None or connection not in held:
            return
        del held[connection]
        self._count -= 1
        self._resize(block, len(held) + 1, len(held))
        if not held:
            del self._blocks[block]

    def victim_for(self, newcomer: Placed) -> Placed | None:
        """Return whose place *newcomer*, which is counted, may take; None when it has to go itself.

        It is a connection of the block that holds most, and more than the newcomer's: one that has been quiet for
        longest of those looked at, else one that waits for its client's body; never one whose request is answered.
        """
        looks = _MOST_LOOKS
        for held in self._larger_than(len(self._blocks[_block_of(newcomer)])):
            looked_at = [connection for connection, _ in zip(held, range(looks), strict=False)]
            victim = min(looked_at, key=_since, default=None)
            if victim is not None and victim.idle_since < NEVER:
                return victim
            for connection in looked_at:  # the next search begins with others
                del held[connection]
                held[connection] = None
            looks -= len(looked_at)
            if looks <= 0:
                return None
        return None

    def _larger_than(self, size: int) -> Iterator[dict[Placed, None]]:
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


def _since(connection: Placed) -> float:
    return connection.idle_since


def _block_of(connection: Placed) -> object:
    """Return what is weighed as one: of a trusted proxy, behind which are many callers, each connection by itself."""
    address = connection.address
    return connection if address is None or connection.is_trusted else address_block(address)
