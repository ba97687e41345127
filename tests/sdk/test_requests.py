"""Calls to any endpoint, options of single calls, streams, hooks, and the end of a client."""

import asyncio
import gc
from typing import Any

import httpx2
import machpay
import pytest
from hypothesis import given
from hypothesis import strategies as st
from machpay._server_sent_events import EventParser, LineSplitter

from tests.sdk.conftest import Twin
from tests.sdk.scripted import SECRET, Reply, Script

BUSY = Reply(503)


@pytest.mark.parametrize(
    "call, sent, kind",
    [
        (lambda c: c.get("/v1/orders"), ("GET", "/v1/orders", b""), None),
        (lambda c: c.get("/v1/orders?a=1"), ("GET", "/v1/orders?a=1", b""), None),
        (
            lambda c: c.get("/v1/o?a=1", params={"b": [2, "é &"], "c": None, "d": True}),
            ("GET", "/v1/o?a=1&b=2&b=%C3%A9+%26&d=true", b""),
            None,
        ),
        (lambda c: c.post("/v1/o", json={"a": "é"}), ("POST", "/v1/o", '{"a":"é"}'.encode()), "application/json"),
        (lambda c: c.post("/v1/o", json=None), ("POST", "/v1/o", b"null"), "application/json"),
        (lambda c: c.put("/v1/o", content=b"\x00"), ("PUT", "/v1/o", b"\x00"), None),
        (lambda c: c.put("/v1/o", content="é"), ("PUT", "/v1/o", "é".encode()), "text/plain; charset=utf-8"),
        (
            lambda c: c.patch("/v1/o", content=b"a,b", headers={"content-type": "text/csv"}),
            ("PATCH", "/v1/o", b"a,b"),
            "text/csv",
        ),
        (lambda c: c.delete("/v1/o/1"), ("DELETE", "/v1/o/1", b""), None),
        (lambda c: c.request("options", "/v1/o"), ("OPTIONS", "/v1/o", b""), None),
    ],
)
async def test_any_endpoint_can_be_called(
    twin: Twin,
    call: Any,  # noqa: ANN401 - a method
    sent: tuple[str, str, bytes],
    kind: str | None,
) -> None:
    twin.script.respond_with(Reply(201, {"id": 1}, {"ratelimit": '"minute";r=5'}))
    response = await twin.resolve(call(twin.client()))
    request = twin.script.last
    assert (request.method, f"{request.path}?{request.query}".rstrip("?"), request.body) == sent
    assert request.headers.get("content-type") == kind
    assert request.headers["authorization"] == f"Bearer {SECRET}"
    assert "idempotency-key" not in request.headers
    assert (response.status, response.json(), response.text) == (201, {"id": 1}, '{"id": 1}')
    assert (response.request_id, response.rate_limit["minute"].remaining) == ("req-1", 5)


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda c: c.get("https://elsewhere.example/v1"), "start with a slash"),
        (lambda c: c.get("@elsewhere.example"), "start with a slash"),
        (lambda c: c.get("/v1/o#a"), "start with a slash"),
        (lambda c: c.get("/v1/o\r\n"), "start with a slash"),
        (lambda c: c.request("GE T", "/v1"), "not a method"),
        (lambda c: c.post("/v1", json={}, content=b""), "Both json and content"),
        (lambda c: c.post("/v1", json={1, 2}), "JSON cannot hold"),
        (lambda c: c.get("/v1", headers={"Authorization": "x"}), "pass api_key"),
        (lambda c: c.get("/v1", headers={"a b": "x"}), "not the name"),
        (lambda c: c.get("/v1", headers={"a": "x\r\ny"}), "the value of a"),
        (lambda c: c.get("/v1", headers=["a"]), "has to be a mapping"),
        (lambda c: c.get("/v1", timeout=0), "timeout=0"),
        (lambda c: c.whoami(max_retries=-1), "max_retries=-1"),
    ],
)
async def test_a_wrong_call_is_refused_before_it_is_sent(twin: Twin, call: Any, match: str) -> None:  # noqa: ANN401 - a method
    with pytest.raises(machpay.MachPayError, match=match):
        await twin.resolve(call(twin.client()))
    assert twin.script.requests == []


async def test_an_unknown_option_is_a_type_error(twin: Twin) -> None:
    with pytest.raises(TypeError, match="tmeout"):
        await twin.resolve(twin.client().keys.retrieve("key_1", tmeout=5))


async def test_an_error_of_any_endpoint_is_an_exception(twin: Twin) -> None:
    twin.script.respond_with(Reply(404, {"code": "not_found"}))
    with pytest.raises(machpay.NotFoundError):
        await twin.resolve(twin.client().get("/v1/nothing"))


