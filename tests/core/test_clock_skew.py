"""How far a clock is ahead, from replies that took their time."""

import pytest

from machpay_gateway.core.clock_skew import ClockSkew

NOW = 1_700_000_000.0


def skew(*replies: tuple[float, float, float]) -> float | None:
    """Return the estimate from *replies*: when they were sent, the server's time, and when they arrived."""
    estimate = ClockSkew()
    for sent, server, received in replies:
        estimate.add(NOW + sent, NOW + server, NOW + received)
    return estimate.seconds


@pytest.mark.parametrize(
    "replies, seconds",
    [
        ([], None),
        ([(0, 0, 0)], 0.0),
        ([(0, 1, 2)], 0.0),  # the server answers half-way
        ([(10, 0, 10)], 10.0),  # ahead of the server
        ([(0, 10, 0)], -10.0),  # behind it
        ([(0, 0, 2), (3, 3.5, 3.5), (6, 6, 10)], -0.25),  # the fastest one is the most exact
        ([(0, 0, 0.5), (3600, 3, 3602)], 3598.0),  # a slow reply counts once a clock was set: it contradicts the others
        ([(0, 0, 0.0), *[(n, n + 0.5, n + 2) for n in range(5)]], 0.5),  # only the latest five count
    ],
)
def test_the_skew_is_that_of_the_fastest_reply(
    replies: list[tuple[float, float, float]], seconds: float | None
) -> None:
    assert skew(*replies) == (None if seconds is None else pytest.approx(seconds))
