"""Spans of requests that the proxy carries, and what the upstream is told of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from unittest.mock import patch

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from opentelemetry.trace import SpanKind, StatusCode

from machpay_gateway.assembly import gateway as assembly
from machpay_gateway.settings import Settings
from machpay_gateway.telemetry.traces import Traces
from tests.proxy.harness import OK, Rig, Upstream, deaf, fields_of, proxied, request, reset
from tests.proxy.test_timings import end_after_a_wait_for_the_limiter
from tests.telemetry.test_traces import PARENT, TOLD, TRACE, Spans, provider
from tests.telemetry.test_traces import told as span_attributes

PARENT_BASED = ParentBased(ALWAYS_OFF)
LINES = [f"{name}: {value}" for name, value in TOLD.items()]


@asynccontextmanager
async def traced(
    upstream: Upstream, spans: Spans, *, sampler: Sampler = ALWAYS_ON, trusted: bool = False, **proxy_options: float
) -> AsyncIterator[Rig]:
    def traces_for(settings: Settings) -> Traces:
        assert settings.traces
        return Traces(provider(spans, sampler=sampler))

    proxies = ["127.0.0.1"] if trusted else []
    with patch.object(assembly, "traces_for", traces_for):
        async with proxied(upstream, traces=True, trusted_proxies=proxies, proxy=proxy_options) as rig:
            yield rig


def hex_id(span: ReadableSpan) -> tuple[str, str]:
    assert span.context is not None
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def parent_told(upstream: Upstream) -> list[list[str]]:
    """Return the parts of each traceparent that the last request came with; of its flags whether it is sampled."""
    values = [value.split("-") for value in fields_of(upstream.heads[-1]).get("traceparent", [])]
    return [[*ids, f"{int(flags, 16) & 1:02x}"] for *ids, flags in values]


async def ended(rig: Rig, sent: bytes) -> None:
    await rig.exchange(sent)
    await rig.until(lambda: rig.ended)


async def test_a_request_has_spans_of_its_decision_and_of_its_upstream() -> None:
    spans = Spans()
    async with Upstream() as upstream, traced(upstream, spans) as rig:
        secret = await rig.secret()
        await ended(rig, request("GET", "/v1/x?secret", "Connection: close", secret=secret))
    sent, decide, whole = spans.all
    assert [span.name for span in (sent, decide, whole)] == ["upstream", "decide", "GET /v1/{rest:path}"]
    assert (sent.kind, whole.kind) == (SpanKind.CLIENT, SpanKind.SERVER)
    assert sent.parent == decide.parent == whole.context
    assert whole.start_time == decide.start_time
    assert decide.end_time == sent.start_time
    assert sent.end_time is not None
    assert whole.end_time is not None
    assert sent.end_time <= whole.end_time
    assert span_attributes(sent) == {"http.request.method": "GET", "http.response.status_code": 200}
    attributes = span_attributes(whole)
    assert attributes["machpay.outcome"] == "allowed"
    assert attributes["url.path"] == "/v1/x"
    assert attributes["http.response.status_code"] == 200
    assert parent_told(upstream) == [["00", *hex_id(sent), "01"]]
    assert all(secret not in span.to_json() for span in spans.all)


async def test_the_wait_for_the_limiter_is_a_span() -> None:
    spans = Spans()
    async with Upstream() as upstream, traced(upstream, spans) as rig:
        secret = await rig.secret()
        await ended(rig, request("GET", "/v1/x", "Connection: close", secret=secret))  # so that the key is known
        spans.clear()
        await end_after_a_wait_for_the_limiter(rig, secret)
    decide, admission = spans.named("decide"), spans.named("admission")
    assert decide.start_time is not None
    assert admission.start_time is not None
    assert decide.start_time < admission.start_time
    assert decide.end_time == admission.end_time


@pytest.mark.parametrize(
    "path, status, outcome", [("/v1/x", 401, "missing_credentials"), ("/z", 404, "route_not_found")]
)
async def test_a_refused_request_has_no_upstream_span(path: str, status: int, outcome: str) -> None:
    spans = Spans()
    async with Upstream() as upstream, traced(upstream, spans) as rig:
        await ended(rig, request("GET", path, "Connection: close"))
    decide, whole = spans.all
    assert decide.name == "decide"
    assert span_attributes(whole)["machpay.outcome"] == outcome
    assert span_attributes(whole)["http.response.status_code"] == status
    assert whole.status.status_code is StatusCode.UNSET


async def test_an_untrusted_trace_context_forces_nothing_and_is_not_forwarded() -> None:
    spans = Spans()
    async with Upstream() as upstream, traced(upstream, spans) as rig:
        await ended(rig, request("GET", "/public/x", "Connection: close", *LINES, "Traceparent: 00-1-2-03"))
        await ended(rig, request("GET", "/public/x", "Connection: close", *LINES))
        assert TRACE not in b"".join(upstream.heads).decode()
        assert "tracestate" not in b"".join(upstream.heads).decode()
    repeated, once = [span for span in spans.all if span.kind is SpanKind.SERVER]
    assert (repeated.parent, once.parent) == (None, None)
    assert not repeated.links
    assert [link.context.span_id for link in once.links] == [int(PARENT, 16)]


@pytest.mark.parametrize("flag", ["00", "01"])
async def test_the_trace_of_a_trusted_peer_continues_with_its_flag(flag: str) -> None:
    spans = Spans()
    async with Upstream() as upstream, traced(upstream, spans, sampler=PARENT_BASED, trusted=True) as rig:
        lines = [f"traceparent: 00-{TRACE}-{PARENT}-{flag}", "tracestate: a=1", "TraceState: b=2"]
        await ended(rig, request("GET", "/public/x", "Connection: close", *lines))
    ((version, trace_id, span_id, sent_flag),) = parent_told(upstream)
    assert (version, trace_id, sent_flag) == ("00", TRACE, flag)
    assert span_id != PARENT
    assert fields_of(upstream.heads[-1])["tracestate"] == ["a=1,b=2"]
    assert bool(spans.all) is (flag == "01")
    assert all(hex_id(span)[0] == TRACE for span in spans.all)


async def test_an_unsampled_trace_is_forwarded_as_unsampled() -> None:
    spans = Spans()
    async with Upstream() as upstream, traced(upstream, spans, sampler=ALWAYS_OFF) as rig:
        await ended(rig, request("GET", "/public/x", "Connection: close", *LINES))
    ((_, trace_id, _, flag),) = parent_told(upstream)
    assert (trace_id != TRACE, flag) == (True, "00")
    assert not spans.all


async def test_without_traces_the_callers_trace_context_passes() -> None:
    async with Upstream() as upstream, proxied(upstream) as rig:
        await ended(rig, request("GET", "/public/x", "Connection: close", *LINES))
    assert [fields_of(upstream.heads[-1])[name] for name in TOLD] == [[value] for value in TOLD.values()]


async def test_an_upstream_that_cannot_be_reached_is_an_error() -> None:
    spans = Spans()
    with deaf() as upstream:
        async with traced(upstream, spans, connect_seconds=0.05) as rig:
            await ended(rig, request("GET", "/public/x", "Connection: close"))
    sent, whole = spans.named("upstream"), spans.named("GET /public/{rest:path}")
    for span in (sent, whole):
        assert span.status.status_code is StatusCode.ERROR
        assert span_attributes(span)["error.type"] == "upstream_unavailable"


async def test_an_error_status_of_the_upstream_is_an_error_of_its_span() -> None:
    spans = Spans()
    answer = OK.replace(b"200 OK", b"500 Oops")
    async with Upstream(answer=answer) as upstream, traced(upstream, spans) as rig:
        await ended(rig, request("GET", "/public/x", "Connection: close"))
    assert [span_attributes(spans.named(name))["error.type"] for name in ("upstream", "GET /public/{rest:path}")] == [
        "500",
        "500",
    ]


async def test_a_disconnect_ends_the_spans_once() -> None:
    spans, has_arrived = Spans(), asyncio.Event()

    async def never(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        has_arrived.set()
        await asyncio.Event().wait()

    async with Upstream(never) as upstream, traced(upstream, spans) as rig:
        async with rig.client() as client:
            await client.send(request("GET", "/public/x"))
            await has_arrived.wait()
            reset(client.writer)
        await rig.until(lambda: rig.ended)
    assert [span.name for span in spans.all] == ["upstream", "decide", "GET /public/{rest:path}"]
    assert span_attributes(spans.named("upstream"))["error.type"] == "client_gone"
    assert span_attributes(spans.all[-1])["http.response.status_code"] == 499


async def test_a_response_that_breaks_off_is_an_error_and_ends_once() -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        writer.close()

    spans = Spans()
    async with Upstream(half) as upstream, traced(upstream, spans) as rig:
        async with rig.client() as client:
            await client.send(request("GET", "/public/x"))
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await client.answer()
        await rig.until(lambda: rig.ended)
    whole = spans.named("GET /public/{rest:path}")
    assert span_attributes(whole)["error.type"] == "answer_broken_off"
    assert span_attributes(whole)["http.response.status_code"] == 200
    assert "error.type" not in span_attributes(spans.named("upstream"))  # which had answered


async def test_a_stream_ends_its_span_with_its_last_piece() -> None:
    go_on = asyncio.Event()

    async def streamed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await go_on.wait()
        writer.write(b"0\r\n\r\n")
        await reader.read()

    spans = Spans()
    async with Upstream(streamed) as upstream, traced(upstream, spans) as rig, rig.client() as client:
        await client.send(request("GET", "/public/x", "Connection: close"))
        await client.head()
        assert not spans.all
        go_on.set()
        await client.rest()
        await rig.until(lambda: rig.ended)
    sent, whole = spans.named("upstream"), spans.named("GET /public/{rest:path}")
    assert len(spans.all) == 3
    assert sent.end_time is not None
    assert whole.end_time is not None
    assert sent.end_time < whole.end_time  # the head of the answer, and its end


async def test_a_websockets_span_ends_with_its_handshake() -> None:
    async def switching(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        await reader.read()

    spans = Spans()
    async with Upstream(switching) as upstream, traced(upstream, spans) as rig:
        async with rig.client() as client:
            await client.send(request("GET", "/public/x", "Connection: Upgrade", "Upgrade: websocket"))
            await client.head()
            await rig.until(lambda: rig.ended)
            assert [span.name for span in spans.all] == ["upstream", "decide", "GET /public/{rest:path}"]
        await rig.until(lambda: not len(rig.proxy))
    assert len(spans.all) == 3
    assert span_attributes(spans.all[-1])["http.response.status_code"] == 101
