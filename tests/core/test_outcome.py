"""Every outcome is of one group, and is told in words."""

import pytest

from machpay_gateway.core.outcome import GROUPS, Group, Outcome
from machpay_gateway.core.problem import PROBLEMS
from machpay_gateway.core.reason import Reason
from machpay_gateway.core.usage import ALLOWED


def test_every_reason_has_a_group_and_every_group_something_in_it() -> None:
    assert set(GROUPS) == set(Reason)
    assert {*GROUPS.values(), Group.ADMITTED} == set(Group)
    assert Group.ADMITTED not in GROUPS.values()


@pytest.mark.parametrize("reason", Reason)
def test_a_refusal_is_of_its_reasons_group_whatever_its_status(reason: Reason) -> None:
    for status in (0, 200, PROBLEMS[reason].status, 503):
        outcome = Outcome.of(str(reason), status)
        assert (outcome.group, outcome.told) == (GROUPS[reason], PROBLEMS[reason].detail)


@pytest.mark.parametrize(
    "name, status, group",
    [
        (ALLOWED, 0, Group.ADMITTED),  # an application that gave no status
        (ALLOWED, 101, Group.ADMITTED),
        (ALLOWED, 200, Group.ADMITTED),
        (ALLOWED, 404, Group.ADMITTED),  # an application's own refusal is an answer
        (ALLOWED, 499, Group.ADMITTED),
        (ALLOWED, 500, Group.ERROR),
        (ALLOWED, 599, Group.ERROR),
        ("of_another_version", 403, Group.ERROR),
        ("", 0, Group.ERROR),
    ],
)
def test_what_is_no_refusal_that_is_known_goes_by_its_status(name: str, status: int, group: Group) -> None:
    outcome = Outcome.of(name, status)
    assert outcome.group is group
    assert outcome.told.endswith(".")
