"""How pages format values: times, durations, counts. Templates use these as filters."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from machpay_gateway.core.limits.tier_names import describe_tier
from machpay_gateway.core.oauth.scope_descriptions import describe_scope
from machpay_gateway.core.text import format_moment

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_PLURAL = 2  # of a unit, from which on it has an "s"


def format_minute(at: float | None) -> str:
    """Return the time in UTC to the minute, a dash for None."""
    return "–" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def format_relative(at: float | None, now: float) -> str:
    """Return the time relative to *now*, such as "2 hours ago" or "in 1 day"; "never" for None."""
    if at is None:
        return "never"
    # Half a minute more: what was set a moment ago to happen in a day is not "in 23 hours".
    seconds = now - at if at <= now else at - now + _MINUTE / 2
    if seconds < _MINUTE:
        return "just now" if at <= now else "within a minute"
    amount = next(
        f"{seconds // size:.0f} {unit}{'s' if seconds >= _PLURAL * size else ''}"
        for size, unit in ((_DAY, "day"), (_HOUR, "hour"), (_MINUTE, "minute"))
        if seconds >= size
    )
    return f"{amount} ago" if at <= now else f"in {amount}"


def format_count(number: float) -> str:
    """Return the number with thousands separators."""
    return f"{number:,.0f}"


def format_milliseconds(seconds: float | None) -> str:
    """Return the duration in milliseconds, or in seconds from one second on; a dash for None."""
    if seconds is None:
        return "–"
    return f"{seconds * 1000:,.1f} ms" if seconds < 1 else f"{seconds:,.2f} s"


FILTERS: Mapping[str, Callable[..., str]] = {
    "minute": format_minute,
    "rfc3339": format_moment,
    "relative": format_relative,
    "count": format_count,
    "scope_description": describe_scope,
    "tier": describe_tier,
}
