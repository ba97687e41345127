"""Schemathesis finds no server error, and no response that the OpenAPI document lacks."""

import os

import pytest

from machpay_gateway.admin.operations import OPERATIONS
from tests.admin.fuzzing import SWITCHED_OFF, Found, fuzzed

LABELS = {f"{operation.method} {operation.path}" for operation in OPERATIONS}
RUN = {
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "negative_data_rejection", "missing_required_header", "unsupported_method",
    "allow_header_conformance", "use_after_free", "ensure_resource_availability", "ignored_auth",
}  # fmt: skip


def hold(results: Found) -> None:
    """Fail unless *results* has no failures and covers all operations."""
    assert not results.failures, "\n\n".join(results.failures[:10])
    assert results.responses.keys() >= LABELS
    assert results.checks.keys() >= RUN
    assert not results.checks.keys() & SWITCHED_OFF.keys()
    for label, responses in results.responses.items():
        assert max(responses) < 500, label
    # Which of them it finds a key for is chance, of which ids are made: only many examples surely meet them all.
    assert {200, 201} <= {status for responses in results.responses.values() for status in responses}


def test_generated_requests_valid_and_invalid_get_documented_responses() -> None:
    hold(fuzzed(max_examples=5, seed=1))


@pytest.mark.drill
@pytest.mark.timeout(1200)
def test_hundreds_of_generated_requests_per_operation_get_documented_responses() -> None:
    results = fuzzed(max_examples=300, seed=int(os.environ.get("MACHPAY_FUZZ_SEED", "7")))
    print(f"{results.examples} requests: {results.responses}")  # noqa: T201 - a drill prints its figures
    assert results.examples > 100 * len(OPERATIONS)
    hold(results)
    for label in LABELS:
        assert {200, 201} & results.responses[label].keys(), f"{label} never did anything: {results.responses[label]}"
