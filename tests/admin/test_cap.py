"""The cap on working keys as callers of the key API meet it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from machpay_gateway import Tier
from tests.admin.conftest import Api, Caller, serving_api, status_and_code

NEW = {"name": "deploy", "scopes": []}
NAMED = {"Idempotency-Key": "once"}
TIERS = {"standard": Tier("1000/minute", 50, max_keys=3), "test": Tier("100/minute", 5, max_keys=2)}
REACHED = (409, "key_limit_reached")


@pytest.fixture
async def api(database: str) -> AsyncIterator[Api]:
    async with serving_api(database=database, tiers=TIERS) as api:
        yield api


async def test_one_more_key_than_the_tier_allows_is_refused_with_the_way_out(admin: Caller) -> None:
    keys = [await admin.created() for _ in range(2)]
    before = await admin.api.head()
    refused = await admin.ask("POST", "/v1/keys", NEW)
    assert status_and_code(refused) == REACHED
    assert refused.json()["title"] == "Too many keys"
    assert refused.json()["detail"] == (
        "The account has 3 working live keys, and its tier standard allows 3: revoke a key, or ask for a higher tier."
    )
    assert await admin.api.head() == before
    assert len((await admin.ask("GET", "/v1/keys")).json()["data"]) == 3
    assert (await admin.ask("POST", f"/v1/keys/{keys[0]['id']}/rotate")).status_code == 200
    assert (await admin.ask("POST", f"/v1/keys/{keys[0]['id']}/revoke")).status_code == 200
    assert (await admin.ask("POST", "/v1/keys", NEW)).status_code == 201


async def test_test_keys_have_a_cap_of_their_own(admin: Caller) -> None:
    for status in (201, 201, 409):
        assert (await admin.ask("POST", "/v1/keys", {**NEW, "environment": "test"})).status_code == status
    assert (await admin.ask("POST", "/v1/keys", NEW)).status_code == 201


async def test_an_expired_key_does_not_slip_past_the_cap(admin: Caller) -> None:
    expired = await admin.created()
    await admin.api.expire(expired["id"])
    for _ in range(2):
        await admin.created()
    path = f"/v1/keys/{expired['id']}"
    for expires_at in (None, "2099-01-01T00:00:00Z"):
        assert status_and_code(await admin.ask("PATCH", path, {"expires_at": expires_at})) == REACHED
    assert (await admin.ask("GET", path)).json()["status"] == "expired"
    assert (await admin.ask("PATCH", path, {"name": "renamed"})).status_code == 200


async def test_a_retry_gets_the_first_response_though_there_is_no_room_by_now(admin: Caller) -> None:
    await admin.created()
    first = await admin.ask("POST", "/v1/keys", NEW, headers=NAMED)
    assert first.status_code == 201
    again = await admin.ask("POST", "/v1/keys", NEW, headers=NAMED)
    assert (again.status_code, again.content) == (201, first.content)
    other = {"Idempotency-Key": "another"}
    assert status_and_code(await admin.ask("POST", "/v1/keys", NEW, headers=other)) == REACHED
    await admin.ask("POST", f"/v1/keys/{first.json()['id']}/revoke")
    assert (await admin.ask("POST", "/v1/keys", NEW, headers=other)).status_code == 201  # a refusal is not stored


async def test_of_the_same_request_at_once_every_one_gets_the_last_key_there_is_room_for(admin: Caller) -> None:
    await admin.created()
    tried = await asyncio.gather(*(admin.ask("POST", "/v1/keys", NEW, headers=NAMED) for _ in range(6)))
    assert {response.status_code for response in tried} == {201}
    assert len({response.content for response in tried}) == 1


async def test_of_different_requests_at_once_one_gets_the_last_key(admin: Caller) -> None:
    await admin.created()
    tried = await asyncio.gather(*(admin.ask("POST", "/v1/keys", NEW) for _ in range(6)))
    assert sorted(response.status_code for response in tried) == [201, *[409] * 5]
