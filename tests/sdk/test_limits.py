"""Both clients at a gateway with a price list: what they read of its limits, and how long they wait."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import machpay
import pytest

from machpay_gateway import Gateway
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.server import create_app
from tests.prepared import new_sqlite
from tests.sdk.typescript import IMPORT, MARKS, Application, Served, application, built
from tests.servers import serving

__all__ = ["application", "built"]

TIER = Tier(
    ["1000/minute", "3/second"],
    50,
    quota="50000/month",
    account={"rate": "3000/minute", "quota": "6/month"},
    owner={"rate": "100/2 minutes", "quota": "1000/day"},
)
NAMES = ["minute", "second", "month", "concurrency", "account-minute", "account-month", "owner-2-minutes", "owner-day"]
QUOTAS = [1000, 3, 50_000, 50, 3000, 6, 100, 1000]
WINDOWS = [60, 1, None, None, 60, None, 120, 86_400]  # months differ in length
LEFT = [999, 2, 49_999, 49, 2999, 5, 99, 999]


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Served]:
    database = new_sqlite(tmp_path / "keys.db")

    async def prepared() -> str:
        async with Gateway(database=database, tiers={"standard": TIER}) as made:
            account = await made.accounts.create("main", "standard")
            _, secret = await made.keys.create(account.id, name="a", scopes=[], environment="live", owner="ada")
            return secret

    secret = asyncio.run(prepared())
    with serving(create_app(database=database, tiers={"standard": TIER})) as (host, port):
        yield Served(f"http://{host}:{port}", secret)


def test_the_python_client_reads_every_policy_and_waits_for_the_one_that_refuses(gateway: Served) -> None:
    with machpay.MachPay(api_key=gateway.secret, base_url=gateway.url) as client:
        policies = client.whoami().rate_limit
        assert policies is not None
        assert [policy.name for policy in policies] == NAMES
        assert [policy.quota for policy in policies] == QUOTAS
        assert [policy.window_seconds for policy in policies] == WINDOWS
        assert [policy.remaining for policy in policies] == LEFT
        assert policies["concurrency"].unit == "concurrent-requests"

        attempts = [client.whoami().response.attempts for _ in range(5)]  # of 3 a second
        with pytest.raises(machpay.RateLimitError) as caught:
            client.whoami()

    assert max(attempts) > 1
    assert "account-month" in caught.value.violated_policies
    assert caught.value.rate_limit is not None
    assert caught.value.retry_after == caught.value.rate_limit["account-month"].reset_seconds


def test_the_longest_wait_of_a_gateway_is_waited_for(tmp_path: Path) -> None:
    database, tiers = new_sqlite(tmp_path / "keys.db"), {"standard": Tier("2/minute", 50)}

    async def prepared() -> str:
        async with Gateway(database=database, tiers=tiers) as made:
            account = await made.accounts.create("main", "standard")
            _, secret = await made.keys.create(account.id, name="a", scopes=[], environment="live")
            return secret

    secret, slept = asyncio.run(prepared()), list[float]()
    with serving(create_app(database=database, tiers=tiers)) as (host, port):
        client: Any = machpay.MachPay(secret, base_url=f"http://{host}:{port}")
        transport = client._transport  # noqa: SLF001 - a minute is too long for a test
        client._transport = replace(transport, sender=replace(transport.sender, sleep=slept.append))  # noqa: SLF001 - as above
        with client:
            for _ in range(2):
                client.whoami()
            with pytest.raises(machpay.RateLimitError) as caught:
                client.whoami()
    assert caught.value.retry_after is not None
    assert 58 <= caught.value.retry_after <= 61
    assert len(slept) == 2
    assert all(caught.value.retry_after <= wait <= 61 + 8 for wait in slept)


class TestTypeScript:
    pytestmark = MARKS

    def test_it_reads_every_policy_and_waits_for_the_one_that_refuses(
        self, application: Application, gateway: Served
    ) -> None:
        read = application.run(
            IMPORT,
            """
            const client = new MachPay();
            const policies = [...((await client.whoami()).rateLimit ?? [])];
            const attempts: number[] = [];
            for (let call = 0; call < 5; call++) attempts.push((await client.whoami()).response.attempts);
            const refused = await client.whoami().catch((error) => [
              error.name,
              error.violatedPolicies.includes('account-month'),
              error.retryAfter - error.rateLimit.get('account-month').resetSeconds,
            ]);
            console.log(JSON.stringify({ policies, attempts: Math.max(...attempts) > 1, refused }));
            """,
            **gateway.environment,
        )
        assert read["refused"] == ["RateLimitError", True, 0]
        assert read["attempts"]
        assert [[policy[name] for policy in read["policies"]] for name in ("name", "quota", "windowSeconds")] == [
            NAMES,
            QUOTAS,
            WINDOWS,
        ]
        assert [policy["remaining"] for policy in read["policies"]] == LEFT
