"""What a worker has admitted and the server does not count yet: after an outage, or charged since the last step.

A quota's count on the server starts from the stored units, which other workers store too. The invariant: a count has
each unit once, either from what was stored when it started, or from a step. So a count remembers with which batch the
stored units ended that it started from, and a backlog tells how many of its units each batch has stored. The server
takes those of a backlog that it has not got. It decides that in one step with its own count: it makes no difference
who started the count, when, and what else was lost or restored. Whatever is not known to be stored counts: rather twice
than never.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from machpay_gateway.limiters.quota_ledger import QuotaBatch

_MOST_BATCHES = 32  # a subject has one for each second of an outage: those before count as stored with a later one
Batches = Mapping[QuotaBatch, int]  # how many units are stored with each


class Backlog(NamedTuple):
    """*units* by the name of a rate or quota. Of those of each quota, *batches* store some."""

    units: Mapping[str, int]
    batches: Mapping[str, Batches]

    def __bool__(self) -> bool:
        """Whether there is anything to report."""
        return bool(self.units)

    def plus(self, other: "Backlog") -> "Backlog":
        """Return both."""
        units = {name: self.units.get(name, 0) + other.units.get(name, 0) for name in {**self.units, **other.units}}
        batches = {
            name: joined(self.batches.get(name, {}), other.batches.get(name, {}))
            for name in {**self.batches, **other.batches}
        }
        return Backlog(units, batches)

    def stored(self) -> dict[str, list[tuple[int, int]]]:
        """Return the numbers of the batches that are stored, with their units, by the names of quotas."""
        return {name: _by_number(batches) for name, batches in self.batches.items()}


NO_BACKLOG = Backlog({}, {})


def batches_of(stored: Mapping[str, Sequence[tuple[int, int]]]) -> dict[str, Batches]:
    """Return the batches that are *stored*, as `Backlog.stored` has them."""
    return {name: {QuotaBatch(number): units for number, units in pairs} for name, pairs in stored.items()}


def _by_number(batches: Batches) -> list[tuple[int, int]]:
    units = Counter[int]()
    for batch, count in batches.items():
        if batch.number is not None:
            units[batch.number] += count
    return sorted(units.items())[-_MOST_BATCHES:]


def joined(one: Batches, other: Batches) -> Batches:
    """Return the units of both. Of too many batches, a later one stands for the oldest."""
    units = {batch: one.get(batch, 0) + other.get(batch, 0) for batch in {**one, **other}}
    if len(units) > _MOST_BATCHES:
        stored = sorted((batch.number, id(batch), batch) for batch in units if batch.number is not None)
        oldest = [batch for *_, batch in stored[: len(units) - _MOST_BATCHES + 1]]
        for batch in oldest[:-1]:
            units[oldest[-1]] += units.pop(batch)
    return units
