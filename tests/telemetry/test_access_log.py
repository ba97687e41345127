"""What a line of the access log holds, and what it never does."""

import json
from pathlib import Path

import pytest

from machpay_gateway.core.decision.principal import ANONYMOUS
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.usage.outcome import LimitedOutcome, RequestOutcome
from machpay_gateway.telemetry.access_log import AccessLog
from machpay_gateway.telemetry.steps import Steps

BEGAN = 100.0
ROUTE = Route("GET /v1/skills", public=True)
FACTS = RequestFacts("GET", "/v1/skills", (), 0xC0000201, b"a1b2")


@pytest.mark.parametrize(
    "steps, decision, upstream",
    [
        (Steps(BEGAN, None, BEGAN + 0.001, BEGAN + 0.003, BEGAN + 0.004), 1.0, 2.0),
        (Steps(BEGAN, BEGAN, BEGAN + 0.001, None, BEGAN + 0.004), 1.0, None),  # refused
        (Steps(BEGAN, None, None, BEGAN + 0.003, BEGAN + 0.004), None, 3.0),  # by the control plane
        (Steps(BEGAN, None, None, None, BEGAN + 0.004), None, None),  # what is no request
    ],
)
async def test_a_line_has_the_duration_of_each_step(
    tmp_path: Path, steps: Steps, decision: float | None, upstream: float | None
) -> None:
    log = AccessLog(str(tmp_path / "log"), clock=lambda: 1_700_049_600.25)
    log.add(FACTS, ANONYMOUS, ROUTE, "allowed", 200, steps, 17)
    await log.close()
    assert json.loads((tmp_path / "log").read_text()) == {
        "time": "2023-11-15T12:00:00.250Z",
        "request_id": "a1b2",
        "method": "GET",
        "path": "/v1/skills",
        "status": 200,
        "outcome": "allowed",
        "route": "GET /v1/skills",
        "key": None,
        "address": "192.0.2.1",
        "milliseconds": 4.0,
        "decision_milliseconds": decision,
        "upstream_milliseconds": upstream,
        "bytes": 17,
    }


async def test_a_line_names_the_violated_policies_of_the_requests_that_have_some(tmp_path: Path) -> None:
    log = AccessLog(str(tmp_path / "log"))
    steps = Steps(BEGAN, None, None, None, BEGAN)
    outcomes: list[RequestOutcome] = [
        "rate_limited",
        LimitedOutcome(Reason.RATE_LIMITED, ("minute", "account-month")),
        "rate_limited",
    ]
    for outcome in outcomes:
        log.add(FACTS, ANONYMOUS, ROUTE, outcome, 429, steps, 17)
    await log.close()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["outcome"] for line in lines] == ["rate_limited"] * 3
    assert [line.get("violated_policies") for line in lines] == [None, ["minute", "account-month"], None]


async def test_a_line_has_the_forwarded_path_if_that_is_another_one(tmp_path: Path) -> None:
    log = AccessLog(str(tmp_path / "log"))
    steps = Steps(BEGAN, BEGAN, BEGAN, BEGAN, BEGAN)
    for forwarded in (None, "/internal/1%2Fx", f"/keys/sk_live_{'a1B2' * 12}"):
        log.add(FACTS, ANONYMOUS, ROUTE, "allowed", 200, steps, 17, b"0af7", forwarded)
    await log.close()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["trace_id"] for line in lines] == ["0af7"] * 3
    assert [line.get("forwarded_path") for line in lines[:2]] == [None, "/internal/1%2Fx"]
    assert "a1B2a1B2" not in lines[2]["forwarded_path"]


async def test_lines_that_could_not_be_written_are_counted(tmp_path: Path) -> None:
    log = AccessLog(str(tmp_path))  # which is a folder
    for _ in range(3):
        log.add(FACTS, ANONYMOUS, ROUTE, "allowed", 200, Steps(BEGAN, None, None, None, BEGAN), 17)
    await log.close()
    assert log.lost == 3
