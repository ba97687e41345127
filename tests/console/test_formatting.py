"""How pages write values."""

import pytest

from machpay_gateway.console.formatting import format_count, format_milliseconds, format_minute, format_relative

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    "seconds, expected",
    [
        (None, "never"),
        (0, "just now"),
        (-59, "just now"),
        (-60, "1 minute ago"),
        (-119, "1 minute ago"),
        (-120, "2 minutes ago"),
        (-3600, "1 hour ago"),
        (-86_400, "1 day ago"),
        (-90 * 86_400, "90 days ago"),
        (20, "within a minute"),
        (3600, "in 1 hour"),
        (86_400 - 1, "in 1 day"),  # of what was set for a day from now a second ago
        (7 * 86_400, "in 7 days"),
    ],
)
def test_relative_times(seconds: float | None, expected: str) -> None:
    assert format_relative(None if seconds is None else NOW + seconds, NOW) == expected


def test_times_counts_and_durations() -> None:
    assert format_minute(NOW) == "2027-01-15 08:00 UTC"
    assert [format_minute(None), format_milliseconds(None)] == ["–", "–"]
    assert [format_count(0), format_count(1_234_567)] == ["0", "1,234,567"]
    assert [format_milliseconds(each) for each in (0.0012, 0.9994, 1.5)] == ["1.2 ms", "999.4 ms", "1.50 s"]
