"""The argument of `admit.lua` for a step, packed as described there, and where its reply has what."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from machpay_gateway.core.limits.calendar import DAY_SECONDS, period_at
from machpay_gateway.core.limits.plan import Part, Plan
from machpay_gateway.core.limits.ports import StoredUnits
from machpay_gateway.limiters.redis.backlog import NO_BACKLOG, Backlog
from machpay_gateway.limiters.redis.resp import encode_bulk

OUTCOME_FIELDS = 3  # of a reply, before those of its parts: admitted, within limits that are not enforced, and the wait
UNSEEDED = -2  # admitted: a quota has no count
_ENCODED_STEPS = 4096  # 200 bytes each
_LAYOUTS = 4096
_UNKNOWN = StoredUnits(-1, 0)
Seeds = Mapping[int, Sequence[StoredUnits]]  # stored counts of quotas, by the index of their part
NO_SEEDS: Seeds = {}


class Moment(NamedTuple):
    """When a step starts: on a *day* since the epoch, by a worker that *connected* in a second since the epoch.

    A count of a quota that was not compared with the stored units since then is not trusted. 0 trusts any.
    """

    day: int
    connected: int


ANY_MOMENT = Moment(0, 0)  # of a plan without quotas


class Layout(NamedTuple):
    """How many integers the *reply* to a step of a plan has.

    What is left follows the outcome, in the order of a plan's levels: *spans* is where each part begins and
    ends there; a level is in seconds or whole units when it is divided by that of *units*.
    """

    reply: int
    spans: Sequence[tuple[int, int]]
    units: Sequence[int]


@lru_cache(_LAYOUTS)
def layout_of(plan: Plan) -> Layout:
    """Return the layout of a step of *plan*."""
    spans, units = [], list[int]()
    for part in plan.parts:
        limits, begin = part.limits, len(units)
        units += [1, 1000] * len(limits.counted) + [1] * (limits.concurrency is not None)
        spans.append((begin, len(units)))
    return Layout(OUTCOME_FIELDS + len(units), spans, units)


@lru_cache(_ENCODED_STEPS)
def encode_step(  # noqa: PLR0917 - keyword arguments would double the cost of a hit
    plan: Plan, version: int, group_version: int, cost: int, wanted: int, holds: tuple[int, ...], moment: Moment
) -> bytes:
    """Return the argument for a step without backlogs and stored counts.

    Hits nearly always: keys of a tier ask for one unit, and hold a few slots. Encoding takes 5 µs, a hit 0.3 µs.
    """
    return encode_bulk(pack_step(plan, (version, group_version, cost, wanted), holds, moment=moment))


def pack_step(
    plan: Plan,
    claim: tuple[int, int, int, int],
    holds: Sequence[int],
    *,
    moment: Moment = ANY_MOMENT,
    backlogs: Sequence[Backlog] = (),
    seeds: Seeds = NO_SEEDS,
) -> bytes:
    """Return the argument for any step, not encoded.

    *claim* is the version, that of the group, the cost of a request and how many are wanted. *holds* are the slots of
    each part: held, or -1 - n where the step before left them and n were released since. *backlogs* are those of the
    parts, if any.
    """
    version, group_version, cost, wanted = claim
    fields = [(len(plan.parts), 1), (version, 5), (group_version, 5), (cost, 5), (wanted, 4)]
    for index, (part, held) in enumerate(zip(plan.parts, holds, strict=True)):
        backlog = backlogs[index] if backlogs else NO_BACKLOG
        fields += _part_fields(part, held, backlog)
        fields += _quota_fields(part, moment, backlog, seeds.get(index))
    return b"".join(number.to_bytes(size, "little") for number, size in fields)


def _part_fields(part: Part, held: int, backlog: Backlog) -> list[tuple[int, int]]:
    """Return numbers and their sizes in bytes, but for those of quotas."""
    limits, enforced, units = part.limits, part.enforced, backlog.units
    slots = 0 if limits.concurrency is None else limits.concurrency + 1
    fields = [(len(limits.rates), 1), (len(limits.quotas), 1), (int(enforced), 1), (slots, 4)]
    fields += [(1, 1), (held, 4)] if held >= 0 else [(0, 1), (-1 - held, 4)]
    most = max(units.values(), default=0)  # for windows that are newer than the backlog
    for rate in limits.rates:
        fields += [(rate.limit, 6), (rate.window_seconds * 1000, 5), (units.get(rate.name, most), 6)]
    return fields


def _quota_fields(
    part: Part, moment: Moment, backlog: Backlog, seeds: Sequence[StoredUnits] | None
) -> list[tuple[int, int]]:
    quotas, stored = part.limits.quotas, backlog.stored() if backlog.batches else {}
    fields: list[tuple[int, int]] = []
    for quota, seed in zip(quotas, seeds or [_UNKNOWN] * len(quotas), strict=True):
        number, begins, ends = period_at(quota.name, moment.day * DAY_SECONDS)
        batches = stored.get(quota.name, ())
        fields += [(quota.limit, 6), (backlog.units.get(quota.name, 0), 6), (ord(quota.name[0]), 1)]
        fields += [(number, 4), (begins, 5), (ends, 5), (seed.units + 1, 6), (seed.batch, 6)]
        fields += [(moment.connected, 5), (len(batches), 1)]
        for batch, units in batches:
            fields += [(batch, 6), (units, 6)]
    return fields
