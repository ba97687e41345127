"""Calendar days and months in UTC, by which quotas are counted."""

from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

PeriodUnit = Literal["day", "month"]
DAY_SECONDS = 86_400


class Period(NamedTuple):
    """A calendar day or month: [*begins*, *ends*) in seconds since the epoch, and a *number* that grows with time.

    Days count from the epoch. Months are counted as `admit.lua` counts them.
    """

    number: int
    begins: int
    ends: int


def period_at(unit: PeriodUnit, now: float) -> Period:
    """Return the day or month that contains *now*, in seconds since the epoch."""
    if unit == "day":
        day = int(now // DAY_SECONDS)
        return Period(day, day * DAY_SECONDS, (day + 1) * DAY_SECONDS)
    first = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = (first + timedelta(days=31)).replace(day=1)
    number = first.year * 12 + first.month - 3  # the script's years begin in March
    return Period(number, int(first.timestamp()), int(following.timestamp()))
