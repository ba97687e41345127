import datetime as dt
import pickle
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import machpay
import pytest

from tests.sdk.conftest import Twin
from tests.sdk.scripted import MASKED, SECRET, Reply

KEY: dict[str, Any] = {
    "id": "key_1",
    "object": "key",
    "account_id": "acct_1",
    "name": "production",
    "owner": "customer 17",
    "environment": "live",
    "tier": "partner",
    "own_tier": "partner",
    "tier_configured": False,
    "scopes": ["skills:list"],
    "allowed_ips": ["203.0.113.0/24"],
    "status": "active",
    "masked": MASKED,
    "created_at": "2026-01-02T03:04:05Z",
    "last_used_at": None,
    "expires_at": "2027-01-02T03:04:05.5Z",
    "last_rotated_at": None,
    "metadata": {"team": "a"},
    "rotation_due": True,
    "secrets": [{"masked": MASKED, "current": True, "created_at": "2026-01-02T03:04:05Z", "expires_at": None, "x": 1}],
    "colour": "blue",
}
Called = Callable[[Any], Any]  # what either client is asked for
MOMENT = dt.datetime(2027, 1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1)))
EVERYTHING: dict[str, Any] = {
    "name": "a",
    "scopes": ["s"],
    "owner": "customer 17",
    "environment": "test",
    "allowed_ips": ["::1"],
    "expires_at": "2027-01-01T00:00:00Z",
    "metadata": {"k": "é"},
}
ADDRESSES = ["203.0.113.10", "203.0.113.0/24"]


@pytest.mark.parametrize(
    "call, method, target, body",
    [
        (
            lambda c: c.keys.create(name="a", scopes=["skills:list"]),
            *("POST", "/v1/keys", {"name": "a", "scopes": ["skills:list"]}),
        ),
        (lambda c: c.keys.create(**{**EVERYTHING, "expires_at": MOMENT}), "POST", "/v1/keys", EVERYTHING),
        (lambda c: c.keys.create(**{**EVERYTHING, "scopes": ("s",)}), "POST", "/v1/keys", EVERYTHING),
        (lambda c: c.keys.retrieve("key_1"), "GET", "/v1/keys/key_1", None),
        (lambda c: c.keys.retrieve("kéy 1?%2e"), "GET", "/v1/keys/k%C3%A9y%201%3F%252e", None),
        (lambda c: c.keys.update("key_1"), "PATCH", "/v1/keys/key_1", {}),
        (
            lambda c: c.keys.update(key_id="key_1", allowed_ips=ADDRESSES),
            *("PATCH", "/v1/keys/key_1", {"allowed_ips": ADDRESSES}),
        ),
        (
            lambda c: c.keys.update("key_1", expires_at=None, owner=None, name="b"),
            *("PATCH", "/v1/keys/key_1", {"expires_at": None, "owner": None, "name": "b"}),
        ),
        (
            lambda c: c.keys.update("key_1", expires_at="2027-01-01T00:00:00Z", scopes=["s"], metadata={}),
            *("PATCH", "/v1/keys/key_1", {"expires_at": "2027-01-01T00:00:00Z", "scopes": ["s"], "metadata": {}}),
        ),
        (lambda c: c.keys.rotate("key_1"), "POST", "/v1/keys/key_1/rotate", {"grace_seconds": 86400}),
        (lambda c: c.keys.rotate("key_1", grace_seconds=0), "POST", "/v1/keys/key_1/rotate", {"grace_seconds": 0}),
        (lambda c: c.keys.end_grace("key_1"), "POST", "/v1/keys/key_1/end-grace", None),
        (lambda c: c.keys.revoke("key_1"), "POST", "/v1/keys/key_1/revoke", None),
        (lambda c: c.keys.revoke("key_1", self_=True), "POST", "/v1/keys/key_1/revoke?self=true", None),
        (
            lambda c: c.skills.execute(skill_id="text-summarizer", input={"text": "a"}),
            *("POST", "/v1/skills/execute", {"skill_id": "text-summarizer", "input": {"text": "a"}}),
        ),
        (lambda c: c.account.retrieve(), "GET", "/v1/account", None),
        (lambda c: c.whoami(), "GET", "/v1/whoami", None),
    ],
)
async def test_each_method_makes_its_request(twin: Twin, call: Called, method: str, target: str, body: object) -> None:
    twin.script.respond_with(Reply(200, {**KEY, "secret": SECRET}))
    await twin.resolve(call(twin.client()))
    request = twin.script.last
    path, _, query = target.partition("?")
    assert (request.method, request.path, request.query) == (method, path, query)
    assert (request.json if request.body else None) == body
    assert ("content-type" in request.headers) == (body is not None)
    assert ("idempotency-key" in request.headers) == (method != "GET")


