"""Who is next for a scarce thread: address blocks take turns, so that one that sends many waits for itself.

Nothing here knows what is waited for, or waits: that is `passwords`.
"""

from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """A bounded queue that is fair between owners: at most *total* wait, at most *each* of one owner.

    The owners take turns, each with the oldest of theirs. When it is full, the newest of the owner who has most makes
    room for a newcomer who has fewer.
    """

    def __init__(self, *, total: int, each: int) -> None:
        self._total = total
        self._each = each
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, owner: str, item: T) -> T | None:
        """Let *item* wait; return who has to go instead, which is *item* itself when its owner has too many."""
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
        """Return who is next. Raises KeyError when nobody waits."""
        owner, items = self._waiting.popitem(last=False)
        item = items.popleft()
        self._count -= 1
        if items:
            self._waiting[owner] = items  # at the end: the others come first
        return item

    def discard(self, owner: str, item: T) -> None:
        """Let *item* wait no more, if it does."""
        items = self._waiting.get(owner)
        if items is None or item not in items:
            return
        items.remove(item)
        self._count -= 1
        if not items:
            del self._waiting[owner]
