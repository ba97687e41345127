"""A fair queue for password hashing: owners take turns, so that many jobs of one delay only its own.

It only orders items. `passwords` runs them.
"""

from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """A bounded queue, round-robin between owners: at most *total* items, at most *each* of one owner.

    Each turn takes the owner's oldest item. When the queue is full, the owner with the most items loses its newest one
    to an owner with fewer.
    """

    def __init__(self, *, total: int, each: int) -> None:
        self._total = total
        self._each = each
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, owner: str, item: T) -> T | None:
        """Add *item*; return the item that is evicted for it, or *item* itself when its owner has too many."""
        own = len(self._waiting.get(owner, ()))
        if own >= self._each:
            return item
        evicted = None
        if self._count >= self._total:
            greediest = max(self._waiting, key=lambda name: len(self._waiting[name]))
            if len(self._waiting[greediest]) <= own + 1:
                return item
            evicted = self._waiting[greediest].pop()
            self._count -= 1
        self._waiting.setdefault(owner, deque()).append(item)
        self._count += 1
        return evicted

    def pop(self) -> T:
        """Remove and return the next item. Raises KeyError when the queue is empty."""
        owner, items = self._waiting.popitem(last=False)
        item = items.popleft()
        self._count -= 1
        if items:
            self._waiting[owner] = items  # at the end: it is the turn of the others
        return item

    def discard(self, owner: str, item: T) -> None:
        """Remove *item*, if it is in the queue."""
        items = self._waiting.get(owner)
        if items is None or item not in items:
            return
        items.remove(item)
        self._count -= 1
        if not items:
            del self._waiting[owner]
