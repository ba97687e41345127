"""Where the spans of a gateway's own process go: as OpenTelemetry's environment variables say, by its SDK.

An application that is guarded by the middleware has a provider of its own, and nothing of this.
"""

import os
from asyncio import to_thread
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Protocol

from opentelemetry.trace import ProxyTracerProvider, get_tracer_provider, set_tracer_provider

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.text import quote_value

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

_GROUP = "opentelemetry_traces_exporter"
_BY_PROTOCOL = {"http/protobuf": ("otlp_proto_http",), "grpc": ("otlp_proto_grpc",)}
_PACKAGES = {
    "otlp_proto_http": "opentelemetry-exporter-otlp-proto-http",
    "otlp_proto_grpc": "opentelemetry-exporter-otlp-proto-grpc",
}
_ANY_OTLP = ("otlp_proto_http", "otlp_proto_grpc", "otlp")


class SpanExport(Protocol):
    """What sends spans on, until it is shut down."""

    def shutdown(self) -> None:
        """Send what is left, and stop."""


def start_span_export(environ: Mapping[str, str] = os.environ) -> SpanExport | None:
    """Have spans exported as *environ* says; None when somebody has seen to that before, as an agent may.

    Raises ConfigurationError when what that takes is not installed.
    """
    if not isinstance(get_tracer_provider(), ProxyTracerProvider):
        return None
    try:
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415 - no extra of ours brings it
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        raise ConfigurationError(
            "traces: there is nothing to make them by; install opentelemetry-sdk and an exporter, such as "
            "opentelemetry-exporter-otlp-proto-http, or set traces = false"
        ) from exc
    exporters = list(_exporters(environ))
    is_named = environ.get("OTEL_SERVICE_NAME") or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    # What is given here would hold over the environment.
    provider = TracerProvider(resource=Resource.create({} if is_named else {SERVICE_NAME: "machpay-gateway"}))
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter))  # from a thread of its own: no request waits for it
    set_tracer_provider(provider)
    return provider


async def stop_span_export(exporting: SpanExport) -> None:
    """Send what is left, and stop."""
    await to_thread(exporting.shutdown)


def _exporters(environ: Mapping[str, str]) -> "Iterator[SpanExporter]":
    """Yield what `OTEL_TRACES_EXPORTER` names. Raises ConfigurationError for what is not installed."""
    installed = {found.name: found for found in entry_points(group=_GROUP)}
    for name in (environ.get("OTEL_TRACES_EXPORTER") or "otlp").split(","):
        if (wanted := name.strip()) in {"", "none"}:
            continue
        names = _otlp(environ) if wanted == "otlp" else (wanted,)
        entry = next((installed[one] for one in names if one in installed), None)
        if entry is None:
            way_out = f"install {_PACKAGES.get(names[0], 'what exports so')}"
            raise ConfigurationError(
                f"traces: there is no exporter {quote_value(wanted)}; {way_out}, "
                "or set OTEL_TRACES_EXPORTER or traces = false"
            )
        yield entry.load()()


def _otlp(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return which exporters will do for OTLP, by the protocol that is asked for."""
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    return _BY_PROTOCOL.get(protocol or "", _ANY_OTLP)
