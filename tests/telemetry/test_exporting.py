"""Which span exporters are used, by OpenTelemetry's environment variables and the installed packages."""

from collections.abc import Callable
from importlib.metadata import EntryPoint

import pytest

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.telemetry.exporting import _exporters

HTTP, GRPC, ANY_OTLP = "otlp_proto_http", "otlp_proto_grpc", "otlp"
PROTOCOL, TRACES_PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
ExportersFor = Callable[..., list[str]]


@pytest.fixture
def exporters_for(monkeypatch: pytest.MonkeyPatch) -> ExportersFor:
    """Return a function that names the exporters for an environment, with only the given ones *installed*."""

    def exporters(environ: dict[str, str], *installed: str) -> list[str]:
        def entry_points(*, group: str) -> list[EntryPoint]:
            assert group == "opentelemetry_traces_exporter"
            return [NamedEntryPoint(name, "none:", group) for name in installed]

        monkeypatch.setattr("machpay_gateway.telemetry.exporting.entry_points", entry_points)
        return [str(exporter) for exporter in _exporters(environ)]

    return exporters


class NamedEntryPoint(EntryPoint):
    """An entry point that loads a constructor of its own name."""

    def load(self) -> Callable[[], str]:
        return lambda: self.name


@pytest.mark.parametrize(
    "environ, installed, expected",
    [
        ({}, (HTTP,), [HTTP]),
        ({}, (GRPC,), [GRPC]),  # without a protocol, any that is installed
        ({}, (GRPC, HTTP), [HTTP]),
        ({}, (ANY_OTLP,), [ANY_OTLP]),
        ({"OTEL_TRACES_EXPORTER": ""}, (HTTP, "console"), [HTTP]),  # as when it is not set
        ({"OTEL_TRACES_EXPORTER": "otlp"}, (HTTP, "console"), [HTTP]),
        ({PROTOCOL: "grpc"}, (HTTP, GRPC), [GRPC]),
        ({PROTOCOL: "http/protobuf"}, (HTTP, GRPC), [HTTP]),
        ({PROTOCOL: "grpc", TRACES_PROTOCOL: "http/protobuf"}, (HTTP, GRPC), [HTTP]),
        ({"OTEL_TRACES_EXPORTER": "none"}, (HTTP,), []),
        ({"OTEL_TRACES_EXPORTER": "console"}, (HTTP, "console"), ["console"]),
        ({"OTEL_TRACES_EXPORTER": "none, console"}, (HTTP, "console"), ["console"]),
        ({"OTEL_TRACES_EXPORTER": "console,otlp"}, (HTTP, "console"), ["console", HTTP]),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, ("zipkin",), ["zipkin"]),
    ],
)
def test_exporters_are_selected_by_name_and_protocol(
    environ: dict[str, str], installed: tuple[str, ...], expected: list[str], exporters_for: ExportersFor
) -> None:
    assert exporters_for(environ, *installed) == expected


@pytest.mark.parametrize(
    "environ, installed, way_out",
    [
        ({}, ("console",), "install opentelemetry-exporter-otlp-proto-http"),
        ({PROTOCOL: "grpc"}, (HTTP,), "install opentelemetry-exporter-otlp-proto-grpc"),
        (
            {PROTOCOL: "grpc", TRACES_PROTOCOL: "http/protobuf"},
            (GRPC,),
            "install opentelemetry-exporter-otlp-proto-http",
        ),
        ({"OTEL_TRACES_EXPORTER": ""}, (), "install opentelemetry-exporter-otlp-proto-http"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, (HTTP, GRPC), 'there is no exporter "zipkin"'),
    ],
)
def test_an_exporter_that_is_not_installed_is_named_with_its_package(
    environ: dict[str, str], installed: tuple[str, ...], way_out: str, exporters_for: ExportersFor
) -> None:
    with pytest.raises(ConfigurationError, match=way_out):
        exporters_for(environ, *installed)
