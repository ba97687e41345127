"""When each step of a request was taken, and how long the steps of all of them took.

It is on the way of every request: moments are by `time.perf_counter`, and what they add up to is counted in lists.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

# Upper bounds in seconds, each inclusive, of histograms that have one count more: of what took longer than all of them.
# Finer below than those of whole requests, because a decision that asks nobody takes some 20 µs.
BOUNDS: Sequence[float] = (
    *(0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
_SECONDS = len(BOUNDS) + 1  # where in a series, after its counts


class Steps(NamedTuple):
    """When the steps of one request were taken; None for one that it did not come to."""

    began_at: float
    asked_at: float | None  # when the limiter was asked, if it could not answer at once
    decided_at: float | None  # by the gate; what the control plane decides is not decided here
    answered_at: float | None  # when the head of the upstream's answer had come
    ended_at: float


class Incoming(NamedTuple):
    """What a request says of the trace that it is a part of, and whether whoever sent it *is_trusted*."""

    parent: bytes | None  # that came once
    states: tuple[bytes, ...]
    is_trusted: bool


class StepTimes:
    """Histograms of the steps of all requests: each a list of counts, with the sum in seconds at its end."""

    def __init__(self) -> None:
        """Know of no request."""
        self.decide = _series()
        self.admission = _series()
        self.upstream = _series()

    def decided(self, began_at: float, asked_at: float | None, decided_at: float) -> None:
        """Count a decision; the wait for the limiter is a part of it, and counted for itself too."""
        _count(self.decide, decided_at - began_at)
        if asked_at is not None:
            _count(self.admission, decided_at - asked_at)

    def answered(self, seconds: float) -> None:
        """Count the head of an upstream's answer that came within *seconds* of the decision."""
        _count(self.upstream, seconds)


def _series() -> list[float]:
    return [0] * _SECONDS + [0.0]


def _count(series: list[float], seconds: float) -> None:
    series[bisect_left(BOUNDS, seconds)] += 1
    series[_SECONDS] += seconds
