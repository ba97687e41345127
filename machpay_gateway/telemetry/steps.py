"""When the steps of a request took place, and histograms of how long they took.

Every request passes here: moments are readings of `time.perf_counter`, and histograms are lists of counts.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

# Inclusive upper bounds of histogram buckets, in seconds; one more bucket counts everything above the last bound. The
# low ones are finer than those of whole requests, because a decision without I/O takes some 20 µs.
BOUNDS: Sequence[float] = (
    *(0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
_SECONDS = len(BOUNDS) + 1  # index of the sum in a series, after its counts


class Steps(NamedTuple):
    """The moments of one request; None for a step that it did not reach."""

    began_at: float
    asked_at: float | None  # when the limiter was asked, if its answer took I/O
    decided_at: float | None  # by the gate; None for requests to the control plane
    answered_at: float | None  # when the head of the upstream's response had arrived
    ended_at: float


class IncomingTrace(NamedTuple):
    """The trace context in a request's headers; *is_trusted* when the peer is a trusted proxy."""

    parent: bytes | None  # None also for a repeated header
    states: tuple[bytes, ...]
    is_trusted: bool


class StepTimes:
    """Histograms of the steps of all requests: each is a list of counts, with the sum in seconds at its end."""

    def __init__(self) -> None:
        """Start with nothing counted."""
        self.decide = _series()
        self.admission = _series()
        self.upstream = _series()

    def count_decision(self, began_at: float, asked_at: float | None, decided_at: float) -> None:
        """Count a decision, and the wait for the limiter within it."""
        series, seconds = (
            self.decide,
            decided_at - began_at,
        )  # inlined, as in `count_upstream`: it runs for each request
        series[bisect_left(BOUNDS, seconds)] += 1
        series[_SECONDS] += seconds
        if asked_at is not None:
            _count(self.admission, decided_at - asked_at)

    def count_upstream(self, seconds: float) -> None:
        """Count an upstream's response whose head arrived *seconds* after the decision."""
        series = self.upstream
        series[bisect_left(BOUNDS, seconds)] += 1
        series[_SECONDS] += seconds


def _series() -> list[float]:
    return [0] * _SECONDS + [0.0]


def _count(series: list[float], seconds: float) -> None:
    series[bisect_left(BOUNDS, seconds)] += 1
    series[_SECONDS] += seconds
