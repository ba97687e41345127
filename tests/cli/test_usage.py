"""`keys usage`: what a key was used for, as a table and as JSON."""

import asyncio
import json
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from machpay_gateway import Gateway
from machpay_gateway.core.usage.counters import BOUNDS, SecretUse, UsageBatch, UsageKey, UsageRow
from tests.cli.conftest import Invoke
from tests.redises.servers import running_server
from tests.serving.processes import PROGRAM, Served, served
from tests.serving.test_lifecycle import ask, status, until


@pytest.fixture
def key_id(invoke: Invoke) -> str:
    made = json.loads(
        invoke("keys", "create", "--name", "k", "--scope", "skills:list", "--environment", "live", "--json").stdout
    )
    return str(made["id"])


def count(key_id: str, outcomes: Sequence[tuple[str, int]] = (("allowed", 200), ("rate_limited", 429))) -> None:
    start = int(time.time()) // 60 * 60
    histogram = (0, 0, 3, *(0,) * (len(BOUNDS) - 2))
    rows = [
        UsageRow(UsageKey(key_id, start, "GET /v1/skills", outcome, status), 0.012, histogram)
        for outcome, status in outcomes
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


def test_requests_that_a_limit_would_have_refused_are_allowed_and_named(invoke: Invoke, key_id: str) -> None:
    count(key_id, [("allowed", 200), ("shadow_limited", 200)])
    total = invoke("keys", "usage", key_id).stdout.splitlines()[2]
    assert total.split() == ["total", "6", "6", "0", "3.8", "4.9", "5.0", "shadow_limited", "3"]


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


PLANS = """
[tiers.pro]
rate = ["100/minute", "50/second"]
concurrency = 5
quota = "1000/month"
account = { rate = "40/minute", quota = "2000/month" }

[tiers.trial]
rate = "2/minute"
concurrency = 5
enforce = false
"""


def usage_of(gateway: Served, key_id: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Return what `keys usage` prints while *gateway* serves."""
    command = [str(PROGRAM), "keys", "usage", key_id, *arguments]
    return subprocess.run(command, cwd=gateway.folder, capture_output=True, text=True, check=True)


def limits_in(text: str) -> dict[str, list[str]]:
    """Return the lines of the second table by their first words."""
    lines = text.split("\n\n")[1].splitlines()
    assert lines[0].split() == ["LIMIT", "UNITS", "LEFT", "UNTIL", "MORE"]
    return {name: rest.split() for name, rest in (re.split(r"  +", line, maxsplit=1) for line in lines[1:])}


def test_what_is_left_of_each_limit_is_shown_and_nothing_is_taken(tmp_path: Path) -> None:
    with (
        running_server() as redis,
        served(tmp_path, settings=f'redis = "{redis.url}"\nusage_seconds = 1\n{PLANS}') as gateway,
    ):
        key_id, secret = gateway.key(tier="pro")
        other = gateway.secret(tier="pro")
        for each in (secret, secret, other):
            assert status(ask(gateway, "/v1/x", f"Authorization: Bearer {each}")) == 200
        until(lambda: "total" in usage_of(gateway, key_id).stdout)
        workers = redis.command("ZRANGE", "machpay:workers", "0", "-1")
        for _ in range(2):
            limits = limits_in(usage_of(gateway, key_id).stdout)
            assert list(limits) == [
                *("minute", "second", "month", "concurrency"),
                *("account-minute", "account-month"),
            ]
            assert limits["minute"][:2] == ["100", "98"]
            assert limits["month"][:2] == ["1,000", "998"]
            assert limits["concurrency"] == ["5", "5", "-"]
            assert limits["account-minute"][:2] == ["40", "37"]
            assert limits["account-month"][:2] == ["2,000", "1,997"]
        document = json.loads(usage_of(gateway, key_id, "--json").stdout)
        policies = {policy["policy"]: policy for policy in document["policies"]}
        assert list(policies) == [*("minute", "second", "month", "concurrency"), "account-minute", "account-month"]
        assert policies["account-month"]["remaining"] == 1997
        assert policies["account-month"]["window_seconds"] is None
        assert policies["concurrency"]["reset_seconds"] is None
        assert 1 <= policies["minute"]["reset_seconds"] <= 61
        trial, _ = gateway.key(tier="trial")
        text = usage_of(gateway, trial)
        assert "minute (not enforced)" in text.stdout
        assert "No request used" in text.stderr
        assert redis.command("ZRANGE", "machpay:workers", "0", "-1") == workers  # who only reads is none of them
    assert json.loads(usage_of(gateway, key_id, "--json").stdout)["policies"][0]["remaining"] is None
    away = usage_of(gateway, key_id)
    assert "What is left of its limits is unknown: the limiter is not responding." in away.stderr
    assert "LEFT" not in away.stdout


def test_without_redis_a_command_knows_the_quotas_alone(tmp_path: Path) -> None:
    with served(tmp_path, settings=f"usage_seconds = 1\n{PLANS}") as gateway:
        key_id, secret = gateway.key(tier="pro")
        assert status(ask(gateway, "/v1/x", f"Authorization: Bearer {secret}")) == 200
        until(lambda: "total" in usage_of(gateway, key_id).stdout)
        until(lambda: limits_in(usage_of(gateway, key_id).stdout)["month"][:2] == ["1,000", "999"])
        run = usage_of(gateway, key_id)
        assert limits_in(run.stdout)["minute"] == ["100", "unknown", "-"]
        assert "What is left of some limits is unknown: without Redis, rates and concurrency are counted" in run.stderr
        policies = json.loads(usage_of(gateway, key_id, "--json").stdout)["policies"]
    left = {policy["policy"]: policy["remaining"] for policy in policies}
    assert left == {
        **dict.fromkeys(["minute", "second", "concurrency", "account-minute"]),
        "month": 999,
        "account-month": 1999,
    }


def test_a_key_that_does_not_work_has_nothing_left(invoke: Invoke, key_id: str) -> None:
    count(key_id)
    assert invoke("keys", "revoke", key_id, "--yes").exit_code == 0
    result = invoke("keys", "usage", key_id, "--json")
    assert (json.loads(result.stdout)["policies"], result.stderr) == ([], "")
