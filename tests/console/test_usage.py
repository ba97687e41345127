"""The pages on usage: HTML, JSON for the charts, and CSV."""

import csv
import re
import time
from dataclasses import replace
from html import unescape
from io import StringIO
from typing import Any
from urllib.parse import quote

import pytest
from httpx2 import AsyncClient, Response
from hypothesis import given
from hypothesis import strategies as st

from machpay_gateway.console.csv_files import format_csv
from machpay_gateway.console.usage_csv import HEADER
from machpay_gateway.core.decision.policy import Policy
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.core.limits.admission import (
    STALE,
    AdmissionRequest,
    Admitted,
    LimiterUnavailable,
    Remaining,
    Stale,
)
from machpay_gateway.core.limits.plan import tier_plan
from machpay_gateway.core.usage.counters import BOUNDS, MINUTE, UsageBatch, UsageKey, UsageRow
from machpay_gateway.core.usage.outcome import OutcomeGroup
from machpay_gateway.core.usage.overview import PERIODS, OverviewPeriod
from tests.console.harness import API_URL, STRANGER, VIEWER, Rig

HOSTILE = '=HYPERLINK("https://evil.example","<script>alert(1)</script>")'
FORMATS = ("usage", "usage.json", "usage.csv")


async def counted(
    rig: Rig,
    key: KeyRecord,
    *,
    route: str = "GET /v1/skills",
    outcome: str = "allowed",
    status: int = 200,
    count: int = 1,
    seconds_ago: float = 0.0,
    latency: float = 0.005,
) -> None:
    """Store the usage of so many requests with *key* at that time."""
    start = MINUTE.start_of(time.time() - seconds_ago)
    bound = next((at for at, bound in enumerate(BOUNDS) if latency <= bound), len(BOUNDS))
    histogram = tuple(count * (at == bound) for at in range(len(BOUNDS) + 1))
    row = UsageRow(UsageKey(key.id, start, route, outcome, status), latency * count, histogram)
    await rig.gateway.store.add_usage(UsageBatch((row,), (), {key.id: key.account_id}))


async def load_json(browser: AsyncClient, query: str = "") -> dict[str, Any]:
    """Return the JSON document that the page's script polls."""
    answer = await browser.get(f"/console/usage.json?{query}")
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def lines(browser: AsyncClient, query: str = "") -> list[dict[str, str]]:
    """Return the rows of the CSV, by the names in its head."""
    answer = await browser.get(f"/console/usage.csv?{query}")
    assert answer.status_code == 200, answer.text
    return list(csv.DictReader(StringIO(answer.text, newline="")))


def text_of(page: Response, name: str) -> str:
    """Return the text of that name on *page*."""
    assert page.status_code == 200, page.text
    return unescape(re.search(rf'data-text="{name}">([^<]*)<', page.text)[1])  # type: ignore[index]


