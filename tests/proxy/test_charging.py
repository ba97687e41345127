"""What an upstream charges after the fact, by MachPay-Cost in its response."""

import logging

import pytest

from machpay_gateway import Route, Tier
from tests.proxy.harness import Upstream, fields_of, proxied, request

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])
TIERS = {"standard": Tier("100/minute", 9, account={"rate": "200/minute"})}
ROUTES = (Route("* /{rest:path}", scopes="skills:execute"), Route("GET /public/x", public=True))


def answering(*fields: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", "Content-Length: 2", *fields, "", "ok"]).encode("latin-1")


async def left_after(upstream: Upstream, *fields: str, path: str = "/v1/x") -> tuple[dict[str, list[str]], list[str]]:
    """Return the headers of a response of *upstream*, and what is left of the limits by the next one."""
    async with proxied(upstream, tiers=TIERS, routes=ROUTES) as rig, rig.client() as client:
        secret = await rig.secret()
        await client.send(request("GET", path, *fields, secret=secret))
        _, head, _ = await client.answer()
        upstream.answer = answering()
        await client.send(request("GET", "/v1/x", secret=secret))
        _, following, _ = await client.answer()
        return fields_of(head), fields_of(following)["ratelimit"]


@pytest.mark.parametrize(
    "value, units",
    [
        ("37", 37),
        ("0", 0),
        (" 5\t", 5),
        ("0000000012", 12),
    ],
)
async def test_the_units_are_taken_from_every_limit_and_the_header_ends_here(value: str, units: int) -> None:
    async with Upstream(answer=answering(f"MachPay-Cost:{value}", "X-Kept: 1")) as upstream:
        first, (left,) = await left_after(upstream)
    assert "machpay-cost" not in first
    assert first["x-kept"] == ["1"]
    assert left.startswith(f'"minute";r={98 - units};')
    assert f'"account-minute";r={198 - units};' in left


@pytest.mark.parametrize(
    "fields",
    [
        ["MachPay-Cost: -1"],
        ["MachPay-Cost: 1.5"],
        ["MachPay-Cost: 1e3"],
        ["MachPay-Cost: 1000000001"],
        ["MachPay-Cost: 99999999999999999999999"],
        ["MachPay-Cost: ten"],
        ["MachPay-Cost:"],
        ["MachPay-Cost: ٣"],
        ["MachPay-Cost: 3", "machpay-cost: 4"],
    ],
)
async def test_what_is_no_number_is_logged_and_takes_nothing(
    fields: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    answer = "\r\n".join(["HTTP/1.1 200 OK", "Content-Length: 2", *fields, "", "ok"]).encode()
    with caplog.at_level(logging.WARNING, "machpay_gateway"):
        async with Upstream(answer=answer) as upstream:
            first, (left,) = await left_after(upstream)
    assert "machpay-cost" not in first
    assert left.startswith('"minute";r=98;')
    (message,) = (record.getMessage() for record in caplog.records if "MachPay-Cost" in record.getMessage())
    assert "is not a number from 0 to 1000000000" in message


async def test_a_wrong_number_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "machpay_gateway"):
        async with (
            Upstream(answer=answering("MachPay-Cost: ten")) as upstream,
            proxied(upstream, tiers=TIERS, routes=ROUTES) as rig,
            rig.client() as client,
        ):
            for _ in range(5):
                await client.send(request("GET", "/v1/x", secret=await rig.secret()))
                assert (await client.answer())[0] == 200
    assert sum("MachPay-Cost" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("name", ["MachPay-Cost", "machpay-cost", "MachPay_Cost"])
async def test_a_callers_own_is_dropped(name: str) -> None:
    async with Upstream(answer=answering()) as upstream:
        _, (left,) = await left_after(upstream, f"{name}: 50")
        assert b"cost" not in upstream.heads[0].lower()
    assert left.startswith('"minute";r=98;')


async def test_a_charge_that_overdraws_refuses_what_follows() -> None:
    async with (
        Upstream(answer=answering("MachPay-Cost: 500")) as upstream,
        proxied(upstream, tiers=TIERS, routes=ROUTES) as rig,
        rig.client() as client,
    ):
        secret = await rig.secret()
        await client.send(request("GET", "/v1/x", secret=secret))
        assert (await client.answer())[0] == 200
        await client.send(request("GET", "/v1/x", secret=secret))
        status, _, body = await client.answer()
        assert status == 429
        assert b'"violated_policies":["minute","account-minute"]' in body


async def test_on_a_public_route_without_limits_nothing_is_charged() -> None:
    async with Upstream(answer=answering("MachPay-Cost: 5")) as upstream:
        first, (left,) = await left_after(upstream, path="/public/x")
    assert "machpay-cost" not in first
    assert left.startswith('"minute";r=99;')
