"""A price list as docs/limits.md writes it: windows, quotas, accounts, owners, routes and addresses, decided together.

Each promise holds in one process and in Redis.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

import pytest
from httpx import Response
from starlette.types import Receive, Scope, Send

from machpay_gateway import Gateway, MachPayAuth
from machpay_gateway.core.usage.counters import MINUTE, sum_of
from tests.gateways import Guarded
from tests.redises.fixtures import redis_server
from tests.redises.servers import Server, running_server

__all__ = ["redis_server"]
PRICE_LIST = """
[tiers.pro]
rate = ["10/minute", "6/second"]
concurrency = 5
quota = "20/month"
account = { rate = "12/minute", concurrency = 8, quota = "30/month" }
owner = { rate = "6/minute", quota = "8/day" }

[tiers.trial]
rate = "2/minute"
concurrency = 5
enforce = false

[tiers.test]
owner = { rate = "6/minute" }

[anonymous]
rate = "3/minute"

[[routes]]
match = "POST /v1/sign-up"
public = true
limit = { rate = "2/minute", by = "address" }

[[routes]]
match = "GET /v1/public"
public = true

[[routes]]
match = "POST /v1/reports"
limit = { rate = "2/minute", concurrency = 1, by = "key" }

[[routes]]
match = "POST /v1/exports"
limit = { rate = "2/minute", by = "account" }

[[routes]]
match = "PUT /v1/exports"
limit = { rate = "5/minute", by = "account" }

[[routes]]
match = "POST /v1/exports/{id}"
limit = { rate = "4/minute", by = "account" }

[[routes]]
match = "POST /v1/exports/latest"
limit = { rate = "3/minute", concurrency = 2, by = "key" }
"""


async def application(scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer, and charge what the query says."""
    if scope["query_string"]:
        scope["machpay_admission"].charge(int(scope["query_string"]))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


@dataclass(frozen=True)
class Plans:
    """A gateway with the price list, on a database and a limiter that others may share."""

    api: Guarded

    async def key(self, tier: str = "pro", owner: str | None = None, environment: str = "live") -> str:
        """Return the secret of a new key of the one account of *tier*."""
        accounts = self.api.gateway.accounts
        account = await accounts.find(tier) or await accounts.create(tier, tier)
        _, secret = await self.api.gateway.keys.create(
            account.id, name="test", scopes=[], environment=environment, owner=owner
        )
        return secret

    async def ask(
        self, secret: str | None, path: str = "/v1/skills", *, method: str = "GET", address: str = "192.0.2.1"
    ) -> Response:
        return await self.api.client(secret, address=address).request(method, path)

    async def violated(self, secret: str | None, path: str = "/v1/skills", **options: str) -> list[str]:
        """Ask until a refusal, and return the policies that it names."""
        for _ in range(50):
            answer = await self.ask(secret, path, **options)
            if answer.status_code == 429:
                violated: list[str] = answer.json()["violated_policies"]
                return violated
        raise AssertionError("never refused")


@asynccontextmanager
async def opened(folder: Path, redis: str | None, prefix: str) -> AsyncIterator[Plans]:
    (folder / "machpay.toml").write_text(PRICE_LIST)
    gateway = Gateway(
        config=folder / "machpay.toml",
        database=f"sqlite:///{folder / 'keys.db'}",
        redis=redis,
        redis_prefix=prefix,
    )
    await gateway.lifecycle.open(upgrade=True)
    async with gateway:
        yield Plans(Guarded(MachPayAuth(application, gateway=gateway), gateway))


@pytest.fixture(params=["memory", "redis"])
def redis(request: pytest.FixtureRequest) -> str | None:
    if request.param == "memory":
        return None
    server: Server = request.getfixturevalue("redis_server")
    return server.url


@pytest.fixture
async def plans(tmp_path: Path, redis: str | None) -> AsyncIterator[Plans]:
    async with opened(tmp_path, redis, f"test{token_hex(4)}") as plans:
        yield plans


def left(answer: Response) -> dict[str, int]:
    items = (item.split(";") for item in answer.headers["ratelimit"].split(", "))
    return {name.strip('"'): int(r.removeprefix("r=")) for name, r, *_ in items}


async def test_an_owner_of_test_keys_is_another_than_any_of_live_keys(plans: Plans) -> None:
    live = await plans.key(owner="test:ada")
    assert "owner-minute" in await plans.violated(live)
    assert left(await plans.ask(await plans.key(owner="ada", environment="test")))["owner-minute"] == 5


