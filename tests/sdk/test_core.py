import datetime as dt
from email.utils import format_datetime
from typing import Any

import http_sf
import httpx2
import machpay
import pytest
from hypothesis import given
from hypothesis import strategies as st
from machpay._call import Call, path_of
from machpay._options import Options
from machpay._rate_limit import RateLimitPolicy, rate_limit_from
from machpay._response import Response
from machpay._retry import FailedAttempt, back_off, failed_attempt, wait_before_retry

OPTIONS = Options("https://api.example.com")
GET = Call("GET", "/v1/whoami")


@given(st.text(min_size=1))
def test_an_identifier_stays_one_segment_of_the_path(key_id: str) -> None:
    try:
        path = path_of("/v1/keys/{key_id}/rotate", key_id=key_id)
    except machpay.InvalidArgumentError:
        return
    url = httpx2.URL("https://api.example.com" + path)
    assert url.path == f"/v1/keys/{key_id}/rotate"
    assert url.raw_path.count(b"/") == 4


@pytest.mark.parametrize(
    "retries, draw, expected",
    [(0, 1.0, 0.5), (1, 1.0, 1.0), (4, 1.0, 8.0), (5, 1.0, 8.0), (5000, 1.0, 8.0), (3, 0.5, 2.0), (3, 0.0, 0.0)],
)
def test_back_off_doubles_up_to_its_limit_and_any_part_of_it_may_be_drawn(
    retries: int, draw: float, expected: float
) -> None:
    assert back_off(retries, draw) == expected


def answer(status: int, **headers: str) -> Response:
    return Response(status, httpx2.Headers({name.replace("_", "-"): value for name, value in headers.items()}))


@pytest.mark.parametrize(
    "call, outcome, elapsed, expected, why",
    [
        (GET, answer(503), 0.0, 0.5, "passes"),
        (GET, answer(503, x_should_retry="false"), 0.0, None, "the server says not to"),
        (GET, answer(503, retry_after="0"), 0.0, 0.0, "at once"),
        (GET, answer(500), 0.0, 0.5, "happens no more than once"),
        (Call("PUT", "/v1/x"), answer(500), 0.0, 0.5, "idempotent"),
        (Call("DELETE", "/v1/x"), answer(504), 0.0, 0.5, "idempotent"),
        (Call("POST", "/v1/keys"), answer(500), 0.0, None, "could be done twice"),
        (Call("POST", "/v1/keys"), answer(429, retry_after="7"), 0.0, 7.0, "was refused"),
        (Call("POST", "/v1/keys"), failed_attempt(GET, "o", httpx2.ConnectError("refused")), 0.0, 0.5, "was not sent"),
        (Call("POST", "/v1/keys"), failed_attempt(GET, "o", httpx2.ReadTimeout("late")), 0.0, None, "may have arrived"),
        (GET, answer(429, retry_after="61"), 0.0, 61.0, "the longest wait of the gateway"),
        (GET, answer(409, x_should_retry="true"), 0.0, 0.5, "the server says so"),
        (GET, answer(409), 0.0, None, "the conflict stays"),
        (GET, answer(429, retry_after="60"), 29.0, 60.0, "just within the deadline of 90 s"),
        (GET, answer(429, retry_after="60"), 30.0, None, "not begun: the deadline"),
        (GET, answer(503), 89.6, None, "not begun: the deadline"),
        (GET, failed_attempt(GET, "o", httpx2.ConnectError("refused")), 0.0, 0.5, "no answer"),
        (GET, failed_attempt(GET, "o", httpx2.ReadTimeout("late")), 30.0, 0.5, "no answer in time"),
        (GET, failed_attempt(GET, "o", httpx2.RemoteProtocolError("cut")), 0.0, 0.5, "a broken answer"),
        (GET, failed_attempt(GET, "o", httpx2.LocalProtocolError("ours")), 0.0, None, "would be as wrong again"),
        (Call("POST", "/v1/keys"), answer(503), 0.0, None, "could be done twice"),
        (Call("PATCH", "/v1/keys/k"), answer(503), 0.0, None, "could be done twice"),
        (Call("POST", "/v1/keys", idempotency_key="k"), answer(503), 0.0, 0.5, "done once by its key"),
    ],
)
def test_when_a_call_is_tried_again(
    call: Call, outcome: Response | FailedAttempt, elapsed: float, expected: float | None, why: str
) -> None:
    assert wait_before_retry(call, outcome, OPTIONS, retries=0, elapsed=elapsed, draw=1.0) == expected, why


