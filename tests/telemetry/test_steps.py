"""Histograms of the steps of requests."""

import pytest

from machpay_gateway.telemetry.steps import BOUNDS, StepTimes


@pytest.mark.parametrize(
    "seconds, bucket",
    [
        (0.0, 0),
        (0.000025, 0),  # bounds are inclusive
        (0.000026, 1),
        (0.00005, 1),
        (0.2, 12),
        (10.0, len(BOUNDS) - 1),
        (10.1, len(BOUNDS)),  # above the last bound
        (3600.0, len(BOUNDS)),
    ],
)
def test_a_step_is_counted_in_the_bucket_of_its_duration(seconds: float, bucket: int) -> None:
    times = StepTimes()
    times.count_decision(0.0, None, seconds)
    times.count_upstream(seconds)
    expected = [0.0] * (len(BOUNDS) + 1) + [seconds]
    expected[bucket] = 1
    assert times.decide == times.upstream == expected
    assert times.admission == [0.0] * (len(BOUNDS) + 2)


def test_the_wait_for_the_limiter_is_also_part_of_the_decision() -> None:
    times = StepTimes()
    times.count_decision(1.0, 1.5, 1.75)
    times.count_decision(1.0, None, 1.25)
    assert (sum(times.decide[:-1]), times.decide[-1]) == (2, 1.0)
    assert (sum(times.admission[:-1]), times.admission[-1]) == (1, 0.25)
    assert sum(times.upstream) == 0
