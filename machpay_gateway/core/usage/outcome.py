"""What became of a request, in the few kinds that people ask about: one table, so that nothing is counted nowhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from machpay_gateway.core.decision.problem import PROBLEMS
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.usage.counters import ALLOWED

_SERVER_ERROR = 500  # and above: RFC 9110 §15.6
_ADMITTED = "The request was admitted, and answered."
_FAILED = "The request was admitted, and what answers it failed."


class OutcomeGroup(StrEnum):
    """A kind of outcome, in the order in which charts stack them."""

    ADMITTED = "admitted"
    RATE_LIMITED = "rate limited"
    CONCURRENCY_LIMITED = "concurrency limited"
    FORBIDDEN = "forbidden"
    UNAUTHORISED = "unauthorised"
    MALFORMED = "malformed"
    ERROR = "error"


GROUPS: Mapping[Reason, OutcomeGroup] = {
    Reason.MISSING_CREDENTIALS: OutcomeGroup.UNAUTHORISED,
    Reason.MALFORMED_REQUEST: OutcomeGroup.MALFORMED,
    Reason.INVALID_CREDENTIALS: OutcomeGroup.UNAUTHORISED,
    Reason.INVALID_PROOF: OutcomeGroup.UNAUTHORISED,
    Reason.INSUFFICIENT_SCOPE: OutcomeGroup.FORBIDDEN,
    Reason.ADDRESS_NOT_ALLOWED: OutcomeGroup.FORBIDDEN,
    Reason.WRONG_ENVIRONMENT: OutcomeGroup.FORBIDDEN,
    Reason.ROUTE_NOT_FOUND: OutcomeGroup.MALFORMED,
    Reason.RATE_LIMITED: OutcomeGroup.RATE_LIMITED,
    Reason.CONCURRENCY_LIMITED: OutcomeGroup.CONCURRENCY_LIMITED,
    Reason.TOO_MANY_FAILURES: OutcomeGroup.UNAUTHORISED,
    Reason.UNAVAILABLE: OutcomeGroup.ERROR,
    Reason.INVALID_MESSAGE: OutcomeGroup.MALFORMED,
    Reason.NOT_IMPLEMENTED: OutcomeGroup.MALFORMED,
    Reason.HEAD_TOO_LARGE: OutcomeGroup.MALFORMED,
    Reason.BODY_TOO_LARGE: OutcomeGroup.MALFORMED,
    Reason.REQUEST_TIMEOUT: OutcomeGroup.MALFORMED,
    Reason.UPSTREAM_UNAVAILABLE: OutcomeGroup.ERROR,
    Reason.UPSTREAM_TIMEOUT: OutcomeGroup.ERROR,
}


_REASONS: Mapping[str, Reason] = {str(reason): reason for reason in Reason}


@dataclass(frozen=True, slots=True)
class Outcome:
    """An outcome as it is counted, with the *reason* of a refusal that is known here."""

    name: str
    status: int
    reason: Reason | None

    @classmethod
    def of(cls, name: str, status: int) -> "Outcome":
        """Return the outcome that is counted by *name* and *status*."""
        return cls(name, status, _REASONS.get(name))

    @property
    def group(self) -> OutcomeGroup:
        """The kind that it is of. A refusal that only another version knows of is an error: it should be looked at."""
        if self.reason is not None:
            return GROUPS[self.reason]
        return OutcomeGroup.ADMITTED if self.name == ALLOWED and self.status < _SERVER_ERROR else OutcomeGroup.ERROR

    @property
    def told(self) -> str:
        """What it means, in a sentence."""
        if self.reason is not None:
            return PROBLEMS[self.reason].detail
        if self.name != ALLOWED:
            return "A refusal that this version does not know."
        return _ADMITTED if self.group is OutcomeGroup.ADMITTED else _FAILED
