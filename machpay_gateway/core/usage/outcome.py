"""The outcome of a request, the policies that it violated, and its group.

One table assigns every reason of refusal to a group.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from machpay_gateway.core.decision.decision import Denied
from machpay_gateway.core.decision.problem import PROBLEMS
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.limits.admission import Admitted
from machpay_gateway.core.usage.counters import ADMITTED_OUTCOMES, ALLOWED, PREFLIGHT_OUTCOME, SHADOW_LIMITED

_SERVER_ERROR = 500  # and above: RFC 9110 §15.6
_ADMITTED = "The request was admitted, and the application responded."
_SHADOW_LIMITED = "The request was admitted, but is over a limit that is not enforced."
_PREFLIGHT = "The gateway answered a CORS preflight."
_FAILED = "The request was admitted, but the application failed."


class OutcomeGroup(StrEnum):
    """A group of outcomes. Charts stack them in this order."""

    ADMITTED = "admitted"
    RATE_LIMITED = "rate limited"
    CONCURRENCY_LIMITED = "concurrency limited"
    FORBIDDEN = "forbidden"
    UNAUTHORIZED = "unauthorized"
    MALFORMED = "malformed"
    ERROR = "error"


GROUPS: Mapping[Reason, OutcomeGroup] = {
    Reason.MISSING_CREDENTIALS: OutcomeGroup.UNAUTHORIZED,
    Reason.MALFORMED_REQUEST: OutcomeGroup.MALFORMED,
    Reason.CONFLICTING_CREDENTIALS: OutcomeGroup.MALFORMED,
    Reason.INVALID_CREDENTIALS: OutcomeGroup.UNAUTHORIZED,
    Reason.INVALID_PROOF: OutcomeGroup.UNAUTHORIZED,
    Reason.INSUFFICIENT_SCOPE: OutcomeGroup.FORBIDDEN,
    Reason.ADDRESS_NOT_ALLOWED: OutcomeGroup.FORBIDDEN,
    Reason.WRONG_ENVIRONMENT: OutcomeGroup.FORBIDDEN,
    Reason.CLIENT_CERTIFICATE_REQUIRED: OutcomeGroup.FORBIDDEN,
    Reason.FORBIDDEN: OutcomeGroup.FORBIDDEN,
    Reason.ROUTE_NOT_FOUND: OutcomeGroup.MALFORMED,
    Reason.RATE_LIMITED: OutcomeGroup.RATE_LIMITED,
    Reason.CONCURRENCY_LIMITED: OutcomeGroup.CONCURRENCY_LIMITED,
    Reason.TOO_MANY_FAILURES: OutcomeGroup.UNAUTHORIZED,
    Reason.UNAVAILABLE: OutcomeGroup.ERROR,
    Reason.INVALID_MESSAGE: OutcomeGroup.MALFORMED,
    Reason.NOT_IMPLEMENTED: OutcomeGroup.MALFORMED,
    Reason.HEAD_TOO_LARGE: OutcomeGroup.MALFORMED,
    Reason.BODY_TOO_LARGE: OutcomeGroup.MALFORMED,
    Reason.REQUEST_TIMEOUT: OutcomeGroup.MALFORMED,
    Reason.UPSTREAM_UNAVAILABLE: OutcomeGroup.ERROR,
    Reason.UPSTREAM_TIMEOUT: OutcomeGroup.ERROR,
    Reason.UPSTREAM_OVERLOADED: OutcomeGroup.ERROR,
}

_REASONS: Mapping[str, Reason] = {str(reason): reason for reason in Reason}


@dataclass(frozen=True, slots=True)
class Outcome:
    """An outcome as it is counted. *reason* is None for an allowed request, and for a reason of another version."""

    name: str
    status: int
    reason: Reason | None

    @classmethod
    def of(cls, name: str, status: int) -> "Outcome":
        """Return the outcome with that *name* and *status* in a usage row."""
        return cls(name, status, _REASONS.get(name))

    @property
    def group(self) -> OutcomeGroup:
        """Its group. A reason that this version does not have counts as an error, so that somebody looks at it."""
        if self.reason is not None:
            return GROUPS[self.reason]
        is_admitted = self.name in {*ADMITTED_OUTCOMES, PREFLIGHT_OUTCOME} and self.status < _SERVER_ERROR
        return OutcomeGroup.ADMITTED if is_admitted else OutcomeGroup.ERROR

    @property
    def description(self) -> str:
        """What it means, in a sentence."""
        if self.reason is not None:
            return PROBLEMS[self.reason].detail
        if self.name == SHADOW_LIMITED:
            return _SHADOW_LIMITED
        if self.name == PREFLIGHT_OUTCOME:
            return _PREFLIGHT
        if self.name != ALLOWED:
            return "The reason for this refusal is from another version."
        return _ADMITTED if self.group is OutcomeGroup.ADMITTED else _FAILED


class LimitedOutcome(NamedTuple):
    """The outcome of a request that is over the limits of *policies*, whether they refused it or only counted it.

    Only these requests have one: that of all others is its name alone, so that counting by policy costs them nothing.
    """

    name: str
    policies: tuple[str, ...]

    def __str__(self) -> str:
        return str(self.name)


RequestOutcome = str | LimitedOutcome


def policies_of(outcome: RequestOutcome) -> tuple[str, ...]:
    """Return the names of the policies that a request with this *outcome* violated."""
    return outcome.policies if isinstance(outcome, LimitedOutcome) else ()


def outcome_of(admission: Admitted | None, route: Route) -> RequestOutcome:
    """Return the outcome of a request for *route* that was allowed with this *admission*."""
    if admission is None or not admission.is_shadow_limited:
        return ALLOWED
    return LimitedOutcome(SHADOW_LIMITED, admission.plan.violated(admission.levels, route.cost, enforced=False))


def outcome_of_refusal(denied: Denied) -> RequestOutcome:
    """Return the outcome of a *denied* request."""
    return denied.reason if denied.exceeded is None else LimitedOutcome(denied.reason, denied.exceeded.policies)
