"""Every outcome is of one group, and is told in words."""

import pytest

from machpay_gateway.core.decision.problem import PROBLEMS
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.usage.counters import ALLOWED
from machpay_gateway.core.usage.outcome import GROUPS, Outcome, OutcomeGroup


def test_every_reason_has_a_group_and_every_group_something_in_it() -> None:
    assert set(GROUPS) == set(Reason)
    assert {*GROUPS.values(), OutcomeGroup.ADMITTED} == set(OutcomeGroup)
    assert OutcomeGroup.ADMITTED not in GROUPS.values()


@pytest.mark.parametrize("reason", Reason)
def test_a_refusal_is_of_its_reasons_group_whatever_its_status(reason: Reason) -> None:
    for status in (0, 200, PROBLEMS[reason].status, 503):
        outcome = Outcome.of(str(reason), status)
        assert (outcome.group, outcome.description) == (GROUPS[reason], PROBLEMS[reason].detail)


@pytest.mark.parametrize(
    "name, status, group",
    [
        (ALLOWED, 0, OutcomeGroup.ADMITTED),  # an application that gave no status
        (ALLOWED, 101, OutcomeGroup.ADMITTED),
        (ALLOWED, 200, OutcomeGroup.ADMITTED),
        (ALLOWED, 404, OutcomeGroup.ADMITTED),  # an application's own refusal is an answer
        (ALLOWED, 499, OutcomeGroup.ADMITTED),
        (ALLOWED, 500, OutcomeGroup.ERROR),
        (ALLOWED, 599, OutcomeGroup.ERROR),
        ("of_another_version", 403, OutcomeGroup.ERROR),
        ("", 0, OutcomeGroup.ERROR),
    ],
)
def test_what_is_no_refusal_that_is_known_goes_by_its_status(name: str, status: int, group: OutcomeGroup) -> None:
    outcome = Outcome.of(name, status)
    assert outcome.group is group
    assert outcome.description.endswith(".")
