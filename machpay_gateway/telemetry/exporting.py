"""Export of spans from the gateway's own processes, by OpenTelemetry's SDK and its environment variables.

An application with the middleware configures its own provider and does not use this module.
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
    """A span exporter in operation."""

    def shutdown(self) -> None:
        """Export the remaining spans, and stop."""


def start_span_export(environ: Mapping[str, str] = os.environ) -> SpanExport | None:
    """Start to export spans as *environ* configures; None when a provider is set already, for example by an agent.

    Raises ConfigurationError for packages that are not installed.
    """
    if not isinstance(get_tracer_provider(), ProxyTracerProvider):
        return None
    try:
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415 - no extra of ours brings it
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        raise ConfigurationError(
            "traces: the OpenTelemetry SDK is not installed; install opentelemetry-sdk and an exporter, such as "
            "opentelemetry-exporter-otlp-proto-http, or set traces = false"
        ) from exc
    exporters = list(_exporters(environ))
    is_named = environ.get("OTEL_SERVICE_NAME") or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    # An attribute set here would take precedence over the environment.
    provider = TracerProvider(resource=Resource.create({} if is_named else {SERVICE_NAME: "machpay-gateway"}))
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter))  # exports in its own thread: no request waits for it
    set_tracer_provider(provider)
    return provider


async def stop_span_export(exporting: SpanExport) -> None:
    """Export the remaining spans, and stop."""
    await to_thread(exporting.shutdown)


def _exporters(environ: Mapping[str, str]) -> "Iterator[SpanExporter]":
    """Yield the exporters in `OTEL_TRACES_EXPORTER`. Raises ConfigurationError for one that is not installed."""
    installed = {entry.name: entry for entry in entry_points(group=_GROUP)}
    for name in (environ.get("OTEL_TRACES_EXPORTER") or "otlp").split(","):
        if (exporter := name.strip()) in {"", "none"}:
            continue
        names = _otlp_names(environ) if exporter == "otlp" else (exporter,)
        entry = next((installed[name] for name in names if name in installed), None)
        if entry is None:
            way_out = f"install {_PACKAGES.get(names[0], 'its package')}"
            raise ConfigurationError(
                f"traces: there is no exporter {quote_value(exporter)}; {way_out}, "
                "or set OTEL_TRACES_EXPORTER or traces = false"
            )
        yield entry.load()()


def _otlp_names(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the entry points that export OTLP in the configured protocol."""
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    return _BY_PROTOCOL.get(protocol or "", _ANY_OTLP)
