"""What the log says of outages: one line a minute, however long or many they are."""

import logging

import pytest

from machpay_gateway.limiters.redis.outage_log import OutageLog
from machpay_gateway.limiters.redis.refusals import ServerRefusal
from tests.clocks import FixedClock

FULL = ServerRefusal("its memory is full", "raise its `maxmemory`", passes=True)
DECIDED = "limits were decided without it since the last such line"


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(1000.0)


@pytest.fixture
def log(clock: FixedClock, caplog: pytest.LogCaptureFixture) -> OutageLog:
    caplog.set_level(logging.WARNING, "machpay_gateway")
    return OutageLog(clock=clock)


def test_one_outage_is_logged_at_its_begin_and_at_its_end(
    log: OutageLog, clock: FixedClock, caplog: pytest.LogCaptureFixture
) -> None:
    log.begin("LateReply: no reply", None)
    clock.advance(4)
    log.begin("LateReply: no reply", None)  # each attempt to connect says so
    log.end()
    assert caplog.messages == [
        "Redis does not answer: limits are decided without it. LateReply: no reply",
        "Redis answers again, after 4.0 s.",
    ]


def test_a_refusal_that_shows_later_is_logged_once_with_the_way_out(
    log: OutageLog, clock: FixedClock, caplog: pytest.LogCaptureFixture
) -> None:
    log.begin("LateReply: no reply", None)
    for _ in range(3):
        clock.advance(1)
        log.begin("OutOfMemoryError: OOM", FULL)
    assert caplog.messages[1:] == [
        "Redis does not serve the limits: its memory is full. The way out: raise its `maxmemory`."
    ]


def test_a_long_outage_is_logged_once_a_minute_with_its_decisions(
    log: OutageLog, clock: FixedClock, caplog: pytest.LogCaptureFixture
) -> None:
    log.remind(5)  # from an outage before
    log.begin("OutOfMemoryError: OOM", FULL)
    for second in range(180):
        log.remind(5 + 10 * second)
        clock.advance(1)
    assert [message.partition(" The way")[0] for message in caplog.messages] == [
        "Redis does not serve the limits: its memory is full.",
        f"Redis has not answered for 60 s: 600 {DECIDED}. its memory is full.",
        f"Redis has not answered for 120 s: 600 {DECIDED}. its memory is full.",
    ]


@pytest.mark.parametrize("refusal", [None, FULL])
def test_outages_that_flap_are_one_line_a_minute_with_their_number(
    log: OutageLog, clock: FixedClock, caplog: pytest.LogCaptureFixture, refusal: ServerRefusal | None
) -> None:
    for _ in range(111):
        log.begin("ConnectionError: reset", refusal)
        clock.advance(0.25)
        log.end()
        clock.advance(0.125)
        log.remind(0)
    assert len(caplog.messages) == 2  # the first outage
    clock.advance(60)
    log.remind(0)
    log.remind(0)
    (last,) = caplog.messages[2:]
    assert last.startswith("Redis answers: in the last minute it was away 110 times, for 27.5 s. ")


def test_an_outage_among_those_that_flap_is_logged_when_it_lasts(
    log: OutageLog, clock: FixedClock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        log.begin("LateReply: late", None)
        clock.advance(1)
        log.end()
    log.begin("LateReply: late", None)
    clock.advance(61)
    log.remind(7)
    log.end()
    assert caplog.messages[2:] == [
        f"Redis has not answered for 61 s, and was away 3 times in the last minute: 7 {DECIDED}. LateReply: late",
        "Redis answers again, after 61.0 s.",
    ]
