"""Spans of the gateway as a process: exported by whatever is installed, and missed at the start if nothing is."""

import json
import os
import subprocess
from pathlib import Path

from tests.serving.processes import PROGRAM, served
from tests.serving.test_lifecycle import ask, status, until

EXPORTER = """
import os
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

class ToFile(SpanExporter):
    def export(self, spans):
        with open(os.environ["SPANS"], "a") as file:
            for span in spans:
                file.write(span.to_json(indent=None) + "\\n")
        return SpanExportResult.SUCCESS
"""


def installed(folder: Path) -> dict[str, str]:
    """Install an exporter as a package would be, and return the environment that has it."""
    (folder / "to_file.py").write_text(EXPORTER)
    package = folder / "to_file-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: to_file\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[opentelemetry_traces_exporter]\notlp_proto_http = to_file:ToFile\n")
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    return {"PYTHONPATH": path, "SPANS": str(folder / "spans"), "MACHPAY_TRACES": "true"}


def test_spans_are_exported_as_the_environment_says_and_none_is_lost_at_a_stop(tmp_path: Path) -> None:
    folder = tmp_path / "installed"
    folder.mkdir()
    work = tmp_path / "work"
    work.mkdir()
    environ = installed(folder) | {"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=tests"}
    with served(work, environ=environ) as gateway:
        secret = gateway.secret()
        assert status(ask(gateway, "/v1/x", f"Authorization: Bearer {secret}")) == 200
        assert status(ask(gateway, "/v1/whoami", f"Authorization: Bearer {secret}")) == 200
        until(lambda: (work / "access.log").exists() and len((work / "access.log").read_text().splitlines()) == 2)
        lines = [json.loads(line) for line in (work / "access.log").read_text().splitlines()]
    spans = [json.loads(line) for line in (folder / "spans").read_text().splitlines()]
    forwarded, own = (
        [span for span in spans if span["context"]["trace_id"] == f"0x{line['trace_id']}"] for line in lines
    )
    assert [span["name"] for span in forwarded] == ["upstream", "decide", "GET /v1/{rest:path}"]
    # The control plane stands behind the proxy, and goes on with its trace.
    assert [(span["name"], span["kind"]) for span in own] == [
        ("decide", "SpanKind.INTERNAL"),
        ("GET /v1/whoami", "SpanKind.SERVER"),
        ("upstream", "SpanKind.CLIENT"),
        ("GET", "SpanKind.SERVER"),
    ]
    assert spans[0]["resource"]["attributes"]["service.name"] == "machpay-gateway"
    assert spans[0]["resource"]["attributes"]["deployment.environment.name"] == "tests"
    assert secret not in (folder / "spans").read_text()


def test_what_is_not_installed_is_named_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "machpay.toml").write_text(
        'database = "memory://"\ntraces = true\n[upstreams]\nlive = "http://127.0.0.1:1"\n'
    )
    ended = subprocess.run(
        [PROGRAM, "serve", "--listen", "127.0.0.1:0", "--management", ""],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 1
    assert 'there is no exporter "otlp"; install opentelemetry-exporter-otlp-proto-http' in ended.stderr
    assert "Traceback" not in ended.stderr
