"""The arguments of `admit.lua` for a step, and where its reply has what."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from machpay_gateway.core.limits.calendar import DAY_SECONDS, period_at
from machpay_gateway.core.limits.plan import Plan
from machpay_gateway.limiters.redis.resp import encode_bulk

OUTCOME_FIELDS = 3  # of a reply, before those of its parts: admitted, within limits that are not enforced, and the wait
UNSEEDED = -2  # admitted: a quota has no count
_ENCODED_STEPS = 4096  # 200 bytes each
_LAYOUTS = 4096
Backlog = Mapping[str, int]  # units by the name of a rate or quota
Seeds = Mapping[int, Sequence[int]]  # stored counts of quotas, by the index of their part
NO_BACKLOG: Backlog = {}
NO_SEEDS: Seeds = {}


class Layout(NamedTuple):
    """How many *arguments* a step of a plan has, and how many integers its reply.

    What the reply has left follows its outcome, in the order of a plan's levels: *spans* is where each part begins and
    ends there; a level is in seconds or whole units when it is divided by that of *units*.
    """

    arguments: int
    reply: int
    spans: Sequence[tuple[int, int]]
    units: Sequence[int]


@lru_cache(_LAYOUTS)
def layout_of(plan: Plan) -> Layout:
    """Return the layout of a step of *plan*."""
    arguments, spans, units = 4, [], list[int]()
    for part in plan.parts:
        limits, begin = part.limits, len(units)
        arguments += 5 + 3 * len(limits.rates) + 7 * len(limits.quotas)
        units += [1, 1000] * len(limits.counted) + [1] * (limits.concurrency is not None)
        spans.append((begin, len(units)))
    return Layout(arguments, OUTCOME_FIELDS + len(units), spans, units)


@lru_cache(_ENCODED_STEPS)
def encode_step(  # noqa: PLR0917 - keyword arguments would double the cost of a hit
    plan: Plan, version: int, cost: int, wanted: int, holds: tuple[int, ...], day: int
) -> bytes:
    """Return the arguments for a step without backlogs and stored counts. *day* is 0 for plans without quotas.

    Hits nearly always: keys of a tier ask for one unit, and hold a few slots. Encoding takes 3 µs, a hit 0.3 µs.
    """
    return encode_step_in_full(plan, (version, cost, wanted), holds, day, [NO_BACKLOG] * len(holds), NO_SEEDS)


def encode_step_in_full(  # noqa: PLR0917 - as `encode_step`
    plan: Plan,
    claim: tuple[int, int, int],
    holds: Sequence[int],
    day: int,
    backlogs: Sequence[Backlog],
    seeds: Seeds,
) -> bytes:
    """Return the arguments for any step on a *day* since the epoch.

    *claim* is the version, the cost of a request and how many are wanted. *holds* are the slots held, by part.
    """
    arguments: list[int | str] = [len(plan.parts), *claim]
    for index, (part, held, backlog) in enumerate(zip(plan.parts, holds, backlogs, strict=True)):
        rates, quotas, concurrency = part.limits.rates, part.limits.quotas, part.limits.concurrency
        most = max(backlog.values(), default=0)  # for windows that are newer than the backlog
        arguments += (len(rates), len(quotas), int(part.enforced), -1 if concurrency is None else concurrency, held)
        for rate in rates:
            arguments += (rate.limit, rate.window_seconds * 1000, backlog.get(rate.name, most))
        for quota, seed in zip(quotas, seeds.get(index, [-1] * len(quotas)), strict=True):
            period = period_at(quota.name, day * DAY_SECONDS)
            arguments += (quota.limit, backlog.get(quota.name, 0), quota.name[0], *period, seed)
    return encode_bulk(*arguments)
