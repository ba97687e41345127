"""`create_key`: real keys on a gateway in memory."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest
from starlette.testclient import TestClient

from machpay_gateway import Gateway, InputError, MachPayAuth, Route, Tier
from machpay_gateway.testing import create_key
from tests.applications import ok

ROUTES = [Route("GET /v1/skills", scopes="skills:list"), Route("GET /v1/reports", scopes="reports:read")]


@pytest.fixture(scope="module")
def gateway() -> Gateway:
    return Gateway(database="memory://", routes=ROUTES, tiers={"tiny": Tier("2/minute", 1)})


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[TestClient]:
    with TestClient(MachPayAuth(ok, gateway=gateway)) as started:
        yield started


def bearer(client: TestClient, gateway: Gateway, **options: Any) -> dict[str, str]:  # noqa: ANN401 - those of `create_key`
    assert client.portal is not None
    create: Callable[[], Awaitable[str]] = partial(create_key, gateway, **options)
    return {"Authorization": f"Bearer {client.portal.call(create)}"}


@pytest.mark.parametrize(
    "scopes", ["skills:list reports:read", ["skills:list", "reports:read"], ("skills:*", "reports:*")]
)
def test_a_key_has_its_scopes(client: TestClient, gateway: Gateway, scopes: object) -> None:
    may = bearer(client, gateway, scopes=scopes)
    assert [client.get(path, headers=may).status_code for path in ("/v1/skills", "/v1/reports")] == [200, 200]
    assert client.get("/v1/skills", headers=bearer(client, gateway)).status_code == 403
    assert client.get("/v1/skills").status_code == 401


def test_each_key_has_the_limits_of_its_tier(client: TestClient, gateway: Gateway) -> None:
    for _ in range(2):
        headers = bearer(client, gateway, scopes="skills:list", tier="tiny")
        responses = [client.get("/v1/skills", headers=headers) for _ in range(3)]
        assert [response.status_code for response in responses] == [200, 200, 429]
        assert responses[0].headers["ratelimit"].startswith('"minute";r=1')


@pytest.mark.parametrize(
    "options, expected",
    [
        ({}, ("standard account", "standard", None, "live")),
        ({"environment": "test"}, ("standard account", "test", None, "test")),
        ({"tier": "tiny", "account": "acme", "owner": "ada"}, ("acme", "tiny", "ada", "live")),
    ],
)
def test_a_key_has_its_account_tier_owner_and_environment(
    client: TestClient, gateway: Gateway, options: dict[str, str], expected: tuple[str | None, ...]
) -> None:
    async def inspected() -> tuple[str | None, ...]:
        key = (await gateway.keys.inspect(await create_key(gateway, **options))).key
        assert key is not None
        account = await gateway.accounts.find(key.account_id)
        assert account is not None
        return account.name, key.tier, key.owner, key.environment

    assert client.portal is not None
    assert client.portal.call(inspected) == expected


@pytest.mark.parametrize(
    "options, message",
    [({"scopes": "skills:lst"}, "known scopes"), ({"tier": "gold"}, "tiny"), ({"environment": "x"}, "live or test")],
)
def test_what_no_key_can_have_is_an_error(
    client: TestClient, gateway: Gateway, options: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        bearer(client, gateway, **options)


def test_the_gateway_need_not_be_open_and_keeps_its_keys() -> None:
    gateway = Gateway(database="memory://", routes=ROUTES)
    secret = asyncio.run(create_key(gateway, scopes="skills:list", name="ada"))
    assert not gateway.lifecycle.is_open
    with TestClient(MachPayAuth(ok, gateway=gateway), headers={"Authorization": f"Bearer {secret}"}) as client:
        assert [client.get(path).status_code for path in ("/v1/skills", "/v1/reports")] == [200, 403]


def test_an_account_keeps_its_tier(client: TestClient, gateway: Gateway) -> None:
    bearer(client, gateway, account="umbrella", tier="tiny")
    with pytest.raises(InputError, match="Account 'umbrella' has the tier tiny"):
        bearer(client, gateway, account="umbrella", tier="standard")
    bearer(client, gateway, account="umbrella")
