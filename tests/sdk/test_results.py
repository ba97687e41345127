"""Results as values: pickled, copied, compared, hashed, converted, and sent to other processes."""

import copy
import dataclasses
import json
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import machpay
import pytest

from tests.sdk.conftest import Twin
from tests.sdk.scripted import MASKED, SECRET, Reply

KEY: dict[str, Any] = {
    "id": "key_1",
    "name": "production",
    "scopes": ["skills:list"],
    "created_at": "2026-01-02T03:04:05Z",
    "metadata": {"team": "a"},
    "secrets": [{"masked": MASKED, "current": True, "x": {"y": [1]}}],
    "secret": SECRET,
    "colour": {"of": ["blue"]},
}
USAGE = {"key_id": "key_1", "from": "2026-01-02T03:04:05Z", "data": [{"requests": 1, "outcomes": {"allowed": 1}}]}
TOKENS = {"access_token": "at_" + "x" * 40, "refresh_token": "rt_" + "y" * 40, "expires_in": 60}
ENTRY = {"id": "audit_1", "actor": {"kind": "api_key", "id": "key_1"}, "before": {"name": "a"}, "after": {"name": "b"}}
RESULTS: list[tuple[Any, dict[str, Any]]] = [
    (lambda c: c.keys.create(name="a", scopes=[]), KEY),
    (lambda c: c.keys.retrieve("key_1"), KEY),
    (lambda c: c.keys.usage("key_1"), USAGE),
    (lambda c: c.keys.list(), {"object": "list", "data": [KEY], "has_more": False}),
    (lambda c: c.audit_log.list(), {"object": "list", "data": [ENTRY], "has_more": True}),
    (lambda c: c.skills.execute(skill_id="a", input={}), {"skill_id": "a", "output": {"words": [1]}, "more": [1]}),
    (lambda c: c.account.retrieve(), {"id": "acct_1", "balance": 7, "more": {"a": [1]}}),
    (lambda c: c.whoami(), {"id": "key_1", "limits": {"rate": "1/minute"}, "policies": [{"policy": "minute"}]}),
    (lambda c: c.sessions.create(), {"token": "t" * 20, "scopes": ["a"]}),
    (lambda c: c.oauth.refresh_token(refresh_token="r", client_id="a"), TOKENS),
    (
        lambda c: c.oauth_clients.create(name="a", scopes=[]),
        {"id": "app_1", "secrets": [{"x": []}], "client_secret": "s"},
    ),
    (lambda c: c.grants.revoke("grant_1"), {"id": "grant_1", "scopes": ["a"]}),
    (lambda c: c.get("/v1/anything"), {"a": 1}),
]


@pytest.mark.parametrize("call, body", RESULTS)
async def test_a_result_is_a_value(twin: Twin, call: Any, body: dict[str, Any]) -> None:  # noqa: ANN401 - a method
    twin.script.respond_with(Reply(200, body, {"etag": '"7"'}))
    result = await twin.resolve(call(twin.client()))
    again = pickle.loads(pickle.dumps(result))  # noqa: S301 - our own
    for other in (again, copy.copy(result), copy.deepcopy(result)):
        assert type(other) is type(result)
        assert (other == result, hash(other) == hash(result), repr(other) == repr(result)) == (True, True, True)
        assert other.request_id == "req-1"
    assert {result, again} == {result}
    assert dataclasses.asdict(result).keys() == {each.name for each in dataclasses.fields(result)}
    if isinstance(result, machpay.Response):
        assert (result.json(), again.json()) == (body, body)
        return
    assert json.loads(json.dumps(result.to_dict())) == result.to_dict()
    assert again.response.body == result.response.body


async def test_a_result_as_a_dict_has_every_member(twin: Twin) -> None:
    twin.script.respond_with(Reply(200, KEY, {"etag": '"7"'}))
    key = (await twin.resolve(twin.client().keys.create(name="a", scopes=[]))).to_dict()
    assert {name: key[name] for name in KEY if name != "secrets"} == {
        name: KEY[name] for name in KEY if name != "secrets"
    }
    assert (key["etag"], key["expires_at"], key["secrets"][0]["x"]) == ('"7"', None, {"y": [1]})
    assert key.keys().isdisjoint({"response", "extra"})


