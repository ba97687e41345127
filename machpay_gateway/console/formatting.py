"""How pages write values: moments, how long ago, counts, and what scopes and actions mean in words."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from machpay_gateway.core.oauth.scope_descriptions import describe_scope
from machpay_gateway.core.text import format_moment

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_MANY = 2  # of a unit, from which on it is told by


def moment(at: float | None) -> str:
    """Return the moment in UTC, to the minute, and a dash for none."""
    return "–" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def ago(at: float | None, now: float) -> str:
    """Return how long before *now* that was, roughly; or how long after it that will be."""
    if at is None:
        return "never"
    # What was set for a day from now a moment ago is not "in 23 hours".
    seconds = now - at if at <= now else at - now + _MINUTE / 2
    if seconds < _MINUTE:
        return "just now" if at <= now else "within a minute"
    amount = next(
        f"{seconds // size:.0f} {unit}{'s' if seconds >= _MANY * size else ''}"
        for size, unit in ((_DAY, "day"), (_HOUR, "hour"), (_MINUTE, "minute"))
        if seconds >= size
    )
    return f"{amount} ago" if at <= now else f"in {amount}"


def count(number: float) -> str:
    """Return the number with its thousands apart."""
    return f"{number:,.0f}"


def milliseconds(seconds: float | None) -> str:
    """Return so many seconds in milliseconds, and a dash for none."""
    if seconds is None:
        return "–"
    return f"{seconds * 1000:,.1f} ms" if seconds < 1 else f"{seconds:,.2f} s"


FILTERS: Mapping[str, Callable[..., str]] = {
    "moment": moment,
    "machine_moment": format_moment,
    "ago": ago,
    "count": count,
    "in_words": describe_scope,
}
