"""Which refusals are logged one by one, and which are counted."""

import logging

import pytest

from machpay_gateway.core.decision.decision import Denied
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.telemetry.refusals import RefusalLog
from tests.clocks import FixedClock

FACTS = RequestFacts("GET", "/v1/x", (), 1, b"5")


def refuse(level: int, caplog: pytest.LogCaptureFixture, *denials: Denied) -> list[str]:
    clock = FixedClock(0.0)
    refusals = RefusalLog(clock=clock)
    with caplog.at_level(level, "machpay_gateway"):
        for denied in denials:
            refusals.add(FACTS, denied)
        clock.advance(61.0)
        refusals.add(FACTS, denials[0])
    return caplog.messages


UNKNOWN = Denied(Reason.INVALID_CREDENTIALS, "unknown")
EXPIRED = Denied(Reason.INVALID_CREDENTIALS, "expired")


def test_refusals_for_the_same_detail_are_one_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    messages = refuse(logging.INFO, caplog, UNKNOWN, UNKNOWN, EXPIRED, UNKNOWN)
    assert [message.split("; ")[0] for message in messages] == [
        "request 5 refused: invalid_credentials (unknown)",
        "request 5 refused: invalid_credentials (expired)",
        "request 5 refused: invalid_credentials (unknown)",
    ]
    assert messages[-1].endswith(" address=0.0.0.1 (3 times in the last minute)")
    assert [record.count for record in caplog.records] == [1, 1, 3]  # type: ignore[attr-defined]  # it has it from us


def test_at_level_debug_each_is_a_line(caplog: pytest.LogCaptureFixture) -> None:
    assert len(refuse(logging.DEBUG, caplog, *[UNKNOWN] * 5)) == 6


def test_at_level_warning_there_is_none(caplog: pytest.LogCaptureFixture) -> None:
    assert refuse(logging.WARNING, caplog, *[UNKNOWN] * 5) == []