def cells(page: Response, table: str) -> list[list[str]]:
    """Return the texts in the rows of a table of *page*."""
    body = re.search(rf'<tbody data-rows="{table}">(.*?)</tbody>', page.text, re.DOTALL)[1]  # type: ignore[index]
    rows = re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
    return [[unescape(re.sub(r"<[^>]*>", "", cell)) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows]


async def test_a_request_is_shown_when_it_is_stored(rig: Rig) -> None:
    key, secret = await rig.key()
    caller, browser = rig.http(url=API_URL), await rig.signed_in()
    answers = [
        await caller.get("/v1/skills", headers={"Authorization": f"Bearer {secret}"}),
        await caller.post("/v1/skills/execute", headers={"Authorization": f"Bearer {secret}"}),
    ]
    assert [answer.status_code for answer in answers] == [200, 403]
    await rig.gateway.recorder.close()
    rig.gateway.recorder.open()
    for query in (f"key={key.id}&period=hour", "period=hour"):
        document = await load_json(browser, query)
        assert (document["requests"], document["allowed"]) == (2, 1)
        assert sum(document["groups"]["admitted"]) == sum(document["groups"]["forbidden"]) == 1
        assert [row[0]["text"] for row in document["tables"]["outcomes"]] == ["allowed", "insufficient_scope"]
        assert document["told"]["refused"] == "50.0% (1)"


async def test_the_page_the_json_and_the_csv_agree(rig: Rig) -> None:
    key, _ = await rig.key()
    await counted(rig, key, count=1200, latency=0.02)
    await counted(rig, key, count=40, outcome="rate_limited", status=429, latency=0.001)
    await counted(rig, key, count=5, route="POST /v1/skills/execute", status=503, latency=20)
    browser = await rig.signed_in()
    page, document = await browser.get(f"/console/usage?key={key.id}"), await load_json(browser, f"key={key.id}")
    assert (text_of(page, "requests"), text_of(page, "refused")) == ("1,245", "3.2% (40)")
    assert text_of(page, "rate limited") == "40"
    for name, words in document["told"].items():
        assert text_of(page, name) == words
    for name in ("routes", "outcomes", "buckets"):
        assert cells(page, name) == [[cell["text"] for cell in row] for row in document["tables"][name]]
    assert [row[:4] for row in cells(page, "routes")] == [
        ["GET /v1/skills", "1,240", "99.6%", "3.2%"],
        ["POST /v1/skills/execute", "5", "0.4%", "0.0%"],
    ]
    assert cells(page, "routes")[1][4] == "10 s or more"
    rows = await lines(browser, f"key={key.id}")
    assert [(row["outcome"], row["status"], row["group"], row["requests"]) for row in rows] == [
        ("allowed", "200", "admitted", "1200"),
        ("rate_limited", "429", "rate limited", "40"),
        ("allowed", "503", "error", "5"),
    ]
    assert (rows[0]["mean_ms"], rows[1]["p99_ms"]) == ("20.000", "0.990")


@pytest.mark.parametrize("period", PERIODS.values(), ids=PERIODS)
async def test_each_period_has_all_its_buckets_up_to_the_current_one(rig: Rig, period: OverviewPeriod) -> None:
    key, _ = await rig.key()
    inside, outside = period.seconds - 2 * period.bucket.seconds, period.seconds
    await counted(rig, key, seconds_ago=inside)
    await counted(rig, key, count=2)
    await counted(rig, key, count=4, seconds_ago=outside)
    browser = await rig.signed_in()
    document = await load_json(browser, f"period={period.name}")
    starts, length = document["starts"], period.bucket.seconds
    assert starts == list(range(document["start"], document["end"], length))
    assert len(starts) * length == period.seconds
    assert starts[-1] <= time.time() < document["end"] + length
    assert document["start"] <= time.time() - period.seconds + length
    admitted = document["groups"]["admitted"]
    assert (sum(admitted), sum(admitted[-2:])) == (3, 2)  # a minute may have ended since it was counted
    assert [row["requests"] for row in await lines(browser, f"period={period.name}")] == ["1", "2"]
    assert set(document["groups"]) == set(OutcomeGroup)
    assert {len(counts) for counts in document["groups"].values()} == {len(starts)}
    assert [value for value in document["latency_ms"]["p50"] if value is not None] == [3.75, 3.75]
    page = await browser.get(f"/console/usage?period={period.name}")
    assert f'aria-current="page">{period.label}</a>' in page.text
    assert cells(page, "buckets")[0][0].endswith("so far")
    assert len(cells(page, "buckets")) == len(starts)


async def test_a_key_without_requests_has_empty_figures(rig: Rig) -> None:
    key, _ = await rig.key()
    browser = await rig.signed_in()
    page = await browser.get(f"/console/usage?key={key.id}")
    assert [text_of(page, name) for name in ("requests", "refused", "p99", "busiest")] == ["0", "– (0)", "–", "none"]
    assert await lines(browser, f"key={key.id}") == []


async def test_every_refusal_has_a_code_and_a_description(rig: Rig) -> None:
    key, _ = await rig.key()
    await counted(rig, key, outcome="address_not_allowed", status=403)
    await counted(rig, key, outcome="of_a_later_version", status=418)
    page = await (await rig.signed_in()).get("/console/usage")
    by_code = {row[0]: row[4:] for row in cells(page, "outcomes")}
    assert by_code == {
        "address_not_allowed": ["forbidden", "These credentials may not be used from this address."],
        "of_a_later_version": ["error", "The reason for this refusal is from another version."],
    }
    assert '<a href="/problems/address_not_allowed">' in page.text


async def test_an_account_sees_its_own_usage_only(rig: Rig) -> None:
    key, _ = await rig.key()
    other, _ = await rig.key(account=rig.other)
    await counted(rig, key, count=3)
    await counted(rig, other, count=5)
    ours, theirs, viewer = await rig.signed_in(), await rig.signed_in(STRANGER), await rig.signed_in(VIEWER)
    assert [(await load_json(browser))["requests"] for browser in (ours, theirs, viewer)] == [3, 5, 3]
    for name in FORMATS:
        for foreign in (other.id, rig.other.id, rig.account.id, "key_none", "%00", "%ED%A0%80", "'", "../keys"):
            assert (await ours.get(f"/console/{name}?key={foreign}")).status_code == 404
    assert f'href="/console/usage?key={key.id}"' in (await viewer.get(f"/console/keys/{key.id}")).text


@pytest.mark.parametrize("name", FORMATS)
async def test_usage_requires_a_session(rig: Rig, name: str) -> None:
    answer = await rig.http().get(f"/console/{name}")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/console/sign-in?next=/{name}")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("period", ["year", "HOUR", "-1", "<b>", "%00", "%ED%A0%80", "9" * 50])
async def test_an_invalid_period_is_refused(rig: Rig, name: str, period: str) -> None:
    answer = await (await rig.signed_in()).get(f"/console/{name}?period={period}")
    assert answer.status_code == 400
    assert "use hour, day, week, month" in answer.text
    assert "<b>" not in answer.text


@pytest.mark.parametrize("name", FORMATS)
async def test_an_unavailable_store_has_an_error_page(rig: Rig, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object, **__: object) -> object:
        raise StoreUnavailable("usage")

    browser = await rig.signed_in()
    monkeypatch.setattr(rig.gateway.store, "usage", away)
    answer = await browser.get(f"/console/{name}")
    assert answer.status_code == 503
    assert "temporarily unavailable" in answer.text


async def test_hostile_names_are_text_in_every_format(rig: Rig) -> None:
    key, _ = await rig.key(name='<img src=x onerror="alert(1)">')
    await counted(rig, key, route=HOSTILE)
    browser = await rig.signed_in()
    page = await browser.get(f"/console/usage?key={key.id}")
    assert "<script>alert" not in page.text
    assert "<img" not in page.text
    assert cells(page, "routes")[0][0] == HOSTILE
    document = await browser.get(f"/console/usage.json?key={key.id}")
    assert document.headers["content-type"] == "application/json"
    assert document.headers["cache-control"] == "no-store"
    assert document.headers["x-content-type-options"] == "nosniff"
    assert [row["route"] for row in await lines(browser, f"key={key.id}")] == [f"'{HOSTILE}"]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("GET /a", "GET /a"),
        ("", ""),
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("＝1", "'＝1"),  # noqa: RUF001 - a wide sign, which some read alike
        ("\t=1", "'\t'=1"),  # white space before a formula is skipped, and may be a separator
        ("\r=1", "'\r'=1"),
        ("\n=1", "'\n'=1"),
        ("x;=1+1", "x;'=1+1"),
        ("x, =1", "x, '=1"),
        ('x|"@A1"', 'x|"\'@A1"'),
        ("x '-1", "x ''-1"),
        ("a-b+c=d@e.example", "a-b+c=d@e.example"),  # within a word nothing begins
    ],
)
def test_formulas_are_escaped(text: str, expected: str) -> None:
    assert list(csv.reader(StringIO(format_csv([[text, 7]]), newline=""))) == [[expected, "7"]]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", " "])
