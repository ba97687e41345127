"""The key API under schemathesis: no server error, and no answer that the document does not have."""

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


def hold(found: Found) -> None:
    """Fail unless *found* is clean, and is about all that there is."""
    assert not found.failures, "\n\n".join(found.failures[:10])
    assert found.answers.keys() >= LABELS
    assert found.checks.keys() >= RUN
    assert not found.checks.keys() & SWITCHED_OFF.keys()
    for label, answers in found.answers.items():
        assert max(answers) < 500, label
    # Which of them it finds a key for is chance, of which ids are made: only many examples surely meet them all.
    assert {200, 201} <= {status for answers in found.answers.values() for status in answers}


def test_nothing_that_the_document_allows_or_forbids_surprises_the_server() -> None:
    hold(fuzzed(max_examples=5, seed=1))


@pytest.mark.drill
@pytest.mark.timeout(1200)
def test_hundreds_of_examples_an_operation_surprise_it_no_more() -> None:
    found = fuzzed(max_examples=300, seed=int(os.environ.get("MACHPAY_FUZZ_SEED", "7")))
    print(f"{found.examples} requests: {found.answers}")  # noqa: T201 - a drill prints its figures
    assert found.examples > 100 * len(OPERATIONS)
    hold(found)
    for label in LABELS:
        assert {200, 201} & found.answers[label].keys(), f"{label} never did anything: {found.answers[label]}"