async def test_every_policy_that_applies_is_in_the_headers(plans: Plans) -> None:
    answer = await plans.ask(await plans.key(owner="ada"))
    assert answer.headers["ratelimit-policy"] == (
        '"minute";q=10;w=60, "second";q=6;w=1, "month";q=20, "concurrency";q=5;qu="concurrent-requests", '
        '"account-minute";q=12;w=60, "account-month";q=30, "account-concurrency";q=8;qu="concurrent-requests", '
        '"owner-minute";q=6;w=60, "owner-day";q=8;w=86400'
    )
    assert left(answer) == {
        "minute": 9,
        "second": 5,
        "month": 19,
        "concurrency": 4,
        "account-minute": 11,
        "account-month": 29,
        "account-concurrency": 7,
        "owner-minute": 5,
        "owner-day": 7,
    }


async def test_more_keys_are_no_bigger_plan(plans: Plans) -> None:
    secrets = [await plans.key() for _ in range(3)]
    answers = [await plans.ask(secrets[number % 3]) for number in range(15)]
    assert [answer.status_code for answer in answers] == [200] * 12 + [429] * 3
    assert answers[-1].json()["violated_policies"] == ["account-minute"]
    assert answers[-1].json()["code"] == "rate_limited"
    assert 59 <= int(answers[-1].headers["retry-after"]) <= 61


async def test_keys_of_one_owner_share_a_limit_and_those_without_have_none(plans: Plans) -> None:
    first, second, other = [await plans.key(owner=owner) for owner in ("ada", "ada", None)]
    for number in range(6):
        assert (await plans.ask((first, second)[number % 2])).status_code == 200
    assert await plans.violated(second) == ["owner-minute"]
    assert (await plans.ask(other)).status_code == 200
    assert "owner-minute" not in left(await plans.ask(other))


async def test_a_route_has_a_limit_beside_the_tiers(plans: Plans) -> None:
    secret, other = await plans.key(), await plans.key()
    assert await plans.violated(secret, "/v1/reports", method="POST") == ["route-minute"]
    assert (await plans.ask(secret)).status_code == 200
    assert (await plans.ask(other, "/v1/reports", method="POST")).status_code == 200
    for each in (secret, other):
        assert (await plans.ask(each, "/v1/exports", method="POST")).status_code == 200
    assert await plans.violated(other, "/v1/exports", method="POST") == ["route-minute"]


async def test_limits_of_several_routes_have_names_of_their_own(plans: Plans) -> None:
    secret = await plans.key()
    answer = await plans.ask(secret, "/v1/exports/Latest", method="POST")  # either route, by the server behind
    routes = {name: units for name, units in left(answer).items() if name.startswith("route")}
    assert routes == {"route-minute": 2, "route-concurrency": 1, "route2-minute": 3}
    names = [policy.partition(";")[0] for policy in answer.headers["ratelimit-policy"].split(", ")]
    assert len(set(names)) == len(names)
    for _ in range(2):
        assert (await plans.ask(secret, "/v1/exports/Latest", method="POST")).status_code == 200
    assert await plans.violated(secret, "/v1/exports/Latest", method="POST") == ["route-minute"]
    answer = await plans.ask(secret, "/v1/exports", method="PATCH")  # not listed: as each method that is
    assert {name: left(answer)[name] for name in ("route-minute", "route2-minute")} == {
        "route-minute": 1,
        "route2-minute": 4,
    }
    answer = await plans.ask(secret, "/v1/exports/other", method="POST")  # a refusal has taken nothing
    assert (answer.status_code, left(answer)["route-minute"]) == (200, 0)


async def test_callers_of_public_routes_are_limited_by_address_block(plans: Plans) -> None:
    assert await plans.violated(None, "/v1/sign-up", method="POST") == ["route-minute"]
    answer = await plans.ask(None, "/v1/public")
    assert (answer.status_code, left(answer)) == (200, {"address-minute": 0})
    assert await plans.violated(None, "/v1/public") == ["address-minute"]
    assert (await plans.ask(None, "/v1/public", address="192.0.2.2")).status_code == 200
    for last in ("1", "2", "3"):
        assert (await plans.ask(None, "/v1/public", address=f"2001:db8::{last}")).status_code == 200
    refused = await plans.ask(None, "/v1/public", address="2001:db8::4")
    assert refused.status_code == 429  # one /64
    assert refused.json()["violated_policies"] == ["address-minute"]
    assert (await plans.ask(None, "/v1/public", address="2001:db8:0:1::1")).status_code == 200


async def test_preflights_and_the_gateways_own_endpoints_take_nothing_of_an_address(plans: Plans) -> None:
    headers = {"Origin": "https://app.test", "Access-Control-Request-Method": "GET"}
    for _ in range(9):
        assert (await plans.api.client().options("/v1/public", headers=headers)).status_code == 200
    assert left(await plans.ask(None, "/v1/public")) == {"address-minute": 2}


