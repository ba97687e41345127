"""Which exporter is taken, by the environment."""

import pytest
from opentelemetry.sdk.trace.export import ConsoleSpanExporter

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.telemetry.exporting import _exporters


@pytest.mark.parametrize(
    "value, made",
    [("none", []), ("", None), ("console", [ConsoleSpanExporter]), ("none, console", [ConsoleSpanExporter])],
)
def test_an_exporter_is_taken_by_its_name(value: str, made: list[type] | None) -> None:
    if made is None:  # as when it is not set: otlp, which is not installed here
        with pytest.raises(ConfigurationError):
            list(_exporters({"OTEL_TRACES_EXPORTER": value}))
    else:
        assert [type(exporter) for exporter in _exporters({"OTEL_TRACES_EXPORTER": value})] == made


@pytest.mark.parametrize(
    "environ, way_out",
    [
        ({}, "install opentelemetry-exporter-otlp-proto-http"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "install opentelemetry-exporter-otlp-proto-grpc"),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
            "install opentelemetry-exporter-otlp-proto-http",
        ),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, 'there is no exporter "zipkin"'),
    ],
)
def test_one_that_is_not_installed_is_named_with_the_way_out(environ: dict[str, str], way_out: str) -> None:
    with pytest.raises(ConfigurationError, match=way_out):
        list(_exporters(environ))