@pytest.mark.parametrize(
    "method, idempotency_key, replies, attempts",
    [
        ("GET", None, [BUSY, Reply(500), Reply()], 3),
        ("PUT", None, [BUSY, Reply(504), Reply()], 3),
        ("DELETE", None, [BUSY, Reply(502), Reply()], 3),
        ("POST", "order-17", [BUSY, Reply(500), Reply()], 3),
        ("POST", None, [BUSY], 1),
        ("PATCH", None, [Reply(500)], 1),
        ("POST", None, [Reply(429, {}, {"retry-after": "1"}), Reply()], 2),  # refused, so it had no effect
    ],
)
async def test_a_request_is_retried_when_it_is_safe(
    twin: Twin, method: str, idempotency_key: str | None, replies: list[Reply], attempts: int
) -> None:
    twin.script.respond_with(*replies)
    client = twin.client()
    if replies[-1].status == 200:
        response = await twin.resolve(client.request(method, "/v1/orders", idempotency_key=idempotency_key))
        assert response.attempts == attempts
    else:
        with pytest.raises(machpay.InternalServerError):
            await twin.resolve(client.request(method, "/v1/orders", idempotency_key=idempotency_key))
    assert len(twin.script.requests) == attempts
    assert {request.headers.get("idempotency-key") for request in twin.script.requests} == {idempotency_key}


async def test_a_call_can_have_its_own_retries_timeout_and_headers(twin: Twin) -> None:
    client = twin.client(default_headers={"X-Team": "a", "Accept-Language": "en"})
    twin.script.respond_with(BUSY)
    with pytest.raises(machpay.InternalServerError):
        await twin.resolve(client.keys.retrieve("key_1", max_retries=0, headers={"x-team": "b"}))
    assert len(twin.script.requests) == 1
    assert (twin.script.last.headers["x-team"], twin.script.last.headers["accept-language"]) == ("b", "en")
    twin.script.respond_with(Reply(silent=True))
    with pytest.raises(machpay.APITimeoutError):
        await twin.resolve(client.get("/v1/x", timeout=0.05, max_retries=0))
    twin.script.respond_with(Reply())
    await twin.resolve(client.with_options(default_headers={"X-Team": "c"}).whoami())
    assert (twin.script.last.headers["x-team"], twin.script.last.headers["accept-language"]) == ("c", "en")


async def test_default_headers_do_not_go_to_the_authorization_server(twin: Twin) -> None:
    twin.script.respond_with(Reply(200, {"access_token": "a" * 20}))
    client = twin.client(api_key=None, default_headers={"X-Team": "a"})
    await twin.resolve(client.oauth.refresh_token(refresh_token="r", client_id="a"))
    assert "x-team" not in twin.script.last.headers


def test_a_default_header_may_not_be_a_credential() -> None:
    with pytest.raises(machpay.ConfigurationError, match="pass api_key"):
        machpay.MachPay("k", default_headers={"authorization": "Bearer x"})


async def test_hooks_see_every_attempt_and_no_secret(twin: Twin) -> None:
    events: list[Any] = []
    twin.script.respond_with(BUSY, Reply())
    client = twin.client(on_request=events.append, on_response=events.append)
    await twin.resolve(client.get("/v1/x", params={"secret": "hidden"}))
    url = f"{twin.url}/v1/x"
    sent = [each for each in events if isinstance(each, machpay.RequestEvent)]
    ended = [each for each in events if isinstance(each, machpay.ResponseEvent)]
    assert sent == [machpay.RequestEvent(method="GET", url=url, attempt=number) for number in (1, 2)]
    assert [(each.status, each.request_id, each.error) for each in ended] == [
        (503, "req-1", None),
        (200, "req-1", None),
    ]
    assert SECRET not in repr(events)
    assert "hidden" not in repr(events)