async def test_a_key_is_read_into_its_types(twin: Twin) -> None:
    twin.script.respond_with(Reply(200, KEY, {"etag": '"7"'}))
    key = await twin.resolve(twin.client().keys.retrieve("key_1"))
    scripted = (key.id, key.name, key.tier, key.status, key.environment)
    assert scripted == ("key_1", "production", "partner", "active", "live")
    assert (key.own_tier, key.tier_configured) == ("partner", False)
    assert (key.scopes, key.allowed_ips) == (("skills:list",), ("203.0.113.0/24",))
    assert key.owner == "customer 17"
    assert key.created_at == dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    assert key.expires_at == dt.datetime(2027, 1, 2, 3, 4, 5, 500_000, tzinfo=dt.UTC)
    assert key.last_used_at is key.last_rotated_at is key.secret is None
    assert key.rotation_due is True
    assert key.metadata["team"] == "a"
    assert (key.secrets[0].masked, key.secrets[0].current, dict(key.secrets[0].extra)) == (MASKED, True, {"x": 1})
    assert dict(key.extra) == {"colour": "blue"}
    assert key.etag == '"7"'


async def test_members_of_a_key_that_an_older_server_omits_have_defaults(twin: Twin) -> None:
    twin.script.respond_with(Reply(201, {"id": "key_1", "secret": SECRET}))
    key = await twin.resolve(twin.client().keys.create(name="a", scopes=[]))
    assert (key.secret, key.scopes, key.created_at, key.rotation_due) == (SECRET, (), None, False)
    assert (key.owner, key.own_tier, key.tier_configured) == (None, None, True)


async def test_an_etag_goes_back_as_a_condition(twin: Twin) -> None:
    client = twin.client()
    twin.script.respond_with(Reply(200, KEY, {"etag": '"7"'}), Reply(412, {"title": "Changed meanwhile"}))
    key = await twin.resolve(client.keys.retrieve("key_1"))
    with pytest.raises(machpay.PreconditionFailedError):
        await twin.resolve(client.keys.update("key_1", name="b", if_match=key.etag))
    assert twin.script.last.headers["if-match"] == '"7"'


def page(*ids: str, more: bool) -> Reply:
    return Reply(200, {"data": [{**KEY, "id": each} for each in ids], "has_more": more}, {"etag": '"list"'})


async def test_a_list_is_one_page_until_it_is_iterated(twin: Twin) -> None:
    twin.script.respond_with(page("a", "b", more=True), page("c", more=True), page("d", more=False))
    client = twin.client()
    first = await twin.resolve(client.keys.list(limit=2, status="active", environment="live", after="0"))
    assert ([key.id for key in first.data], first.has_more, first.data[0].etag) == (["a", "b"], True, None)
    assert (first.request_id, first.rate_limit) == ("req-1", None)
    assert len(twin.script.requests) == 1
    assert [key.id for key in await twin.collect(first)] == ["a", "b", "c", "d"]
    fixed = {"limit": "2", "status": "active", "environment": "live"}
    request = [dict(parse_qsl(each.query)) for each in twin.script.requests]
    assert request == [{**fixed, "after": "0"}, {**fixed, "after": "b"}, {**fixed, "after": "c"}]


