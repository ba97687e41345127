"""A subject's state on the server, as `admit.lua` packs it."""

from dataclasses import dataclass
from struct import unpack_from

_HEAD_BYTES = 18
_CELLS_AT = 27  # in a window: how many cells follow


@dataclass(frozen=True)
class State:
    """The version of a subject and the slots held of it.

    *workers* are those that hold some: the name, the slots, and the second in which the lease expires.
    *cells* are those of its first window, from the oldest with units on, and *taken* its units.
    """

    version: int = 0
    held: int = 0
    workers: tuple[tuple[bytes, int, int], ...] = ()
    cells: int = 0
    taken: int = 0


def read_state(packed: bytes) -> State:
    """Return the state that *packed* has."""
    workers = []
    at = _HEAD_BYTES
    end = at + unpack_from("<H", packed, 14)[0]
    while at < end:
        length = packed[at]
        name, at = packed[at + 1 : at + 1 + length], at + 1 + length
        (slots,) = unpack_from("<I", packed, at)
        workers.append((name, slots, int.from_bytes(packed[at + 4 : at + 9], "little")))
        at += 9
    cells = packed[end + _CELLS_AT] + 1 if packed[16] else 0
    taken = int.from_bytes(packed[end + 15 : end + 21], "little") if packed[16] else 0
    return State(
        int.from_bytes(packed[:5], "little"), int.from_bytes(packed[5:9], "little"), tuple(workers), cells, taken
    )
