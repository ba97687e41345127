"""An independent reading of what one subject was answered: it knows the promises, and nothing of the gateway.

Nobody outside knows when a request was decided, only that it was not before it was *sent* and not after it had
*settled*: the application ran, or the refusal had come. So each rule is judged by what is certain of that interval.

- Over the limit: only requests whose whole interval lies within a window are counted in it. Their decisions lie in it
  too, wherever they fell; so a count above the limit is one, and what is near an edge is never held against anybody.
- Wrongly refused: every request that may have been admitted, and whose interval touches the time that can matter,
  counts against the complaint. If even all of these leave room for the cost, there was room, whenever it was decided.
- Concurrency: a slot is held before the application is entered and until it has sent its last byte, so the time that
  the application itself notes between the two is time for which the slot is surely held.

All moments are seconds on one clock, which every process of one host shares.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import inf
from typing import Literal, NamedTuple

CELLS_PER_WINDOW = 60

Outcome = Literal["admitted", "refused", "unknown"]


class Request(NamedTuple):
    """One request about one subject; *unknown* is one whose answer never came: it may have been admitted."""

    sent: float
    settled: float
    outcome: Outcome
    cost: int = 1


class Span(NamedTuple):
    """A stretch of time in which *weight* is held."""

    start: float
    end: float
    weight: int = 1


def most_at_once(spans: Iterable[Span]) -> int:
    """Return the greatest weight of *spans* at one moment; those that only touch do not meet."""
    changes = []
    for start, end, weight in spans:
        if start < end:
            changes += [(start, weight), (end, -weight)]
    # What ends at a moment sorts before what begins at it.
    return max(accumulate(change for _, change in sorted(changes)), default=0)


def worst_window(requests: Iterable[Request], window_seconds: float) -> int:
    """Return the most units that were surely admitted within *window_seconds*, however cut."""
    # A request lies within the window that begins at x for each x after `settled - window` and up to `sent`.
    return most_at_once(
        Span(request.settled - window_seconds, request.sent, request.cost)
        for request in requests
        if request.outcome == "admitted"
    )


def overdue_seconds(requests: Sequence[Request], *, limit: int, window_seconds: float) -> list[float]:
    """Return for each refusal how long before its window the units lay that it can be explained by.

    0.0 is a refusal that the window itself explains, infinity one that nothing explains.
    """
    taken = [request for request in requests if request.outcome != "refused"]
    sents, sent_units = _running((request.sent, request.cost) for request in taken)
    settleds, settled_units = _running((request.settled, request.cost) for request in taken)
    overdue = []
    for request in requests:
        if request.outcome != "refused":
            continue
        may_count = sent_units[bisect_right(sents, request.settled)]
        # As many units may have left the window for good, and the rest would still leave no room.
        spare = may_count - (limit - request.cost) - 1
        if spare < 0:
            overdue.append(inf)
            continue
        # The request after these must not have left, so the window reaches back to it.
        oldest = settleds[bisect_right(settled_units, spare) - 1]
        overdue.append(max(0.0, request.sent - window_seconds - oldest))
    return overdue


def wrongly_refused(requests: Sequence[Request], *, limit: int, window_seconds: float) -> int:
    """Return how many refusals came although the window and one cell before it had room."""
    cell = window_seconds / CELLS_PER_WINDOW
    return sum(late > cell for late in overdue_seconds(requests, limit=limit, window_seconds=window_seconds))


def _running(moments: Iterable[tuple[float, int]]) -> tuple[list[float], list[int]]:
    """Return the moments in order, and the units before each of them and after all."""
    ordered = sorted(moments)
    return [moment for moment, _ in ordered], list(accumulate((units for _, units in ordered), initial=0))