@given(st.text("ab=+-@;,|\t\r\n\"' ＝", max_size=12))  # noqa: RUF001 - a wide sign
def test_no_cell_is_a_formula_with_any_separator(separator: str, text: str) -> None:
    written = format_csv([["head", text, "tail"]])
    cells = [cell for line in csv.reader(StringIO(written, newline=""), delimiter=separator) for cell in line]
    cells += re.split(rf"[\r\n{re.escape(separator)}]", written)  # by a reader that knows no quotes
    assert not [cell for cell in cells if re.match(r"[\s\"]*[=+\-@＝]", cell)]  # noqa: RUF001 - as above


async def test_the_csv_is_a_download(rig: Rig) -> None:
    key, _ = await rig.key()
    for route in ('GET /a,"b"', "GET /ä"):
        await counted(rig, key, route=route)
    answer = await (await rig.signed_in()).get(f"/console/usage.csv?key={key.id}&period=hour")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    assert re.fullmatch(rf'attachment; filename="usage-{key.id}-hour-\d+\.csv"', answer.headers["content-disposition"])
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    head, first, second = answer.text.removesuffix("\r\n").split("\r\n")  # RFC 4180 §2
    assert head == ",".join(f'"{name}"' for name in HEADER)
    assert first.split(",", 2)[2].startswith('"GET /a,""b""","allowed","200","admitted","1",')
    assert "GET /ä" in second


