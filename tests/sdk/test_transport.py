import json
import logging
import socket
import struct
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import httpx2
import machpay
import pytest

from tests.sdk.conftest import Twin
from tests.sdk.scripted import MASKED, SECRET, Reply

LIMITS = {
    "ratelimit-policy": '"minute";q=1000;w=60, "concurrency";q=50;qu="concurrent-requests"',
    "ratelimit": '"minute";r=742;t=12, "concurrency";r=47',
}
BUSY = Reply(503)


async def test_a_request_has_the_credential_and_the_user_agent(twin: Twin) -> None:
    await twin.resolve(twin.client().whoami())
    request = twin.script.last
    assert (request.method, request.path, request.body) == ("GET", "/v1/whoami", b"")
    assert request.headers["authorization"] == f"Bearer {SECRET}"
    assert request.headers["user-agent"] == f"machpay-python/{machpay.__version__}"
    assert request.headers["accept"] == "application/json"
    assert "idempotency-key" not in request.headers
    assert "content-type" not in request.headers


async def test_an_access_token_is_sent_like_a_key(twin: Twin) -> None:
    await twin.resolve(twin.client(api_key=None, access_token="token-1").whoami())
    assert twin.script.last.headers["authorization"] == "Bearer token-1"


async def test_a_path_in_the_base_url_stays_in_front(twin: Twin) -> None:
    await twin.resolve(twin.client(base_url=f"{twin.url}/proxied/").whoami())
    assert twin.script.last.path == "/proxied/v1/whoami"


async def test_results_carry_limits_request_id_status_and_headers(twin: Twin) -> None:
    twin.script.respond_with(Reply(200, {"id": "acct_1", "balance": 7}, {**LIMITS, "x-request-id": "req-9"}))
    account = await twin.resolve(twin.client().account.retrieve())
    assert (account.id, account.extra["balance"]) == ("acct_1", 7)
    assert account.request_id == "req-9"
    assert account.rate_limit["minute"].remaining == 742
    assert account.rate_limit["concurrency"].unit == "concurrent-requests"
    assert (account.response.status, account.response.attempts) == (200, 1)
    assert account.response.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_transient_errors_are_retried(twin: Twin, status: int) -> None:
    twin.script.respond_with(Reply(status), Reply(status), Reply(200, {"id": "acct_1"}))
    account = await twin.resolve(twin.client().account.retrieve())
    assert account.response.attempts == 3
    assert twin.world.slept == [0.5, 1.0]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 422, 501])
async def test_permanent_errors_are_not_retried(twin: Twin, status: int) -> None:
    twin.script.respond_with(Reply(status))
    with pytest.raises(machpay.APIStatusError):
        await twin.resolve(twin.client().whoami())
    assert (len(twin.script.requests), twin.world.slept) == (1, [])


@pytest.mark.parametrize(
    "headers, slept",
    [
        ({"retry-after": "7"}, [7.0]),
        ({"retry-after": "60"}, [60.0]),
        ({"date": "Wed, 21 Oct 2015 07:28:00 GMT", "retry-after": "Wed, 21 Oct 2015 07:28:09 GMT"}, [9.0]),
        ({"retry-after": "soon"}, [0.5]),  # malformed: as if it were not there
    ],
)
async def test_retry_after_determines_the_wait(twin: Twin, headers: dict[str, str], slept: list[float]) -> None:
    twin.script.respond_with(Reply(429, {}, headers), Reply())
    await twin.resolve(twin.client().whoami())
    assert twin.world.slept == slept


async def test_calls_that_were_refused_at_once_do_not_return_at_once(twin: Twin) -> None:
    for twin.world.drawn, wait in ((1.0, 61.0), (0.5, 65.0), (0.0, 69.0)):
        twin.script.respond_with(Reply(429, {}, {"retry-after": "61"}), Reply())
        await twin.resolve(twin.client().whoami())
        assert twin.world.slept.pop() == wait