@pytest.mark.parametrize(
    "outcome, received_for, expected, why",
    [
        (answer(503, retry_after="4"), 5.9, 4.0, "within ten seconds"),
        (answer(503, retry_after="4"), 6.0, None, "too late"),
        (failed_attempt(GET, "o", httpx2.ReadTimeout("late")), 10.0, None, "too late"),
        (failed_attempt(GET, "o", httpx2.ConnectError("refused")), None, 0.5, "nobody has received it"),
        (
            failed_attempt(GET, "o", httpx2.ConnectError("refused")),
            30.0,
            None,
            "an earlier attempt may have arrived",
        ),
    ],
)
def test_what_is_repeatable_for_a_time_is_not_repeated_after_it(
    outcome: Response | FailedAttempt, received_for: float | None, expected: float | None, why: str
) -> None:
    call = Call("POST", "/oauth/token", server="auth_url", repeatable_seconds=10.0)
    wait = wait_before_retry(call, outcome, OPTIONS, retries=0, elapsed=30.0, draw=1.0, received_for=received_for)
    assert wait == expected, why


@given(st.integers(0, 5), st.floats(0, 200), st.floats(0, 1, exclude_max=True), st.integers(0, 10**6))
def test_no_wait_is_longer_than_promised(retries: int, elapsed: float, draw: float, retry_after: int) -> None:
    options = Options("https://api.example.com", max_retries=4)
    for outcome in (answer(429, retry_after=str(retry_after)), answer(503)):
        wait = wait_before_retry(GET, outcome, options, retries=retries, elapsed=elapsed, draw=draw)
        if wait is not None:
            assert retries < 4
            assert 0 <= wait <= 120 + 8
            assert elapsed + wait < options.deadline


NOW = dt.datetime(2026, 11, 24, 14, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    "retry_after, date, expected",
    [
        ("12", None, 12.0),
        (" 12 ", None, 12.0),
        ("0", None, 0.0),
        (format_datetime(NOW + dt.timedelta(seconds=9), usegmt=True), None, 9.0),
        (format_datetime(NOW + dt.timedelta(hours=1), usegmt=True), NOW + dt.timedelta(minutes=59), 60.0),
        (format_datetime(NOW - dt.timedelta(seconds=9), usegmt=True), None, 0.0),
        ("1.5", None, None),
        ("-1", None, None),
        ("soon", None, None),
        ("", None, None),
    ],
)
def test_retry_after_is_read_in_both_forms(retry_after: str, date: dt.datetime | None, expected: float | None) -> None:
    headers = {"retry-after": retry_after} | ({"date": format_datetime(date, usegmt=True)} if date else {})
    assert Response(429, httpx2.Headers(headers), received_at=NOW.timestamp()).retry_after == expected


def test_rate_limits_are_put_together_by_name() -> None:
    limit = rate_limit_from(
        '"minute";q=1000;w=60, "concurrency";q=50;qu="concurrent-requests"', '"minute";r=742;t=12, "concurrency";r=47'
    )
    assert limit is not None
    assert limit.policies == (
        RateLimitPolicy("minute", 1000, 60, "requests", 742, 12),
        RateLimitPolicy("concurrency", 50, None, "concurrent-requests", 47, None),
    )
    assert list(limit) == [limit["minute"], limit["concurrency"]]
    assert "minute" in limit
    assert limit.get("day") is None
    with pytest.raises(KeyError, match="there are: minute, concurrency"):
        limit["day"]


@pytest.mark.parametrize(
    "raw",
    [None, "", "  ", '"minute', '"minute";r=', '"a",', '"a" "b"', ',"a"', '"a";R=1', "1;r=2", "é;r=1", '("a");r=1'],
)
def test_a_malformed_rate_limit_is_none(raw: str | None) -> None:
    assert rate_limit_from(None, raw) is None


@pytest.mark.parametrize(
    "raw, name, remaining",
    [
        ('"a";r=1;x;y=?1;z=:YQ==:;d=1.5;s="q\\"";k=tok', "a", 1),
        ("a;r=5", "a", 5),
        ('"a\\"b";r=1', 'a"b', 1),
        ('"a";r=1.5', "a", None),
        ('"a";r="1"', "a", None),
        ('"a";r=1;r=2', "a", 2),  # RFC 9651: the last one counts
    ],
)
def test_parameters_that_mean_nothing_here_are_passed_over(raw: str, name: str, remaining: int | None) -> None:
    limit = rate_limit_from(None, raw)
    assert limit is not None
    assert limit[name].remaining == remaining


_NAMES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=8)


@given(
    st.lists(st.tuples(_NAMES, st.integers(-(10**14), 10**15 - 1), _NAMES), max_size=4, unique_by=lambda row: row[0])
)
def test_what_another_implementation_writes_is_read_as_it_was_meant(rows: list[tuple[str, int, str]]) -> None:
    items: Any = [(name, {"q": quota, "qu": unit}) for name, quota, unit in rows]
    field = http_sf.ser(items) if rows else ""
    limit = rate_limit_from(field, None)
    read = [(policy.name, policy.quota, policy.unit) for policy in limit or ()]
    assert read == rows


@given(st.text(max_size=40))
def test_no_field_makes_reading_fail(raw: str) -> None:
    rate_limit_from(raw, raw)
