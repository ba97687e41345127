"""Results of the health checks that `doctor` and `check` print."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class CheckStatus(StrEnum):
    """The severity of a result, in ascending order."""

    OK = "ok"
    WARNING = "warning"  # it works, but not as expected
    WRONG = "wrong"  # something does not work


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check. *way_out* is what to do about it; None when nothing is, or when *message* says it."""

    subject: str
    status: CheckStatus
    message: str
    way_out: str | None = None


def worst(results: Iterable[CheckResult]) -> CheckStatus:
    """Return the worst status among *results*; OK when there are none."""
    order = list(CheckStatus)
    return max((result.status for result in results), key=order.index, default=CheckStatus.OK)