async def test_a_retry_after_of_more_than_two_minutes_is_not_awaited(twin: Twin) -> None:
    twin.script.respond_with(Reply(429, {}, {"retry-after": "121"}))
    with pytest.raises(machpay.RateLimitError) as caught:
        await twin.resolve(twin.client(timeout=100).whoami())
    assert (caught.value.retry_after, len(twin.script.requests)) == (121.0, 1)


async def test_a_wait_beyond_the_deadline_is_not_started(twin: Twin) -> None:
    twin.script.respond_with(Reply(429, {}, {"retry-after": "30"}))
    with pytest.raises(machpay.RateLimitError):
        await twin.resolve(twin.client(timeout=10, max_retries=2).whoami())
    assert len(twin.script.requests) == 1


async def test_the_last_response_is_raised_after_all_retries(twin: Twin) -> None:
    twin.script.respond_with(BUSY)
    with pytest.raises(machpay.InternalServerError) as caught:
        await twin.resolve(twin.client(max_retries=3).whoami())
    assert (len(twin.script.requests), caught.value.response.attempts) == (4, 4)


async def test_a_conflict_is_retried_when_the_server_says_so(twin: Twin) -> None:
    twin.script.respond_with(
        Reply(409, {}, {"x-should-retry": "true"}),
        Reply(409, {}, {"retry-after": "1"}),
        Reply(),
    )
    await twin.resolve(twin.client().whoami())
    assert twin.world.slept == [0.5, 1.0]


async def test_all_attempts_of_a_call_have_the_same_idempotency_key(twin: Twin) -> None:
    client = twin.client()
    twin.script.respond_with(BUSY, BUSY, Reply())
    for _ in range(2):
        await twin.resolve(client.skills.execute(skill_id="a", input={}))
    first, second, third, other = (request.headers["idempotency-key"] for request in twin.script.requests)
    assert first == second == third != other
    assert uuid.UUID(first).version == 4
    assert len({request.body for request in twin.script.requests}) == 1


async def test_a_given_idempotency_key_is_sent(twin: Twin) -> None:
    await twin.resolve(twin.client().skills.execute(skill_id="a", input={}, idempotency_key="order-17"))
    assert twin.script.last.headers["idempotency-key"] == "order-17"


async def test_a_silent_server_is_a_timeout_after_all_attempts(twin: Twin) -> None:
    twin.script.respond_with(Reply(silent=True))
    with pytest.raises(machpay.APITimeoutError, match=r"GET /v1/whoami .* got no response in time"):
        await twin.resolve(twin.client(timeout=0.2, max_retries=0).whoami())
    twin.script.respond_with(Reply(silent=True), Reply())
    twin.world.drawn = 0.0
    await twin.resolve(twin.client(timeout=1.0).whoami())  # as long as a busy machine may need for the second attempt


async def test_a_slow_body_ends_with_the_timeout(twin: Twin) -> None:
    twin.script.respond_with(Reply(drips=True))
    with pytest.raises(machpay.APITimeoutError):
        await twin.resolve(twin.client(timeout=0.2, max_retries=0).whoami())


async def test_a_truncated_response_is_retried(twin: Twin) -> None:
    twin.script.respond_with(Reply(cut=True), Reply(200, {"id": "acct_1"}))
    account = await twin.resolve(twin.client().account.retrieve())
    assert account.response.attempts == 2


@pytest.fixture
def resetting() -> Iterator[str]:
    """Yield the address of a server that resets every connection once it has read from it."""
    listening = socket.create_server(("127.0.0.1", 0))

    def reset() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            connection.recv(65536)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

    thread = threading.Thread(target=reset)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(5)


async def test_the_error_for_a_reset_connection_does_not_show_the_credential(twin: Twin, resetting: str) -> None:
    with pytest.raises(machpay.APIConnectionError) as caught:
        await twin.resolve(twin.client(base_url=resetting).skills.execute(skill_id="a", input={}))
    assert not isinstance(caught.value, machpay.APITimeoutError)
    assert str(caught.value).startswith(f"POST /v1/skills/execute at {resetting} got no response")
    assert SECRET not in str(caught.value)
    assert twin.world.slept == [0.5, 1.0]