async def stream_of(twin: Twin, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - of either kind
    return await twin.resolve(twin.client().stream(*arguments, **options))


async def close(stream: Any) -> None:  # noqa: ANN401 - of either kind
    await stream.aclose() if hasattr(stream, "aclose") else stream.close()


EVENTS = (
    b': hello\ndata: {"a": 1}\nid: 7\n\nevent: tick\r\ndata: one\r\ndata:two\xe2\x80\xa8\r\nretry: 5\r\n\r\ndata: lost'
)


async def test_a_stream_yields_events_lines_and_bytes(twin: Twin) -> None:
    twin.script.respond_with(Reply(200, EVENTS, {"content-type": "text/event-stream"}))
    stream = await stream_of(twin, "GET", "/v1/events")
    first, second = await twin.collect(stream.iter_events())
    assert (first.event, first.json(), first.id, first.retry) == ("message", {"a": 1}, "7", None)
    assert (second.event, second.data, second.id, second.retry) == ("tick", "one\ntwo\u2028", "7", 5)
    assert (stream.status, stream.request_id, stream.headers["content-type"]) == (200, "req-1", "text/event-stream")
    await close(stream)
    stream = await stream_of(twin, "GET", "/v1/events")
    assert (await twin.collect(stream.iter_lines()))[:3] == [": hello", 'data: {"a": 1}', "id: 7"]
    await close(stream)
    stream = await stream_of(twin, "POST", "/v1/events", json={})
    assert b"".join(await twin.collect(stream.iter_bytes())) == EVENTS
    await close(stream)


async def test_a_stream_is_read_while_it_arrives_and_can_be_left(twin: Twin) -> None:
    twin.script.respond_with(Reply(200, b"", drips=True))
    if twin.kind is machpay.AsyncMachPay:
        async with twin.client().stream("GET", "/v1/events") as stream:
            async for chunk in stream.iter_bytes():
                assert chunk
                break
    else:
        with twin.client().stream("GET", "/v1/events") as stream:
            assert next(iter(stream.iter_bytes()))


async def test_a_stream_is_retried_until_it_starts_and_refused_like_any_call(twin: Twin) -> None:
    twin.script.respond_with(BUSY, Reply(200, b"a\nb"))
    stream = await stream_of(twin, "GET", "/v1/events")
    assert (stream.response.attempts, await twin.collect(stream.iter_lines())) == (2, ["a", "b"])
    twin.script.respond_with(Reply(403, {"code": "insufficient_scope", "required_scopes": ["a"]}))
    with pytest.raises(machpay.PermissionDeniedError, match="Required: a"):
        await stream_of(twin, "GET", "/v1/events")
    twin.script.respond_with(Reply(200, b"a\nb", cut=True))
    stream = await stream_of(twin, "GET", "/v1/events")
    with pytest.raises(machpay.APIConnectionError):
        await twin.collect(stream.iter_lines())


@given(st.lists(st.sampled_from(["data: a", "data", ":x", "id: 1", "", "event: e", "retry: x"]), max_size=9), st.data())
def test_events_do_not_depend_on_how_the_bytes_are_cut(lines: list[str], data: st.DataObject) -> None:
    ends = data.draw(st.lists(st.sampled_from(["\n", "\r\n"]), min_size=len(lines), max_size=len(lines)))
    raw = "".join(line + end for line, end in zip(lines, ends, strict=True)).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=4)))
    chunks = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]

    def parsed(chunks: list[bytes]) -> list[object]:
        splitter, parser = LineSplitter(), EventParser()
        read = [line for chunk in chunks for line in splitter.feed(chunk)] + list(splitter.end())
        return [event for line in read if (event := parser.feed(line)) is not None]

    assert parsed(chunks) == parsed([raw])


@pytest.mark.parametrize("call", [lambda c: c.whoami(), lambda c: c.get("/v1/x"), lambda c: c.stream("GET", "/v1/x")])
async def test_a_call_after_close_says_so(twin: Twin, call: Any) -> None:  # noqa: ANN401 - a method
    own = twin.client()
    kind: Any = httpx2.AsyncClient if twin.kind is machpay.AsyncMachPay else httpx2.Client
    http = kind()
    given_open, given_closed = twin.client(http_client=http), twin.client(http_client=http)
    copied = own.with_options(timeout=5)
    await twin.resolve(copied.aclose() if twin.kind is machpay.AsyncMachPay else copied.close())
    await twin.resolve(own.whoami())
    for client in (own, given_open):
        await twin.resolve(client.aclose() if twin.kind is machpay.AsyncMachPay else client.close())
    assert not http.is_closed
    await twin.resolve(http.aclose() if twin.kind is machpay.AsyncMachPay else http.close())
    for client in (own, copied, given_open, given_closed):
        with pytest.raises(machpay.ClientClosedError, match="closed"):
            await twin.resolve(call(client))


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_client_outlives_asyncio_run(served: tuple[Script, str], script: Script) -> None:
    script.respond_with(Reply(200, {"id": "key_1"}))
    client = machpay.AsyncMachPay(SECRET, base_url=served[1])

    async def twice() -> list[str | None]:
        return [me.id for me in await asyncio.gather(client.whoami(), client.whoami())]

    for _ in range(3):
        assert asyncio.run(twice()) == ["key_1", "key_1"]
    asyncio.run(client.aclose())
    gc.collect()
    with pytest.raises(machpay.ClientClosedError):
        asyncio.run(twice())


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_connections_of_another_event_loop_are_an_error_that_says_why(
    served: tuple[Script, str], script: Script
) -> None:
    script.respond_with(Reply(200, {"id": "key_1"}))
    http = httpx2.AsyncClient()
    client = machpay.AsyncMachPay(SECRET, base_url=served[1], http_client=http)

    async def ask() -> str | None:
        return (await client.whoami()).id

    assert asyncio.run(ask()) == "key_1"
    try:
        assert asyncio.run(ask()) == "key_1"  # httpx2 may notice that the connection is gone
    except machpay.ConfigurationError as error:
        assert "another event loop" in str(error)  # noqa: PT017 - either is right
    gc.collect()
