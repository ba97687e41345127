"""What a checkup finds, one subject at a time."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class CheckStatus(StrEnum):
    """How a subject is, from the best to the worst."""

    OK = "ok"
    WARNING = "warning"  # it works, and something about it will surprise
    WRONG = "wrong"  # something does not work


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line of a checkup. *way_out* is what to do about it; None when nothing is, or when *found* says it."""

    subject: str
    status: CheckStatus
    found: str
    way_out: str | None = None


def worst(findings: Iterable[CheckResult]) -> CheckStatus:
    """Return the worst status among *findings*; OK when there are none."""
    order = list(CheckStatus)
    return max((finding.status for finding in findings), key=order.index, default=CheckStatus.OK)