async def test_a_list_can_be_iterated_at_once(twin: Twin) -> None:
    twin.script.respond_with(page("a", more=True), page("b", more=False))
    assert [key.id for key in await twin.collect(twin.client().keys.list())] == ["a", "b"]


async def test_an_empty_page_ends_a_list_whatever_it_says(twin: Twin) -> None:
    twin.script.respond_with(page(more=True))
    assert await twin.collect(twin.client().keys.list()) == []
    assert len(twin.script.requests) == 1


async def test_a_server_that_repeats_a_page_does_not_cause_an_endless_loop(twin: Twin) -> None:
    twin.script.respond_with(page("a", more=True))
    with pytest.raises(machpay.InvalidResponseError, match="ends with it again"):
        await twin.collect(twin.client().keys.list())
    assert len(twin.script.requests) == 2


@pytest.mark.parametrize(
    "given, query",
    [
        ({}, {}),
        ({"bucket": "day"}, {"bucket": "day"}),
        (
            {"start": MOMENT, "end": "2027-02-01T00:00:00Z"},
            {"from": "2027-01-01T00:00:00Z", "to": "2027-02-01T00:00:00Z"},
        ),
    ],
)
async def test_usage_is_requested_by_period_and_bucket(
    twin: Twin, given: dict[str, Any], query: dict[str, str]
) -> None:
    twin.script.respond_with(Reply(200, {"key_id": "key_1"}))
    await twin.resolve(twin.client().keys.usage("key_1", **given))
    assert (twin.script.last.method, twin.script.last.path) == ("GET", "/v1/keys/key_1/usage")
    assert dict(parse_qsl(twin.script.last.query)) == query


async def test_usage_is_read_into_its_types(twin: Twin) -> None:
    latency = {"mean": 1.5, "p50": 1, "p95": 2.25, "p99": None, "p100": 9}
    kinds = {"outcomes": {"allowed": 2, "rate_limited": 1}, "statuses": {"200": 2, "429": 1}}
    hour = {"start": "2026-01-02T03:00:00Z", "requests": 3, "allowed": 2, "refused": 1, **kinds, "latency_ms": latency}
    total = {name: value for name, value in hour.items() if name != "start"} | {"routes": {"GET /v1/skills": 3}, "x": 1}
    period = {"from": "2026-01-01T04:00:00Z", "to": "2026-01-02T04:00:00Z"}
    twin.script.respond_with(
        Reply(200, {"object": "usage", "key_id": "key_1", "bucket": "hour", **period, "data": [hour], "total": total})
    )
    usage = await twin.resolve(twin.client().keys.usage("key_1"))
    assert (usage.key_id, usage.bucket, usage.start) == ("key_1", "hour", dt.datetime(2026, 1, 1, 4, tzinfo=dt.UTC))
    (first,) = usage.data
    assert first.start == dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC)
    assert (first.requests, first.allowed, first.refused, dict(first.outcomes)) == (3, 2, 1, kinds["outcomes"])
    assert first.latency_ms == machpay.Latency(mean=1.5, p50=1.0, p95=2.25, p99=None)
    assert (usage.total.start, dict(usage.total.routes), dict(usage.total.extra)) == (
        None,
        {"GET /v1/skills": 3},
        {"x": 1},
    )


@pytest.mark.parametrize(
    "total", [{"requests": "3"}, {"requests": True}, {"outcomes": {"allowed": 1.5}}, {"latency_ms": {"mean": "1"}}, []]
)
async def test_usage_that_is_not_a_number_is_an_error(twin: Twin, total: object) -> None:
    twin.script.respond_with(Reply(200, {"key_id": "key_1", "total": total}))
    with pytest.raises(machpay.InvalidResponseError, match="total"):
        await twin.resolve(twin.client().keys.usage("key_1"))