async def test_an_application_charges_after_the_fact(plans: Plans) -> None:
    secret = await plans.key()
    assert (await plans.ask(secret, "/v1/skills?9")).status_code == 200
    refused = await plans.ask(secret)
    assert refused.json()["violated_policies"] == ["minute", "second"]
    assert left(refused)["account-minute"] == 2
    public = await plans.ask(None, "/v1/public?1")
    assert public.status_code == 200
    assert left(await plans.ask(None, "/v1/public"))["address-minute"] == 0


async def test_a_tier_that_is_not_enforced_refuses_nobody(plans: Plans) -> None:
    secret = await plans.key("trial")
    answers = [await plans.ask(secret) for _ in range(6)]
    assert {answer.status_code for answer in answers} == {200}
    assert not any("ratelimit" in answer.headers for answer in answers)
    await plans.api.gateway.recorder.close()
    account = await plans.api.gateway.accounts.find("trial")
    assert account is not None
    rows = await plans.api.gateway.store.usage(account.id, MINUTE, 0, 1 << 40)
    counts = sum_of(rows)
    assert counts.outcomes == {"allowed": 2, "shadow_limited": 4}
    assert counts.allowed == 6


def violations(plans: Plans) -> dict[tuple[str, ...], float]:
    """Return how often each policy was violated: by its name, the outcome, the route and the tier."""
    recorder = plans.api.gateway.recorder
    recorder.gather()
    return {
        labels: count
        for (name, labels), (count, *_) in recorder.requests.counts.items()
        if name == "machpay_policy_violations_total"
    }


async def test_refusals_are_counted_by_each_policy_that_they_violate(plans: Plans) -> None:
    secret = await plans.key()
    for _ in range(5):
        assert (await plans.ask(secret)).status_code == 200
    assert violations(plans) == {}
    assert (await plans.ask(secret, "/v1/skills?95")).status_code == 200
    for _ in range(2):
        refused = await plans.ask(secret)
        assert refused.json()["violated_policies"] == [
            "minute",
            "second",
            "month",
            "account-minute",
            "account-month",
        ]
    assert (await plans.ask(None, "/v1/public?9")).status_code == 200
    assert (await plans.ask(None, "/v1/public")).status_code == 429
    pro = ("rate_limited", "* /{rest:path}", "pro")
    assert violations(plans) == {
        ("minute", *pro): 2,
        ("second", *pro): 2,
        ("month", *pro): 2,
        ("account-minute", *pro): 2,
        ("account-month", *pro): 2,
        ("address-minute", "rate_limited", "GET /v1/public", "-"): 1,
    }


async def test_shadow_limited_requests_are_counted_by_the_policies_they_would_violate(plans: Plans) -> None:
    secret = await plans.key("trial")
    for _ in range(6):
        assert (await plans.ask(secret)).status_code == 200
    assert violations(plans) == {("minute", "shadow_limited", "* /{rest:path}", "trial"): 4}
    at_once = await plans.key("trial")
    await asyncio.gather(*(plans.ask(at_once) for _ in range(5)))
    assert violations(plans) == {("minute", "shadow_limited", "* /{rest:path}", "trial"): 7}


async def test_a_quota_outlasts_a_restart(tmp_path: Path, redis: str | None) -> None:
    prefixes = [f"test{token_hex(4)}" for _ in range(2)]  # another Redis, for all that the second one knows
    async with opened(tmp_path, redis, prefixes[0]) as plans:
        secret = await plans.key(owner="ada")
        for _ in range(5):
            assert (await plans.ask(secret)).status_code == 200
    async with opened(tmp_path, redis, prefixes[1]) as plans:
        lefts = left(await plans.ask(secret))
        assert (lefts["month"], lefts["account-month"], lefts["owner-day"]) == (14, 24, 2)
        assert lefts["minute"] == 9


async def test_a_quota_outlasts_redis(tmp_path: Path) -> None:
    with running_server() as server:
        async with opened(tmp_path, server.url, "machpay") as plans:
            secret = await plans.key(owner="ada")
            for _ in range(5):
                assert (await plans.ask(secret)).status_code == 200
            for _ in range(3):
                server.command("FLUSHALL")
                assert (await plans.ask(secret)).status_code == 200
            assert await plans.violated(secret) == ["owner-day"]


async def test_two_workers_share_every_limit(tmp_path: Path, redis_server: Server) -> None:
    prefix = f"test{token_hex(4)}"
    async with (
        opened(tmp_path, redis_server.url, prefix) as first,
        opened(tmp_path, redis_server.url, prefix) as second,
    ):
        secrets = [await first.key() for _ in range(4)]
        asked = [(first, second)[number % 2].ask(secrets[number % 4]) for number in range(24)]
        answers = await asyncio.gather(*asked)
        assert sum(answer.status_code == 200 for answer in answers) <= 12
        assert all(answer.status_code in (200, 429) for answer in answers)
        admitted = sum(answer.status_code == 200 for answer in answers)
        while (await first.ask(secrets[admitted % 4])).status_code == 200:
            admitted += 1
        assert admitted == 12