async def test_a_server_that_is_not_there_is_a_connection_error(twin: Twin) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(machpay.APIConnectionError):
        await twin.resolve(twin.client(base_url=f"http://127.0.0.1:{port}", max_retries=1).whoami())
    assert twin.world.slept == [0.5]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_error_and_never_followed(twin: Twin, status: int) -> None:
    twin.script.respond_with(Reply(status, {}, {"location": "/v1/elsewhere"}))
    kind: Any = httpx2.AsyncClient if twin.kind is machpay.AsyncMachPay else httpx2.Client
    given = kind(follow_redirects=True)
    for client in (twin.client(), twin.client(http_client=given)):
        with pytest.raises(machpay.APIStatusError, match="never followed"):
            await twin.resolve(client.whoami())
    assert {request.path for request in twin.script.requests} == {"/v1/whoami"}
    await twin.resolve(given.aclose() if kind is httpx2.AsyncClient else given.close())


async def test_a_given_http_client_stays_open_and_its_own_auth_is_not_used(twin: Twin) -> None:
    kind: Any = httpx2.AsyncClient if twin.kind is machpay.AsyncMachPay else httpx2.Client
    given = kind(auth=("user", "password"), headers={"x-mine": "1"})
    client = twin.client(http_client=given)
    await twin.resolve(client.whoami())
    assert twin.script.last.headers["authorization"] == f"Bearer {SECRET}"
    assert twin.script.last.headers["x-mine"] == "1"
    await twin.close()
    assert not given.is_closed
    await twin.resolve(given.aclose() if kind is httpx2.AsyncClient else given.close())


async def test_with_options_changes_a_copy_that_shares_the_connections(twin: Twin) -> None:
    client = twin.client()
    twin.script.respond_with(BUSY)
    with pytest.raises(machpay.InternalServerError):
        await twin.resolve(client.with_options(max_retries=0, timeout=5).whoami())
    assert len(twin.script.requests) == 1
    copy = client.with_options(timeout=5)
    await twin.resolve(copy.aclose() if twin.kind is machpay.AsyncMachPay else copy.close())
    twin.script.respond_with(BUSY, Reply())
    await twin.resolve(client.whoami())
    assert len(twin.script.requests) == 3


async def test_a_client_closes_with_its_context(twin: Twin) -> None:
    client = twin.client()
    if twin.kind is machpay.AsyncMachPay:
        async with client as entered:
            await entered.whoami()
    else:
        with client as entered:
            entered.whoami()
    assert entered is client
    with pytest.raises(RuntimeError, match="closed"):
        await twin.resolve(client.whoami())


async def test_logs_and_reprs_never_show_the_credential(twin: Twin, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client = twin.client()
    twin.script.respond_with(BUSY, Reply(200, {"id": "key_1", "secret": SECRET}))
    key = await twin.resolve(client.keys.rotate("key_1"))
    ours = [record.getMessage() for record in caplog.records if record.name == "machpay"]
    assert len(ours) == 3
    shown = "\n".join((caplog.text, repr(client), str(client), repr(vars(client)), repr(key), repr(key.response)))
    assert SECRET not in shown
    assert f"{twin.kind.__name__}({MASKED!r}, base_url={twin.url!r})" == repr(client)
    assert f"secret={MASKED!r}" in repr(key)


async def test_a_credential_that_is_echoed_does_not_get_into_the_error(twin: Twin) -> None:
    echo = {"title": "Bad", "detail": f"Authorization: Bearer {SECRET}"}
    twin.script.respond_with(Reply(400, echo))
    with pytest.raises(machpay.BadRequestError) as caught:
        await twin.resolve(twin.client().whoami())
    assert SECRET not in f"{caught.value} {caught.value.detail} {caught.value.response.body!r}"
    assert json.loads(caught.value.response.body)["detail"].endswith(MASKED)