async def test_a_csv_of_many_lines_is_complete(rig: Rig) -> None:
    key, _ = await rig.key()
    start, histogram = MINUTE.start_of(time.time()), (1, *(0,) * len(BOUNDS))
    keys = [UsageKey(key.id, start, f"GET /{number:04}", "allowed", 200) for number in range(1100)]
    await rig.gateway.store.add_usage(UsageBatch([UsageRow(each, 0.0005, histogram) for each in keys], ()))
    rows = await lines(await rig.signed_in(), f"key={key.id}&period=hour")
    assert [row["route"] for row in rows] == [f"GET /{number:04}" for number in range(1100)]


async def test_viewing_shows_the_remaining_limits_and_takes_nothing(rig: Rig) -> None:
    key, _ = await rig.key()
    tier = rig.gateway.policy.tiers["standard"]
    granted = rig.gateway.limiter.admit(AdmissionRequest(key.id, key.version, tier_plan(tier), 7, group=key.account_id))
    assert isinstance(granted, Admitted)
    browser = await rig.signed_in()
    for _ in range(3):
        document = await load_json(browser, f"key={key.id}")
        assert document["meters"] == {
            "limit-minute": {"value": 993, "most": 1000},
            "limit-concurrency": {"value": 1, "most": 50},
        }
        page = await browser.get(f"/console/usage?key={key.id}")
        assert text_of(page, "limit-minute") == "993 of 1,000 left in this minute"
        assert text_of(page, "limit-concurrency") == "1 of 50 in use"
        assert 'max="1000" value="993"' in page.text
    granted.lease.release()
    assert (await load_json(browser, f"key={key.id}"))["meters"]["limit-concurrency"]["value"] == 0