def test_results_cross_process_boundaries(twin: Twin) -> None:
    if twin.kind is machpay.AsyncMachPay:
        pytest.skip("its results are the same classes")
    twin.script.respond_with(Reply(200, KEY))
    key = twin.client().keys.retrieve("key_1")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(dataclasses.replace, key, name="b").result(60) == dataclasses.replace(key, name="b")


async def test_a_pickled_page_says_why_it_has_no_next_one(twin: Twin) -> None:
    twin.script.respond_with(Reply(200, {"data": [KEY], "has_more": True}), Reply(200, {"data": [], "has_more": False}))
    page = await twin.resolve(twin.client().keys.list())
    copied = copy.deepcopy(page)
    with pytest.raises(machpay.MachPayError, match="pickled"):
        await twin.resolve(pickle.loads(pickle.dumps(page)).next_page())  # noqa: S301 - our own
    assert (await twin.resolve(copied.next_page())).data == ()


@pytest.mark.parametrize("last_ids", ["aa", "aba", "abca", "abcb", "abcdefghc"])
async def test_a_cursor_that_returns_to_an_earlier_page_is_an_error(twin: Twin, last_ids: str) -> None:
    pages = [Reply(200, {"data": [{"id": each}], "has_more": True}) for each in last_ids]
    twin.script.respond_with(*pages)
    with pytest.raises(machpay.InvalidResponseError, match="ends with it again"):
        await twin.collect(await twin.resolve(twin.client().skills.list()))
    assert len(twin.script.requests) == len(last_ids)


async def test_a_page_may_be_iterated_again(twin: Twin) -> None:
    first, second = ({"data": [{"id": each}], "has_more": each == "a"} for each in "ab")
    twin.script.respond_with(Reply(200, first), Reply(200, second))
    page = await twin.resolve(twin.client().skills.list())
    for _ in range(3):
        assert [each.id for each in await twin.collect(page)] == ["a", "b"]


async def test_a_key_that_was_issued_has_a_secret(twin: Twin) -> None:
    twin.script.respond_with(Reply(201, KEY))
    key = await twin.resolve(twin.client().keys.create(name="a", scopes=[]))
    assert isinstance(key, machpay.IssuedKey)
    assert key.secret == SECRET
    assert SECRET not in repr(key)
    twin.script.respond_with(Reply(201, {"id": "key_1"}))
    with pytest.raises(machpay.InvalidResponseError, match="secret is missing"):
        await twin.resolve(twin.client().keys.rotate("key_1"))


async def test_the_members_of_an_account_and_an_identity_are_typed(twin: Twin) -> None:
    twin.script.respond_with(Reply(200, {"id": "acct_1", "balance": 7, "currency": "USD", "name": ["odd"]}))
    account = await twin.resolve(twin.client().account.retrieve())
    assert (account.balance, account.currency, account.name) == (7, "USD", None)
    assert account.extra == {"balance": 7, "currency": "USD", "name": ["odd"]}
    limits: dict[str, Any] = {"rate": "1000/minute", "requests": 1000, "window_seconds": 60, "concurrency": 50}
    remaining: dict[str, Any] = {"requests": 999, "reset_seconds": 60, "concurrency": 49}
    body = {"object": "principal", "kind": "api_key", "id": "key_1", "account_id": "acct_1", "limits": limits}
    twin.script.respond_with(Reply(200, {**body, "remaining": remaining, "policies": [{"policy": "minute"}]}))
    me = await twin.resolve(twin.client().whoami())
    assert (me.kind, me.account_id) == ("api_key", "acct_1")
    assert me.limits == machpay.TierLimits(**limits)
    assert me.remaining == machpay.RemainingLimits(**remaining)
    assert me.policies == ({"policy": "minute"},)