async def test_skills_are_listed_and_executed(twin: Twin) -> None:
    client = twin.client()
    twin.script.respond_with(
        Reply(200, {"data": [{"id": "sentiment", "name": "Mood", "price": 1}], "caller": {"id": "key_1"}}),
        Reply(200, {"skill_id": "sentiment", "output": ["Done."], "caller": {"id": "key_1"}}),
    )
    (skill,) = await twin.collect(client.skills.list())
    assert (skill.id, skill.name, skill.extra["price"]) == ("sentiment", "Mood", 1)
    done = await twin.resolve(client.skills.execute(skill_id=skill.id, input={}))
    assert (done.output, done.extra["caller"]) == (["Done."], {"id": "key_1"})


async def test_whoami_returns_the_identity_and_preserves_unknown_members(twin: Twin) -> None:
    twin.script.respond_with(Reply(200, {"id": "key_1", "tier": "standard", "scopes": ["a"], "limits": {"minute": 1}}))
    identity = await twin.resolve(twin.client().whoami())
    assert (identity.id, identity.tier, identity.scopes) == ("key_1", "standard", ("a",))
    assert identity.extra == {"limits": {"minute": 1}}


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda c: c.keys.retrieve(""), "key_id='' is not an identifier"),
        (lambda c: c.keys.retrieve(None), "key_id=None is not an identifier"),
        (lambda c: c.keys.retrieve(".."), "change the path"),
        (lambda c: c.keys.revoke("a/b"), "change the path"),
        (lambda c: c.keys.rotate("a\\b"), "change the path"),
        (lambda c: c.keys.rotate("\ud800"), "not valid Unicode"),
        (lambda c: c.keys.create(name="a", scopes="skills:list"), r"write scopes=\[…\]"),
        (lambda c: c.keys.create(name="a", scopes=[1]), "scopes holds 1"),
        (lambda c: c.keys.update("k", allowed_ips="::1"), r"write allowed_ips=\[…\]"),
        (lambda c: c.keys.update("k", expires_at=dt.datetime(2027, 1, 1)), "has no time zone"),  # noqa: DTZ001 - refused
        (lambda c: c.keys.update("k", name="b", if_match="a\r\nb"), "if_match"),
        (lambda c: c.keys.end_grace("k", idempotency_key=""), "idempotency_key"),
        (lambda c: c.skills.execute(skill_id="a", input={"a": {1, 2}}), "JSON cannot hold"),
        (lambda c: c.skills.execute(skill_id="a", input={"a": float("nan")}), "JSON cannot hold"),
    ],
)
async def test_invalid_arguments_are_refused_before_anything_is_sent(twin: Twin, call: Called, match: str) -> None:
    with pytest.raises(machpay.InvalidArgumentError, match=match):
        await twin.resolve(call(twin.client()))
    assert twin.script.requests == []


@pytest.mark.parametrize(
    "scripted, match",
    [
        (
            Reply(200, b"<html>", {"content-type": "text/html"}),
            r"not JSON but text/html \(status 200\); is base_url right",
        ),
        (Reply(200, [1]), "not an object"),
        (Reply(200, {"name": "a"}), "id is missing"),
        (Reply(200, {**KEY, "scopes": "a"}), "scopes: not an array"),
        (Reply(200, {**KEY, "created_at": "yesterday"}), "created_at: not a time"),
        (Reply(200, {**KEY, "rotation_due": 1}), "rotation_due: neither true nor false"),
    ],
)
async def test_a_response_that_does_not_follow_the_api_is_an_error(twin: Twin, scripted: Reply, match: str) -> None:
    twin.script.respond_with(scripted)
    with pytest.raises(machpay.InvalidResponseError, match=match) as caught:
        await twin.resolve(twin.client().keys.retrieve("key_1"))
    assert caught.value.response.body == scripted.raw
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 - its own
