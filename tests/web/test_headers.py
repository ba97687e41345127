from typing import Any

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from machpay_gateway.core.decision.decision import Denied
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.limits.admission import Admitted, Exceeded
from machpay_gateway.core.limits.plan import tier_plan
from machpay_gateway.core.limits.rate import CONCURRENCY, MAX_LIMIT, TIERS, Tier
from machpay_gateway.web.headers import Headers, limit_headers, refusal_headers, response_headers

STANDARD = TIERS["standard"]


class Slot:
    def release(self) -> None: ...

    def charge(self, units: int) -> None: ...


def granted(left: int = 742, resets_in: float = 11.2, slots_left: int = 47, tier: Tier = STANDARD) -> Admitted:
    return Admitted(Slot(), (left, resets_in, slots_left), tier_plan(tier))


def quota_headers(admission: Admitted, *, legacy: bool) -> Headers:
    """Return the headers of *admission*; a response has the same beside its request id."""
    fields = limit_headers(admission.plan, admission.levels, legacy=legacy)
    assert response_headers(admission, b"x", legacy=legacy) == [(b"x-request-id", b"x"), *fields]
    return fields


def parsed(fields: Headers, name: bytes) -> Any:  # noqa: ANN401 - as http_sf has it
    (value,) = [value for field_name, value in fields if field_name == name]
    return http_sf.parse(value, tltype="list")


def test_the_fields_are_those_of_the_draft() -> None:
    fields = quota_headers(granted(), legacy=False)
    assert fields == [
        (b"ratelimit-policy", b'"minute";q=1000;w=60, "concurrency";q=50;qu="concurrent-requests"'),
        (b"ratelimit", b'"minute";r=742;t=12, "concurrency";r=47'),
    ]


def test_the_fields_are_structured_fields() -> None:
    fields = quota_headers(granted(), legacy=False)
    assert parsed(fields, b"ratelimit-policy") == [
        ("minute", {"q": 1000, "w": 60}),
        (CONCURRENCY, {"q": 50, "qu": "concurrent-requests"}),
    ]
    assert parsed(fields, b"ratelimit") == [("minute", {"r": 742, "t": 12}), (CONCURRENCY, {"r": 47})]


RATES = st.one_of(
    [
        st.builds(
            lambda amount, multiple, unit=unit: f"{amount} per {multiple} {unit}",
            st.integers(1, MAX_LIMIT),
            st.integers(1, most),
        )
        for unit, most in {"second": 99, "minute": 99, "hour": 99, "day": 99, "month": 99, "year": 31}.items()
    ]
)


@given(RATES, st.integers(1, 10**6), st.integers(0, MAX_LIMIT), st.floats(0, 1e9))
def test_any_tier_and_state_makes_fields_that_parse_and_speak_of_the_same_policies(
    rate: str, concurrency: int, left: int, resets_in: float
) -> None:
    tier = Tier(rate, concurrency)
    fields = quota_headers(granted(left, resets_in, concurrency, tier), legacy=True)
    policies, state = parsed(fields, b"ratelimit-policy"), parsed(fields, b"ratelimit")
    assert (
        [name for name, _ in policies] == [name for name, _ in state] == [tier_plan(tier).policies[0].name, CONCURRENCY]
    )
    assert policies[0][1] == {"q": tier.limit, "w": tier.window_seconds}
    assert state[0][1]["r"] == left
    assert state[0][1]["t"] >= max(1, resets_in)


@pytest.mark.parametrize(
    "resets_in, seconds", [(0.0, 1), (0.001, 1), (1.0, 1), (1.001, 2), (60.999, 61), (61.0, 61), (-1e-7, 1)]
)
def test_the_reset_is_whole_seconds_rounded_up_and_never_0(resets_in: float, seconds: int) -> None:
    fields = quota_headers(granted(resets_in=resets_in), legacy=True)
    assert parsed(fields, b"ratelimit")[0][1]["t"] == seconds
    assert (b"x-ratelimit-reset", b"%d" % seconds) in fields


def test_legacy_fields_are_optional() -> None:
    assert quota_headers(granted(), legacy=True)[2:] == [
        (b"x-ratelimit-limit", b"1000"),
        (b"x-ratelimit-remaining", b"742"),
        (b"x-ratelimit-reset", b"12"),
    ]
    assert response_headers(granted(), b"x", legacy=True)[-1] == (b"x-ratelimit-reset", b"12")


def test_a_response_has_the_quota_and_the_request_id() -> None:
    fields = response_headers(granted(), b"req-1", legacy=False)
    assert sorted(name for name, _ in fields) == [b"ratelimit", b"ratelimit-policy", b"x-request-id"]
    assert (b"x-request-id", b"req-1") in fields


def test_the_quota_headers_are_those_of_the_admission() -> None:
    fields = response_headers(granted(tier=TIERS["test"]), b"req-1", legacy=False)
    assert parsed(fields, b"ratelimit-policy")[0][1] == {"q": 100, "w": 60}


def test_one_response_does_not_change_the_next() -> None:
    first = response_headers(granted(), b"req-1", legacy=False)
    first.append((b"x-added", b"1"))
    assert len(response_headers(granted(), b"req-2", legacy=False)) == 3


def test_a_public_response_has_only_the_request_id() -> None:
    assert response_headers(None, b"req-1", legacy=True) == [(b"x-request-id", b"req-1")]


@pytest.mark.parametrize("policy", ["minute", CONCURRENCY])
def test_a_refusal_for_quota_has_the_quota(policy: str) -> None:
    exceeded = Exceeded((policy,), wait_seconds=3.5, levels=(2, 2.5, 1), plan=tier_plan(STANDARD))
    denied = Denied(Reason.RATE_LIMITED, exceeded=exceeded)
    fields = refusal_headers(denied, legacy=False)
    assert parsed(fields, b"ratelimit") == [("minute", {"r": 2, "t": 3}), (CONCURRENCY, {"r": 1})]


@pytest.mark.parametrize("reason", [Reason.INVALID_CREDENTIALS, Reason.INSUFFICIENT_SCOPE, Reason.UNAVAILABLE])
def test_a_refusal_for_another_reason_has_no_quota(reason: Reason) -> None:
    assert refusal_headers(Denied(reason), legacy=True) == []
