"""What goes wrong with each request is not logged with each request."""

from machpay_gateway.telemetry.log_throttle import LogThrottle
from tests.clocks import FixedClock


def test_one_line_a_minute_passes_and_the_first_at_once() -> None:
    clock = FixedClock(7.0)
    throttle = LogThrottle(clock=clock)
    passed = []
    for _ in range(130):
        if throttle.passes():
            passed.append(clock() - 7.0)
        clock.advance(1.0)
    assert passed == [0.0, 60.0, 120.0]
