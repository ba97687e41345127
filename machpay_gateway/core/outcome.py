"""What became of a request, in the few kinds that people ask about: one table, so that nothing is counted nowhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from machpay_gateway.core.problem import PROBLEMS
from machpay_gateway.core.reason import Reason
from machpay_gateway.core.usage import ALLOWED

_SERVER_ERROR = 500  # and above: RFC 9110 §15.6
_ADMITTED = "The request was admitted, and answered."
_FAILED = "The request was admitted, and what answers it failed."


class Group(StrEnum):
    """A kind of outcome, in the order in which charts stack them."""

    ADMITTED = "admitted"
    RATE_LIMITED = "rate limited"
    CONCURRENCY_LIMITED = "concurrency limited"
    FORBIDDEN = "forbidden"
    UNAUTHORISED = "unauthorised"
    MALFORMED = "malformed"
    ERROR = "error"


GROUPS: Mapping[Reason, Group] = {
    Reason.MISSING_CREDENTIALS: Group.UNAUTHORISED,
    Reason.MALFORMED_REQUEST: Group.MALFORMED,
    Reason.INVALID_CREDENTIALS: Group.UNAUTHORISED,
    Reason.INVALID_PROOF: Group.UNAUTHORISED,
    Reason.INSUFFICIENT_SCOPE: Group.FORBIDDEN,
    Reason.ADDRESS_NOT_ALLOWED: Group.FORBIDDEN,
    Reason.WRONG_ENVIRONMENT: Group.FORBIDDEN,
    Reason.ROUTE_NOT_FOUND: Group.MALFORMED,
    Reason.RATE_LIMITED: Group.RATE_LIMITED,
    Reason.CONCURRENCY_LIMITED: Group.CONCURRENCY_LIMITED,
    Reason.TOO_MANY_FAILURES: Group.UNAUTHORISED,
    Reason.UNAVAILABLE: Group.ERROR,
    Reason.INVALID_MESSAGE: Group.MALFORMED,
    Reason.NOT_IMPLEMENTED: Group.MALFORMED,
    Reason.HEAD_TOO_LARGE: Group.MALFORMED,
    Reason.BODY_TOO_LARGE: Group.MALFORMED,
    Reason.REQUEST_TIMEOUT: Group.MALFORMED,
    Reason.UPSTREAM_UNAVAILABLE: Group.ERROR,
    Reason.UPSTREAM_TIMEOUT: Group.ERROR,
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
    def group(self) -> Group:
        """The kind that it is of. A refusal that only another version knows of is an error: it should be looked at."""
        if self.reason is not None:
            return GROUPS[self.reason]
        return Group.ADMITTED if self.name == ALLOWED and self.status < _SERVER_ERROR else Group.ERROR

    @property
    def told(self) -> str:
        """What it means, in a sentence."""
        if self.reason is not None:
            return PROBLEMS[self.reason].detail
        if self.name != ALLOWED:
            return "A refusal that this version does not know."
        return _ADMITTED if self.group is Group.ADMITTED else _FAILED
