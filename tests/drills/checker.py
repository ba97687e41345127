"""An independent reading of what subjects were answered: it knows the promises, and nothing of the gateway.

Nobody outside knows when a request was decided, only that it was not before it was *sent* and not after it had
*settled*: the application ran, or the refusal had come. So each rule is judged by what is certain of that interval.

- Over the limit: only requests whose whole interval lies within a window are counted in it. Their decisions lie in it
  too, wherever they fell; so a count above the limit is one, and what is near an edge is never held against anybody.
- Wrongly refused: every request that may have been admitted, and whose interval touches the time that can matter,
  counts against the complaint. If even all of these leave room for the cost, there was room, whenever it was decided.
- Concurrency: a slot is held before the application is entered and until it has sent its last byte, so the time that
  the application itself notes between the two is time for which the slot is surely held. It may be held from when the
  request was sent until the answer had come, and a little longer: a release is told to others.
- Several limits: each is read by itself, over what all keys of its subject were admitted. A refusal names the limits
  that had no room, and is wrong if nothing explains any of them.

All moments are seconds on one clock, which every process of one host shares.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from math import inf
from typing import Literal, NamedTuple

MOST_CELLS, FEWEST_CELLS = 60, 12
RELEASE_SECONDS = 0.25  # from an answer until every worker knows that its slot is free, on a busy machine

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


class Limit(NamedTuple):
    """At most *limit* units in *window_seconds*, or requests at once when that is None, of each subject of one *kind*.

    *policy* is its name in refusals.
    """

    policy: str
    kind: str
    limit: int
    window_seconds: float | None


class Call(NamedTuple):
    """One request that counts against several subjects, by their kinds, and the policies that refused it.

    A slot is *held* for some of the time until the answer *came*.
    """

    request: Request
    held: Span
    came: float
    subjects: Mapping[str, str]
    violated: Sequence[str] = ()


class Reading(NamedTuple):
    """What became of one limit: the *highest* that any subject used of it, and how many subjects went *over* it.

    It was *named* in so many refusals, *unexplained* of them while it had room.
    """

    limit: Limit
    highest: int
    over: int
    named: int
    unexplained: int


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
    cell = cell_seconds(window_seconds)
    return sum(late > cell for late in overdue_seconds(requests, limit=limit, window_seconds=window_seconds))


def cell_seconds(window_seconds: float) -> float:
    """Return a cell: a 60th of a window of a minute or more, and a second of a shorter one, which has at least 12."""
    return window_seconds / min(MOST_CELLS, max(FEWEST_CELLS, window_seconds))


def read_limits(calls: Sequence[Call], limits: Sequence[Limit]) -> tuple[list[Reading], int]:
    """Return what became of each of *limits*, and how many refusals none of those that they name explains."""
    readings, explained = [], set[int]()
    for limit in limits:
        by_subject: defaultdict[str, list[tuple[int, Call]]] = defaultdict(list)
        for index, call in enumerate(calls):
            if limit.kind in call.subjects:
                by_subject[call.subjects[limit.kind]].append((index, call))
        highest, named, unexplained = [], 0, 0
        for numbered in by_subject.values():
            highest.append(_highest([call for _, call in numbered], limit))
            # A request that another limit refused took nothing.
            relevant = [
                (index, call)
                for index, call in numbered
                if call.request.outcome != "refused" or limit.policy in call.violated
            ]
            refused = [index for index, call in relevant if call.request.outcome == "refused"]
            is_explained = _explained([call for _, call in relevant], limit)
            explained.update(index for index, right in zip(refused, is_explained, strict=True) if right)
            named += len(refused)
            unexplained += len(refused) - sum(is_explained)
        over = sum(most > limit.limit for most in highest)
        readings.append(Reading(limit, max(highest, default=0), over, named, unexplained))
    refused = [index for index, call in enumerate(calls) if call.request.outcome == "refused"]
    return readings, sum(index not in explained for index in refused)


def _highest(calls: Sequence[Call], limit: Limit) -> int:
    if limit.window_seconds is None:
        return most_at_once(call.held for call in calls if call.request.outcome == "admitted")
    return worst_window([call.request for call in calls], limit.window_seconds)


def _explained(calls: Sequence[Call], limit: Limit) -> list[bool]:
    """Tell of each refusal in *calls*, which all name *limit*, whether it can have had no room."""
    if limit.window_seconds is None:
        return _slots_explained(calls, limit.limit)
    requests, cell = [call.request for call in calls], cell_seconds(limit.window_seconds)
    overdue = overdue_seconds(requests, limit=limit.limit, window_seconds=limit.window_seconds)
    return [late <= cell for late in overdue]


def _slots_explained(calls: Sequence[Call], limit: int) -> list[bool]:
    changes = []
    for call in calls:
        if call.request.outcome != "refused":
            changes += [(call.request.sent, 1), (call.came + RELEASE_SECONDS, -1)]
    moments, held = _running(changes)
    return [
        max(held[bisect_right(moments, call.request.sent) : bisect_right(moments, call.request.settled) + 1]) >= limit
        for call in calls
        if call.request.outcome == "refused"
    ]


def _running(moments: Iterable[tuple[float, int]]) -> tuple[list[float], list[int]]:
    """Return the moments in order, and the units before each of them and after all."""
    ordered = sorted(moments)
    return [moment for moment, _ in ordered], list(accumulate((units for _, units in ordered), initial=0))
