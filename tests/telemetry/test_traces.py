"""Spans of requests in front of an application: one for each, ended once, with what it did in them."""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import patch

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from starlette.types import Message, Receive, Scope, Send

from machpay_gateway import Gateway, Tier
from machpay_gateway.assembly import gateway as assembly
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.limits.rate import TIERS
from machpay_gateway.settings import load_settings
from machpay_gateway.telemetry.traces import Traces
from tests.applications import ok
from tests.gateways import Guarded, guarded

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TOLD = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}


class Spans(InMemorySpanExporter):
    """All spans that were exported."""

    @property
    def all(self) -> Sequence[ReadableSpan]:
        return self.get_finished_spans()

    def named(self, name: str) -> ReadableSpan:
        (span,) = [span for span in self.all if span.name == name]
        return span


def provider(exporter: SpanExporter, **options: Any) -> TracerProvider:  # noqa: ANN401 - as the SDK has them
    made = TracerProvider(**options)
    made.add_span_processor(SimpleSpanProcessor(exporter))
    return made


@asynccontextmanager
async def traced(
    app: Any,  # noqa: ANN401
    exporter: SpanExporter,
    trusted_proxies: Sequence[str] = (),
    tiers: Mapping[str, Tier] = TIERS,
    **options: Any,  # noqa: ANN401
) -> AsyncIterator[Guarded]:
    with patch.object(assembly, "traces_for", lambda _: Traces(provider(exporter, **options))):
        async with guarded(app, trusted_proxies=trusted_proxies, tiers=tiers) as api:
            yield api


def told(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


async def test_a_request_has_a_span_with_its_decision_in_it() -> None:
    spans = Spans()
    async with traced(ok, spans) as api:
        key_id, secret = await api.key()
        assert (await api.client(secret).get("/v1/skills")).status_code == 200
    decide, request = spans.all
    assert (decide.name, request.name, request.kind) == ("decide", "GET /v1/skills", SpanKind.SERVER)
    assert request.parent is None
    assert decide.parent == request.context
    assert request.start_time == decide.start_time
    assert request.start_time < decide.end_time < request.end_time  # type: ignore[operator]  # of spans that ended
    attributes = told(request)
    assert len(str(attributes.pop("machpay.request_id"))) > 20
    assert attributes == {
        "http.request.method": "GET",
        "http.route": "/v1/skills",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "url.path": "/v1/skills",
        "client.address": "192.0.2.1",
        "machpay.outcome": "allowed",
        "machpay.tier": "standard",
        "machpay.environment": "live",
        "machpay.key_id": key_id,
    }
    assert request.status.status_code is StatusCode.UNSET


async def test_a_refused_request_has_a_span_too_and_no_secret_is_in_one() -> None:
    spans = Spans()
    async with traced(ok, spans) as api:
        _, secret = await api.key()
        assert (await api.client().get(f"/v1/{secret}")).status_code == 401
    attributes = told(spans.all[-1])
    assert attributes["machpay.outcome"] == "missing_credentials"
    assert attributes["http.response.status_code"] == 401
    assert attributes["url.path"] == "/v1/sk_live_…"
    assert all(secret not in span.to_json() for span in spans.all)
    assert spans.all[-1].status.status_code is StatusCode.UNSET  # a client's mistake is none of a server's


async def test_spans_name_the_policies_that_a_request_violated() -> None:
    spans = Spans()
    tiers = {"tiny": Tier("1/minute", 5, account={"rate": "1/minute"}), "trial": Tier("1/minute", 5, enforce=False)}
    async with traced(ok, spans, tiers=tiers) as api:
        for tier in tiers:
            _, secret = await api.key(tier=tier)
            statuses = [(await api.client(secret).get("/v1/skills")).status_code for _ in range(2)]
            assert statuses == ([200, 429] if tier == "tiny" else [200, 200])
    attributes = [told(span) for span in spans.all if span.name == "GET /v1/skills"]
    assert [it["machpay.outcome"] for it in attributes] == ["allowed", "rate_limited", "allowed", "shadow_limited"]
    violated = [it.get("machpay.violated_policies") for it in attributes]
    assert violated == [None, ("minute", "account-minute"), None, ("minute",)]
    assert all("error.type" not in it for it in attributes)


async def test_spans_of_the_application_are_children() -> None:
    spans = Spans()
    async with traced(ok, spans) as api:
        tracer = provider(spans).get_tracer("application")

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            with tracer.start_as_current_span("work"):
                await asyncio.sleep(0)
            await ok(scope, receive, send)

        api.app.app = app
        _, secret = await api.key()
        await asyncio.gather(*(api.client(secret).get("/v1/skills") for _ in range(3)))
    works = [span for span in spans.all if span.name == "work"]
    requests = {span.context.span_id: span for span in spans.all if span.kind is SpanKind.SERVER if span.context}
    assert len(works) == len(requests) == 3
    assert {work.parent.span_id for work in works if work.parent} == requests.keys()
    assert not trace.get_current_span().get_span_context().is_valid


async def test_a_failing_application_is_an_error_and_ends_its_span_once() -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise RuntimeError("it fails")

    spans = Spans()
    async with traced(app, spans) as api:
        _, secret = await api.key()
        with pytest.raises(RuntimeError):
            await api.client(secret).get("/v1/skills")
    request = spans.named("GET /v1/skills")
    assert request.status.status_code is StatusCode.ERROR
    assert told(request)["error.type"] == "500"


@pytest.mark.parametrize("is_trusted", [True, False])
async def test_the_trace_of_an_untrusted_caller_is_only_linked(is_trusted: bool) -> None:  # noqa: FBT001 - a column
    spans = Spans()
    async with traced(ok, spans, ["192.0.2.0/24"] if is_trusted else []) as api:
        _, secret = await api.key()
        await api.client(secret).get("/v1/skills", headers=TOLD)
    request = spans.named("GET /v1/skills")
    assert request.context is not None
    if is_trusted:
        assert request.parent is not None
        assert f"{request.parent.trace_id:032x}-{request.parent.span_id:016x}" == f"{TRACE}-{PARENT}"
        assert request.context.trace_state.to_header() == "vendor=1"
        assert not request.links
    else:
        assert request.parent is None
        assert request.context.trace_id != int(TRACE, 16)
        assert [link.context.trace_id for link in request.links] == [int(TRACE, 16)]


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", "00-" + "0" * 32 + "-" + PARENT + "-01")],
        [("traceparent", "ff-" + TRACE + "-" + PARENT + "-01")],
        [("traceparent", "\xff")],
        [("traceparent", "")],
        [("traceparent", "9" * 4000)],
        [("tracestate", "vendor=1")],
        [("traceparent", TOLD["traceparent"])] * 2,
        [("traceparent", TOLD["traceparent"]), ("traceparent", f"00-{TRACE[::-1]}-{PARENT}-01")],
    ],
)
async def test_an_invalid_trace_context_starts_a_new_trace(headers: list[tuple[str, str]]) -> None:
    spans = Spans()
    async with traced(ok, spans, ["192.0.2.0/24"]) as api:
        _, secret = await api.key()
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        assert (await api.client(secret).get("/v1/skills", headers=raw)).status_code == 200
    request = spans.named("GET /v1/skills")
    assert (request.parent, list(request.links)) == (None, [])


