"""What goes wrong with each request is not logged with each request."""

import asyncio
import logging

import pytest

from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.log_throttle import LogThrottle
from tests.clocks import FixedClock

logger = logging.getLogger("machpay_gateway.tests")
START = 7.0


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(START)


def test_the_first_line_is_written_at_once_and_then_one_a_minute_with_their_number(
    clock: FixedClock, caplog: pytest.LogCaptureFixture
) -> None:
    throttle = LogThrottle(logger, clock=clock)
    written = []
    for second in range(130):
        before = len(caplog.records)
        throttle.log(logging.WARNING, "%s of %d", "failure", second)
        if len(caplog.records) > before:
            written.append((clock() - START, caplog.messages[-1]))
        clock.advance(1.0)
    assert written == [
        (0.0, "failure of 0"),
        (60.0, "failure of 60 (60 times in the last minute)"),
        (120.0, "failure of 120 (60 times in the last minute)"),
    ]


class Loop:
    """What a throttle needs of an event loop: timers, which a test lets run."""

    def __init__(self, clock: FixedClock) -> None:
        self._clock = clock
        self.timers: list[tuple[float, object]] = []

    def call_later(self, seconds: float, call: object) -> object:
        self.timers.append((self._clock() + seconds, call))
        return call

    def run_until(self, moment: float) -> None:
        while due := [timer for timer in self.timers if timer[0] <= moment]:
            at, call = min(due, key=lambda timer: timer[0])
            self.timers.remove((at, call))
            self._clock.advance(at - self._clock())
            call()  # type: ignore[operator]  # as the throttle gives it
        self._clock.advance(moment - self._clock())


def test_a_burst_that_ends_is_counted_within_a_minute(
    clock: FixedClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop(clock)
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    throttle = LogThrottle(logger, clock=clock)
    for number in range(1000):
        throttle.log(logging.WARNING, "failure %d", number)
    throttle.log(logging.WARNING, "something else")
    assert len(loop.timers) == 1
    loop.run_until(START + 59.0)
    assert caplog.messages == ["failure 0", "something else"]
    loop.run_until(START + 61.0)
    assert caplog.messages[2:] == ["failure 999 (999 times in the last minute)"]
    throttle.log(logging.WARNING, "failure %d", 1000)  # in the minute that began with the line above
    assert len(caplog.messages) == 3
    loop.run_until(START + 200.0)
    assert caplog.messages[3:] == ["failure 1000"]
    assert loop.timers == []
    throttle.log(logging.WARNING, "failure %d", 1001)
    assert caplog.messages[4:] == ["failure 1001"]


def test_lines_of_different_kinds_do_not_wait_for_each_other_up_to_a_number_of_kinds(
    clock: FixedClock, caplog: pytest.LogCaptureFixture
) -> None:
    throttle = LogThrottle(logger, clock=clock)
    for number in range(10_000):
        throttle.log(logging.WARNING, "of %d", number, kind=number)
    assert len(caplog.messages) == 65
    clock.advance(61.0)
    for number in range(10_000, 10_005):
        throttle.log(logging.WARNING, "of %d", number, kind=number)
    assert caplog.messages[65:67] == ["of 9999 (9935 times in the last minute)", "of 10000"]
    assert len(caplog.messages) == 65 + 6


def test_an_error_is_logged_with_the_line_that_it_belongs_to(
    clock: FixedClock, caplog: pytest.LogCaptureFixture
) -> None:
    throttle = LogThrottle(logger, clock=clock)
    for number in range(2):
        throttle.log(logging.ERROR, "failed", error=ValueError(number))
        clock.advance(61.0)
    assert [record.exc_info and str(record.exc_info[1]) for record in caplog.records] == ["0", "1"]
    assert {record.levelno for record in caplog.records} == {logging.ERROR}


def test_an_outage_is_explained_in_the_line_and_has_no_traceback(
    clock: FixedClock, caplog: pytest.LogCaptureFixture
) -> None:
    throttle = LogThrottle(logger, clock=clock)
    outage = StoreUnavailable("usage")
    outage.__cause__ = OSError("no %s there\nand more")
    for _ in range(2):
        throttle.log(logging.WARNING, "retried every %g s.", 5.0, error=outage)
    clock.advance(61.0)
    throttle.log(logging.WARNING, "retried every %g s.", 5.0, error=outage)
    reason = "The database did not answer (usage, no %s there): see that it runs and that `database` names it."
    assert caplog.messages == [
        f"retried every 5 s. {reason}",
        f"retried every 5 s. {reason} (2 times in the last minute)",
    ]
    assert [record.exc_info for record in caplog.records] == [None, None]