@pytest.mark.parametrize(
    "standing, why",
    [(STALE, "the key has just been changed"), (LimiterUnavailable("for the log"), "the limiter is not responding")],
)
async def test_the_remaining_limits_may_be_unavailable(
    rig: Rig, standing: Stale | LimiterUnavailable, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def shown(_: AdmissionRequest) -> Remaining | Stale | LimiterUnavailable:
        return standing

    key, _ = await rig.key()
    monkeypatch.setattr(rig.gateway.limiter, "remaining", shown)
    browser = await rig.signed_in()
    page = await browser.get(f"/console/usage?key={key.id}")
    assert text_of(page, "limit-minute") == text_of(page, "limit-concurrency") == f"unavailable: {why}"
    assert "for the log" not in page.text
    assert (await load_json(browser, f"key={key.id}"))["meters"] == {"limit-minute": None, "limit-concurrency": None}


async def test_accounts_and_revoked_keys_have_no_limits(rig: Rig) -> None:
    key, _ = await rig.key()
    await counted(rig, key)
    await rig.gateway.keys.revoke(rig.account.id, key.id)
    browser = await rig.signed_in()
    for query in ("", f"key={key.id}"):
        page = await browser.get(f"/console/usage?{query}")
        assert text_of(page, "requests") == "1"
        assert "<meter" not in page.text
        assert (await load_json(browser, query))["meters"] == {}


@pytest.mark.parametrize(
    "rate, expected",
    [
        ("1000/minute", ", 30.0% of the limit of 1,000 per minute"),
        ("50/second", " (the limit of 50 per second does not compare to a minute)"),
        ("99/10 second", " (the limit of 99 in 10 seconds does not compare to a minute)"),
    ],
)
async def test_the_busiest_minute_is_compared_to_the_limit(
    rig: Rig, rate: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, _ = await rig.key()
    await counted(rig, key, count=300, seconds_ago=300)
    await counted(rig, key, count=12, seconds_ago=300, outcome="rate_limited", status=429)
    await counted(rig, key, count=200, seconds_ago=120)
    tiers = rig.gateway.policy.tiers
    monkeypatch.setattr(rig.gateway.policy, "tiers", {**tiers, "standard": replace(tiers["standard"], rate=rate)})
    texts = (await load_json(await rig.signed_in(), f"key={key.id}"))["told"]
    assert re.fullmatch(r"312 at [-\d]{10} \d\d:\d\d UTC" + re.escape(expected), texts["busiest"])


async def test_the_busiest_minute_counts_allowed_requests_by_cost(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    key, _ = await rig.key()
    route = Route("POST /v1/skills/execute", scopes="skills:execute", cost=5)
    monkeypatch.setattr(rig.gateway.policy, "costs", Policy([route]).costs)
    for seconds_ago, many in ((120, 200), (300, 20)):
        await counted(rig, key, count=many, route=route.match, status=502, seconds_ago=seconds_ago)
    await counted(rig, key, count=1000, route=route.match, outcome="rate_limited", status=429, seconds_ago=120)
    await counted(rig, key, count=10, route="of no rule now", seconds_ago=120)
    texts = (await load_json(await rig.signed_in(), f"key={key.id}"))["told"]
    assert texts["busiest"].startswith("1,210 at ")
    assert texts["busiest"].endswith(", 101.0% of the limit of 1,000 per minute")


async def test_the_page_loads_its_own_scripts_and_runs_no_other(rig: Rig) -> None:
    key, _ = await rig.key()
    browser = await rig.signed_in()
    page = await browser.get(f"/console/usage?key={key.id}&period=week")
    assert "script-src 'self'; style-src 'self'" in page.headers["content-security-policy"]
    sources = re.findall(r'(?:src|href)="(/console/static/[^"]*)"', page.text)
    assert {source.partition("?")[0].rpartition("/")[2] for source in sources} >= {
        "uplot.min.js",
        "usage.js",
        "usage.css",
    }
    for source in sources:
        assert (await browser.get(source)).status_code == 200
    assert not re.search(r"<script(?![^>]*\ssrc=)|\sstyle=|\son\w+=", page.text)
    assert f'data-source="/console/usage.json?key={quote(key.id)}&amp;period=week"' in page.text
    assert (await browser.get("/console/keys")).text.count("uplot") == 0
