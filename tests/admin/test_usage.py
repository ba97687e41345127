"""The usage of a key over HTTP."""

import time
from typing import Any

import pytest

from tests.admin.conftest import Api, Caller


async def usage(admin: Caller, key_id: str, query: str = "") -> dict[str, Any]:
    response = await admin.ask("GET", f"/v1/keys/{key_id}/usage{query}")
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


async def flushed(api: Api) -> None:
    """Store the counts now, without waiting for the end of the second."""
    await api.gateway.recorder.close()
    api.gateway.recorder.open()


async def test_usage_counts_every_request_by_outcome(api: Api, admin: Caller) -> None:
    key = await admin.created()
    user = Caller(api, key["id"], key["secret"])
    for _ in range(3):
        await user.ask("GET", "/v1/whoami")
    await user.ask("GET", "/v1/keys")  # it has no scope for that
    await flushed(api)
    document = await usage(admin, key["id"], "?bucket=day")
    assert (document["object"], document["key_id"], document["bucket"]) == ("usage", key["id"], "day")
    total = document["total"]
    assert (total["requests"], total["allowed"], total["refused"]) == (4, 3, 1)
    assert total["outcomes"] == {"allowed": 3, "insufficient_scope": 1}
    assert total["statuses"] == {"200": 3, "403": 1}
    assert total["routes"] == {"GET /v1/keys": 1, "GET /v1/whoami": 3}
    assert sum(bucket["requests"] for bucket in document["data"]) == 4
    assert 0 < total["latency_ms"]["p50"] <= total["latency_ms"]["p99"]


async def test_the_last_use_of_the_previous_secret_is_reported(api: Api, admin: Caller) -> None:
    key = await admin.created()
    path = f"/v1/keys/{key['id']}"
    assert (key["last_used_at"], key["secrets"][0]["last_used_at"]) == (None, None)
    rotated = (await admin.ask("POST", f"{path}/rotate")).json()
    await Caller(api, key["id"], key["secret"]).ask("GET", "/v1/whoami")
    await flushed(api)
    new, old = (await admin.ask("GET", path)).json()["secrets"]
    assert (new["current"], new["last_used_at"]) == (True, None)
    assert old["last_used_at"] is not None
    await Caller(api, key["id"], rotated["secret"]).ask("GET", "/v1/whoami")
    await flushed(api)
    document = (await admin.ask("GET", path)).json()
    assert document["secrets"][0]["last_used_at"] is not None
    assert document["last_used_at"] >= old["last_used_at"]


async def test_a_use_does_not_change_the_version(api: Api, admin: Caller) -> None:
    key = await admin.created()
    await Caller(api, key["id"], key["secret"]).ask("GET", "/v1/whoami")
    await flushed(api)
    response = await admin.ask("PATCH", f"/v1/keys/{key['id']}", {"name": "renamed"}, headers={"If-Match": '"1"'})
    assert response.status_code == 200
    assert response.json()["last_used_at"] is not None


async def test_the_default_report_is_the_last_day_by_hour(admin: Caller) -> None:
    document = await usage(admin, admin.id)
    assert document["bucket"] == "hour"
    began = time.strptime(document["from"], "%Y-%m-%dT%H:%M:%SZ")
    ended = time.strptime(document["to"], "%Y-%m-%dT%H:%M:%SZ")
    assert (began.tm_min, began.tm_sec, ended.tm_min, ended.tm_sec) == (0, 0, 0, 0)


async def test_a_report_can_have_its_own_period(admin: Caller) -> None:
    document = await usage(admin, admin.id, "?from=2026-01-01T00:00:00Z&to=2026-01-01T01:30:30Z&bucket=minute")
    assert (document["from"], document["to"], document["data"]) == ("2026-01-01T00:00:00Z", "2026-01-01T01:31:00Z", [])


@pytest.mark.parametrize(
    "query, place",
    [
        ("bucket=week", "query.bucket"),
        ("from=yesterday", "query.from"),
        ("from=1700000000", "query.from"),
        ("to=2026-01-01", "query.to"),
        ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "query"),
        ("from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z&bucket=minute", "query"),
        ("start=2026-01-01T00:00:00Z", "query.start"),
    ],
)
async def test_an_invalid_period_is_refused_with_its_place(admin: Caller, query: str, place: str) -> None:
    response = await admin.ask("GET", f"/v1/keys/{admin.id}/usage?{query}")
    assert response.status_code == 422
    assert [error["place"] for error in response.json()["errors"]] == [place]
