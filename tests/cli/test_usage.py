"""`keys usage`: what a key was used for, as a table and as JSON."""

import asyncio
import json
import time

import pytest

from machpay_gateway import Gateway
from machpay_gateway.core.usage.counters import BOUNDS, SecretUse, UsageBatch, UsageKey, UsageRow
from tests.cli.conftest import Invoke


@pytest.fixture
def key_id(invoke: Invoke) -> str:
    made = json.loads(
        invoke("keys", "create", "--name", "k", "--scope", "skills:list", "--environment", "live", "--json").stdout
    )
    return str(made["id"])


def count(key_id: str) -> None:
    start = int(time.time()) // 60 * 60
    histogram = (0, 0, 3, *(0,) * (len(BOUNDS) - 2))
    rows = [
        UsageRow(UsageKey(key_id, start, "GET /v1/skills", outcome, status), 0.012, histogram)
        for outcome, status in (("allowed", 200), ("rate_limited", 429))
    ]

    async def counted() -> None:
        async with Gateway() as gateway:
            record = await gateway.keys.get(None, key_id)
            assert record is not None
            use = SecretUse(record.secrets[0].digest, key_id, time.time())
            await gateway.store.add_usage(UsageBatch(rows, [use]))

    asyncio.run(counted())


def test_a_table_has_a_row_for_each_bucket_and_the_total(invoke: Invoke, key_id: str) -> None:
    count(key_id)
    header, bucket, total = invoke("keys", "usage", key_id).stdout.splitlines()
    assert header.split() == [
        "START",
        "REQUESTS",
        "ALLOWED",
        "REFUSED",
        "P50",
        "MS",
        "P95",
        "MS",
        "P99",
        "MS",
        "REFUSED",
        "FOR",
    ]
    assert bucket.split()[1:] == ["6", "3", "3", "3.8", "4.9", "5.0", "rate_limited", "3"]
    assert total.split() == ["total", *bucket.split()[1:]]


def test_json_is_what_the_key_api_answers(invoke: Invoke, key_id: str) -> None:
    count(key_id)
    document = json.loads(invoke("keys", "usage", key_id, "--bucket", "day", "--last", "2d", "--json").stdout)
    assert (document["object"], document["key_id"], document["bucket"]) == ("usage", key_id, "day")
    assert document["total"]["outcomes"] == {"allowed": 3, "rate_limited": 3}


def test_a_key_shows_when_it_was_last_used(invoke: Invoke, key_id: str) -> None:
    assert "never" in next(line for line in invoke("keys", "show", key_id).stdout.splitlines() if "last used" in line)
    count(key_id)
    line = next(line for line in invoke("keys", "show", key_id).stdout.splitlines() if "last used" in line)
    assert line.split()[-1].startswith(time.strftime("%Y-", time.gmtime()))
    assert json.loads(invoke("keys", "show", key_id, "--json").stdout)["secrets"][0]["last_used_at"] is not None


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["key_unknown"], "There is no key"),
        (["KEY", "--last", "0"], "the earlier first"),
        (["KEY", "--last", "2w", "--bucket", "minute"], "buckets of a minute are too many"),
    ],
)
def test_what_cannot_be_shown_is_told_in_a_line(
    invoke: Invoke, key_id: str, arguments: list[str], message: str
) -> None:
    result = invoke("keys", "usage", *(key_id if each == "KEY" else each for each in arguments))
    assert result.exit_code == 1
    assert message in result.stderr


def test_a_key_that_nobody_used_says_so(invoke: Invoke, key_id: str) -> None:
    result = invoke("keys", "usage", key_id)
    assert (result.exit_code, result.stdout) == (0, "")
    assert f"No request used {key_id} since" in result.stderr