async def test_within_another_span_it_is_an_internal_span() -> None:
    spans = Spans()
    async with traced(ok, spans) as api:
        _, secret = await api.key()
        with provider(spans).get_tracer("server").start_as_current_span("around") as around:
            await api.client(secret).get("/v1/skills", headers=TOLD)
    request = spans.named("GET /v1/skills")
    assert request.kind is SpanKind.INTERNAL
    assert request.parent == around.get_span_context()


async def test_span_names_are_bounded() -> None:
    spans = Spans()
    async with traced(ok, spans) as api:
        for method, path in (
            ("PURGE", "/v1/anything"),
            ("PURGE", "/v1/skills"),
            ("GET", "/v1/anything"),
            ("GET", "/a%2fb"),
        ):
            assert (await api.client().request(method, path)).status_code in {400, 401}
    names = [span.name for span in spans.all if span.name != "decide"]
    assert names == ["HTTP /{rest:path}", "HTTP /v1/skills", "GET /{rest:path}", "GET"]
    assert {told(span)["http.request.method"] for span in spans.all if span.name != "decide"} == {"GET", "_OTHER"}
    assert all("PURGE" not in span.to_json() for span in spans.all)


async def test_an_accepted_handshake_is_a_whole_request_and_later_spans_are_its_children() -> None:
    spans = Spans()
    ended_at_accept: list[str] = []

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        ended_at_accept.extend(span.name for span in spans.all)
        with provider(spans).get_tracer("application").start_as_current_span("message"):
            await send({"type": "websocket.close", "code": 1000})

    sent = []

    async def send(message: Message) -> None:
        sent.append(message["type"])

    async with traced(app, spans) as api:
        _, secret = await api.key()
        scope = {
            "type": "websocket",
            "path": "/v1/skills",
            "headers": [(b"authorization", f"Bearer {secret}".encode())],
            "client": ("192.0.2.1", 1),
            "scheme": "ws",
        }
        await api.app(scope, None, send)  # type: ignore[arg-type]  # nothing is received
    assert sent == ["websocket.accept", "websocket.close"]
    assert ended_at_accept == ["decide", "GET /v1/skills"]
    request = spans.named("GET /v1/skills")
    assert told(request)["http.response.status_code"] == 101
    assert spans.named("message").parent == request.context


async def test_an_unsampled_request_has_no_child_spans() -> None:
    spans = Spans()
    async with traced(ok, spans, sampler=ALWAYS_OFF) as api:
        _, secret = await api.key()
        assert (await api.client(secret).get("/v1/skills")).status_code == 200
        assert (await api.client().get("/v1/skills")).status_code == 401
    assert not spans.all


async def test_an_exporter_that_fails_fails_no_request(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            raise ConnectionError(f"{len(spans)} spans go nowhere")

    async with traced(ok, Failing()) as api:
        _, secret = await api.key()
        assert (await api.client(secret).get("/v1/skills")).status_code == 200
    assert "Exception while exporting" in caplog.text


async def test_without_a_provider_there_is_nothing_and_no_request_fails() -> None:
    async with guarded(ok, traces=True) as api:
        assert isinstance(api.gateway.traces, Traces)
        _, secret = await api.key()
        assert (await api.client(secret).get("/v1/skills", headers=TOLD)).status_code == 200


def test_without_the_package_the_start_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "machpay_gateway.telemetry.traces")
    for module in [name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError, match=r"pip install 'machpay-gateway\[otel\]'"):
        Gateway(database="memory://", traces=True)


def test_traces_are_off_by_default() -> None:
    assert load_settings(environ={}).traces is False
    assert load_settings(environ={"MACHPAY_TRACES": "true"}).traces is True
    assert Gateway(database="memory://").traces is None
