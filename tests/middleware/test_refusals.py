"""Every refusal of the table, reached over HTTP."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import pytest
from httpx2 import Response

from machpay_gateway import Route
from machpay_gateway.core.decision.problem import PROBLEMS
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.core.keys.key import KeyRecord, mint_secret
from tests.applications import ok
from tests.gateways import Guarded, guarded


@pytest.fixture
async def api() -> AsyncIterator[Guarded]:
    async with guarded(ok) as it:
        yield it


def assert_refused(answer: Response, reason: Reason) -> None:
    """The status, the media type and the members that every refusal has."""
    row, body = PROBLEMS[reason], answer.json()
    assert (answer.status_code, body["code"]) == (row.status, reason)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert body["status"] == row.status
    assert (body["title"], body["type"].rpartition("/")[2]) == (row.title, reason)
    assert body["request_id"] == answer.headers["x-request-id"]
    assert "x-app" not in answer.headers


async def test_no_credentials_get_the_bare_challenge(api: Guarded) -> None:
    answer = await api.client().get("/v1/skills")
    assert_refused(answer, Reason.MISSING_CREDENTIALS)
    assert answer.headers["www-authenticate"] == 'Bearer realm="machpay"'


async def test_two_authorization_headers_are_malformed(api: Guarded) -> None:
    _, secret = await api.key()
    headers = [("Authorization", f"Bearer {secret}"), ("Authorization", f"Bearer {secret}")]
    assert_refused(await api.client().get("/v1/skills", headers=headers), Reason.MALFORMED_REQUEST)


async def test_an_over_long_credential_is_malformed(api: Guarded) -> None:
    assert_refused(await api.client("x" * 20_000).get("/v1/skills"), Reason.MALFORMED_REQUEST)


@pytest.mark.parametrize(
    "path", ["/v1//skills", "/v1/%2e%2e/v1/skills", "/v1/skills%2fexecute", "/v1/skills%5c", "/%00"]
)
async def test_an_ambiguous_path_is_malformed_even_with_a_good_key(api: Guarded, path: str) -> None:
    _, secret = await api.key()
    assert_refused(await api.client(secret).get(path), Reason.MALFORMED_REQUEST)


async def test_unknown_mistyped_revoked_and_expired_read_the_same(api: Guarded) -> None:
    key_id, revoked = await api.key()
    await api.gateway.keys.revoke(None, key_id)
    ends_at = time.time() + 0.5
    _, expired = await api.key(expires_at=ends_at)
    asyncio.get_running_loop().call_later(ends_at - time.time() + 0.005, (passed := asyncio.Event()).set)
    await passed.wait()
    unknown = mint_secret("live", bytes(range(32)))
    mistyped = unknown[:-1] + ("a" if unknown[-1] != "a" else "b")
    answers = [await api.client(s).get("/v1/skills") for s in (unknown, mistyped, revoked, expired, "a.b.c", "junk")]
    for answer in answers:
        assert_refused(answer, Reason.INVALID_CREDENTIALS)
    problems = [{**answer.json(), "request_id": ""} for answer in answers]
    assert all(one == problems[0] for one in problems)
    assert len({answer.headers["www-authenticate"] for answer in answers}) == 1
    assert 'error="invalid_token"' in answers[0].headers["www-authenticate"]


async def test_a_missing_scope_is_named_in_challenge_and_body(api: Guarded) -> None:
    _, secret = await api.key(scopes=["skills:list"])
    answer = await api.client(secret).post("/v1/skills/execute")
    assert_refused(answer, Reason.INSUFFICIENT_SCOPE)
    assert answer.json()["required_scopes"] == ["skills:execute"]
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
    assert 'scope="skills:execute"' in answer.headers["www-authenticate"]


async def test_a_request_refused_for_scope_spends_no_quota(api: Guarded) -> None:
    _, secret = await api.key(scopes=["skills:list"])
    for _ in range(3):
        await api.client(secret).post("/v1/skills/execute")
    answer = await api.client(secret).get("/v1/skills")
    assert answer.headers["ratelimit"].startswith('"minute";r=999;')


@pytest.mark.parametrize(
    "address, allowed", [("192.0.2.7", True), ("::ffff:192.0.2.7", True), ("198.51.100.1", False), ("junk", False)]
)
async def test_an_allowlist_decides_by_address(api: Guarded, address: str, allowed: bool) -> None:  # noqa: FBT001 - a table's column
    _, secret = await api.key(allowed_ips=["192.0.2.0/24"])
    answer = await api.client(secret, address=address).get("/v1/skills")
    if allowed:
        assert answer.status_code == 200
    else:
        assert_refused(answer, Reason.ADDRESS_NOT_ALLOWED)


async def test_a_test_key_is_refused_where_only_live_is_served() -> None:
    async with guarded(ok, environments=["live"]) as api:
        _, secret = await api.key(environment="test")
        assert_refused(await api.client(secret).get("/v1/skills"), Reason.WRONG_ENVIRONMENT)


async def test_an_unlisted_route_is_not_found_where_unlisted_is_denied() -> None:
    async with guarded(ok, unlisted_routes="deny") as api:
        _, secret = await api.key()
        assert_refused(await api.client(secret).get("/v1/other"), Reason.ROUTE_NOT_FOUND)
        assert_refused(await api.client(secret).delete("/v1/skills"), Reason.ROUTE_NOT_FOUND)


async def test_an_unlisted_route_needs_a_credential_otherwise(api: Guarded) -> None:
    _, secret = await api.key(scopes=["account:read"])
    assert_refused(await api.client().get("/v1/other"), Reason.MISSING_CREDENTIALS)
    assert (await api.client(secret).get("/v1/other")).status_code == 200


async def test_the_request_after_the_last_of_the_window_is_rate_limited(api: Guarded) -> None:
    _, secret = await api.key(environment="test")
    client = api.client(secret)
    answers = [await client.get("/v1/skills") for _ in range(101)]
    assert [answer.status_code for answer in answers[:100]] == [200] * 100
    refused = answers[100]
    assert_refused(refused, Reason.RATE_LIMITED)
    assert refused.json()["violated_policies"] == ["minute"]
    assert refused.headers["ratelimit"].startswith('"minute";r=0;')
    assert 1 <= int(refused.headers["retry-after"]) <= 61
    assert int(refused.headers["retry-after"]) == refused.json()["retry_after"]


async def test_an_address_with_many_failures_is_limited_and_others_are_not() -> None:
    async with guarded(ok, failure_limit="3/minute") as api:
        _, good = await api.key()
        bad = mint_secret("live", bytes(32))
        assert (await api.client(good).get("/v1/skills")).status_code == 200
        for _ in range(3):
            assert_refused(await api.client(bad).get("/v1/skills"), Reason.INVALID_CREDENTIALS)
        slowed = await api.client(bad).get("/v1/skills")
        assert_refused(slowed, Reason.TOO_MANY_FAILURES)
        assert 1 <= int(slowed.headers["retry-after"]) <= 20
        assert_refused(await api.client("junk").get("/v1/skills"), Reason.TOO_MANY_FAILURES)
        assert_refused(await api.client(bad, address="192.0.2.2").get("/v1/skills"), Reason.INVALID_CREDENTIALS)
        # A key that is in use from the same address, behind the same NAT, is not locked out.
        assert (await api.client(good).get("/v1/skills")).status_code == 200


async def test_an_unavailable_store_is_a_503_and_never_fails_open(
    api: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, secret = await api.key()

    async def away(_digests: Sequence[bytes]) -> Sequence[KeyRecord]:
        raise StoreUnavailable("key lookup")

    monkeypatch.setattr(api.gateway.store, "find_by_digests", away)
    answer = await api.client(secret).get("/v1/skills")
    assert_refused(answer, Reason.UNAVAILABLE)
    assert answer.headers["retry-after"] == "1"


async def test_a_public_route_requires_and_trusts_no_credential(api: Guarded) -> None:
    assert (await api.client().get("/healthz")).status_code == 200
    assert (await api.client("junk").get("/healthz")).status_code == 200


async def test_head_is_refused_without_a_body(api: Guarded) -> None:
    answer = await api.client().head("/v1/skills")
    assert (answer.status_code, answer.content) == (401, b"")
    assert int(answer.headers["content-length"]) > 0


async def test_a_preflight_passes_only_when_it_is_one(api: Guarded) -> None:
    client, preflight = api.client(), {"Origin": "https://app.test", "Access-Control-Request-Method": "POST"}
    assert (await client.options("/v1/skills/execute", headers=preflight)).status_code == 200
    assert (await client.options("/v1/skills/execute")).status_code == 401
    assert (await client.options("/v1/skills/execute", headers={"Origin": "https://app.test"})).status_code == 401
    assert (await client.get("/v1/skills", headers=preflight)).status_code == 401


@pytest.mark.parametrize("headers", [{"Content-Length": "2"}, {"Transfer-Encoding": "chunked"}])
async def test_a_preflight_with_a_body_is_a_request_like_any_other(api: Guarded, headers: dict[str, str]) -> None:
    preflight = {"Origin": "https://app.test", "Access-Control-Request-Method": "POST"}
    answer = await api.client().request("OPTIONS", "/v1/skills/execute", headers=preflight | headers, content=b"{}")
    assert_refused(answer, Reason.MISSING_CREDENTIALS)


async def test_many_wrong_keys_at_once_are_as_many_failures() -> None:
    async with guarded(ok, failure_limit="5/minute") as api:
        unknown = [mint_secret("live", number.to_bytes(32, "big")) for number in range(30)]
        answers = await asyncio.gather(*(api.client(secret).get("/v1/skills") for secret in unknown))
    assert sorted(answer.status_code for answer in answers) == [401] * 5 + [429] * 25


async def test_concurrent_valid_keys_count_no_failures() -> None:
    async with guarded(ok, failure_limit="5/minute") as api:
        secrets = [(await api.key())[1] for _ in range(20)]
        for secret in secrets:
            assert (await api.client(secret).get("/v1/skills")).status_code == 200
        assert_refused(await api.client("junk").get("/v1/skills"), Reason.INVALID_CREDENTIALS)


async def test_an_unlisted_method_needs_the_scopes_of_its_path(api: Guarded) -> None:
    _, reader = await api.key(scopes=["skills:list"])
    _, executor = await api.key(scopes=["skills:execute"])
    for method in ("GET", "PUT", "DELETE", "OPTIONS"):
        refused = await api.client(reader).request(method, "/v1/skills/execute")
        if method == "GET":  # this is `GET /v1/skills/{id}`
            assert refused.status_code == 200
            continue
        assert_refused(refused, Reason.INSUFFICIENT_SCOPE)
        assert (await api.client(executor).request(method, "/v1/skills/execute")).status_code in {200, 403}


async def test_a_preflight_for_a_route_that_is_not_there_is_not_found() -> None:
    async with guarded(ok, unlisted_routes="deny") as api:
        preflight = {"Origin": "https://app.test", "Access-Control-Request-Method": "DELETE"}
        assert_refused(await api.client().options("/v1/skills", headers=preflight), Reason.ROUTE_NOT_FOUND)


async def test_a_route_costs_what_it_says() -> None:
    async with guarded(ok, routes=[Route("GET /dear", cost=10), Route("GET /free", cost=0)]) as api:
        _, secret = await api.key()
        client = api.client(secret)
        assert (await client.get("/dear")).headers["ratelimit"].startswith('"minute";r=990;')
        assert (await client.get("/free")).headers["ratelimit"].startswith('"minute";r=990;')
