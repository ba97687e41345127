"""How counts are told, whatever is asked for."""

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parsed_text

from machpay_gateway.telemetry.exposition import exposition
from machpay_gateway.telemetry.metrics import METRICS, Counts, batch_size_histogram

AWKWARD = 'GET /v1/{a}/"b"\\\nc/ü'
COUNTS: Counts = {
    ("machpay_requests_total", ("allowed", AWKWARD, "standard", "2xx")): [3.0],
    ("machpay_admission_batch_size", ()): batch_size_histogram({1: 2, 3: 1, 1000: 1}),
    ("machpay_connections", ()): [7.0],
}


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_the_exposition_has_every_count(accept: str) -> None:
    text = exposition(COUNTS, accept)[0].decode()
    families = (parsed_openmetrics if accept else parsed_text)(text)
    samples = {(it.name, *sorted(it.labels.values())): it.value for family in families for it in family.samples}
    assert samples["machpay_requests_total", *sorted(["allowed", AWKWARD, "standard", "2xx"])] == 3
    assert samples["machpay_connections",] == 7
    buckets = {key[1]: value for key, value in samples.items() if key[0] == "machpay_admission_batch_size_bucket"}
    assert [buckets[bound] for bound in ("1.0", "2.0", "4.0", "256.0", "+Inf")] == [2, 2, 3, 3, 4]
    assert (samples["machpay_admission_batch_size_count",], samples["machpay_admission_batch_size_sum",]) == (4, 1005)
    assert sum(line.startswith("# TYPE ") for line in text.splitlines()) == len(METRICS)


@pytest.mark.parametrize(
    "accept, kind",
    [
        ("*/*", "text/plain"),
        ("text/html, text/plain;version=0.0.4", "text/plain"),
        ("text/plain; version=x", "text/plain"),
        ("application/openmetrics-text", "application/openmetrics-text"),
        ("application/openmetrics-text; version=abc", "application/openmetrics-text"),
        ("application/openmetrics-text; version=1;q=0.5,*/*", "application/openmetrics-text"),
        ("application/openmetrics-text; escaping=other; version=1.0.0", "application/openmetrics-text"),
        ("\x00,;=;version=", "text/plain"),
    ],
)
def test_every_accept_header_gets_a_response(accept: str, kind: str) -> None:
    text, media_type = exposition(COUNTS, accept)
    assert media_type.startswith(f"{kind}; version=")
    assert text.endswith(b"# EOF\n") == (kind != "text/plain")
