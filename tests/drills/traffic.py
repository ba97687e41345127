"""Callers of several kinds at a steady rate, and what their outcomes say of a failure."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import cycle
from math import inf, nan
from typing import NamedTuple, Self

from tests.drills.checker import Request, worst_window
from tests.drills.deployment import LITTLE, Deployment
from tests.drills.load import LOST
from tests.drills.open_loop import Outcome


class Kind(StrEnum):
    """Whose request it is: keys and tokens in use, used for the first time, at their limit, unknown, or revoked."""

    GOOD = "good"
    UNSEEN = "unseen"
    LIMITED = "limited"
    BAD = "bad"
    REVOKED = "revoked"


EACH_SECOND = {Kind.GOOD: 230, Kind.UNSEEN: 5, Kind.LIMITED: 90, Kind.BAD: 15, Kind.REVOKED: 10}
PER_SECOND = sum(EACH_SECOND.values())
_UNSERVED = frozenset({429, 502, 503, 504, LOST})
_RIGHT = {
    Kind.GOOD: {200} | _UNSERVED,
    Kind.UNSEEN: {200} | _UNSERVED,
    Kind.LIMITED: {200} | _UNSERVED,
    Kind.BAD: {401} | _UNSERVED,
    Kind.REVOKED: {401} | _UNSERVED,
}

Call = tuple[Kind, str]


def schedule(deployment: Deployment, seconds: float) -> list[Call]:
    """Return the kind and the secret of each request, in order."""
    secrets = {
        Kind.GOOD: deployment.good,
        Kind.UNSEEN: deployment.unseen,
        Kind.LIMITED: deployment.limited,
        Kind.BAD: deployment.bad,
        Kind.REVOKED: deployment.revoked,
    }
    turns: dict[Kind, Iterator[str]] = {kind: cycle(each) for kind, each in secrets.items()}
    calls: list[Call] = []
    while len(calls) < seconds * PER_SECOND:
        kinds = [kind for kind, count in EACH_SECOND.items() for _ in range(count)]
        random.shuffle(kinds)
        calls += [(kind, next(turns[kind])) for kind in kinds]
    return calls


@dataclass(frozen=True)
class Figures:
    """What callers got: shares of 200 among good requests, seconds, units over a limit, and statuses that are wrong."""

    served_during: float
    served_after: float
    p99: float
    recovered: float
    over: int
    wrong: Counter[str]
    statuses: Counter[str]

    def recovered_with(self, seconds: float) -> Self:
        """Return the same, recovered after *seconds* at the earliest."""
        return replace(self, recovered=max(self.recovered, seconds))


class Times(NamedTuple):
    """When a failure began and was mended, and until when requests count as those during it."""

    began_at: float
    healed_at: float
    ended_at: float


def figures_of(calls: Sequence[Call], outcomes: Sequence[Outcome], times: Times, *, windows: int) -> Figures:
    """Return the figures of a failure, during which so many *windows* of a limit may be admitted in one."""
    good, others, limited = list[Outcome](), list[Outcome](), defaultdict[str, list[Request]](list)
    wrong, statuses = Counter[str](), Counter[str]()
    for outcome in outcomes:
        kind, secret = calls[outcome.number]
        statuses[f"{kind} {outcome.status}"] += 1
        if outcome.status not in _RIGHT[kind]:
            wrong[f"{kind} {outcome.status}"] += 1
        if kind is Kind.GOOD:
            good.append(outcome)
        elif kind is Kind.UNSEEN:
            others.append(outcome)
        elif kind is Kind.LIMITED:
            limited[secret].append(_request(outcome))
    during = [outcome for outcome in good if times.began_at <= outcome.due < times.ended_at]
    after = [outcome for outcome in good if outcome.due >= times.ended_at]
    waits = sorted(outcome.came - outcome.due for outcome in during)
    failed = [outcome.due for outcome in (*good, *others) if outcome.due >= times.healed_at and outcome.status != 200]
    most = max(worst_window(requests, LITTLE.window_seconds) for requests in limited.values())
    return Figures(
        _share(during),
        _share(after),
        waits[int(0.99 * (len(waits) - 1))] if waits else nan,
        max(failed, default=times.healed_at) - times.healed_at,
        max(0, most - windows * LITTLE.limit),
        wrong,
        statuses,
    )


def _share(outcomes: Sequence[Outcome]) -> float:
    return sum(outcome.status == 200 for outcome in outcomes) / len(outcomes) if outcomes else nan


def _request(outcome: Outcome) -> Request:
    if outcome.status == LOST:
        return Request(outcome.due, inf, "unknown")
    return Request(outcome.due, outcome.came, "admitted" if outcome.status == 200 else "refused")
