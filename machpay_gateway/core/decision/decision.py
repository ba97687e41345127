"""May they? The two pure steps around the quota: `admit` before it is asked, `conclude` after."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from machpay_gateway.core.decision.principal import Anonymous, Principal
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.limits.admission import CONCURRENCY, AdmissionRequest, Admitted, Exceeded, LimiterUnavailable
from machpay_gateway.core.scopes import missing_scopes

_RETRY_SECONDS = 1.0  # what an unavailable part is given before it is worth asking again
_new = tuple.__new__  # half the cost of a NamedTuple's own constructor, on every request


class Allowed(NamedTuple):
    """The request may go on as *principal*. A public route has no *grant*. A tuple, because one is made per request."""

    principal: Principal | Anonymous
    grant: Admitted | None
    route: Route


@dataclass(frozen=True, slots=True)
class Denied:
    """The request may not go on. *detail* is for the log alone: callers are never told more than the reason."""

    reason: Reason
    detail: str = ""
    route: Route | None = None
    principal: Principal | None = None
    exceeded: Exceeded | None = None
    missing: tuple[str, ...] = ()
    retry_after: float | None = None


Decision = Allowed | Denied


class Refusal(NamedTuple):
    """What one check found."""

    reason: Reason
    detail: str
    missing: tuple[str, ...] = ()


Check = Callable[[RequestFacts, Route, Principal, float], Refusal | None]


def not_revoked(_facts: RequestFacts, _route: Route, principal: Principal, _now: float) -> Refusal | None:
    """Refuse a revoked credential."""
    return Refusal(Reason.INVALID_CREDENTIALS, "revoked") if principal.revoked else None


def not_expired(_facts: RequestFacts, _route: Route, principal: Principal, now: float) -> Refusal | None:
    """Refuse a credential whose time is over."""
    if principal.expires_at is None or now < principal.expires_at:
        return None
    return Refusal(Reason.INVALID_CREDENTIALS, "expired")


def right_environment(_facts: RequestFacts, route: Route, principal: Principal, _now: float) -> Refusal | None:
    """Refuse a credential of an environment that is not served here."""
    if principal.environment in route.environments:
        return None
    return Refusal(Reason.WRONG_ENVIRONMENT, f"{principal.environment} is not served here")


def from_allowed_address(facts: RequestFacts, _route: Route, principal: Principal, _now: float) -> Refusal | None:
    """Refuse an address outside of the credential's list; where there is a list, an unreadable address is outside."""
    if principal.allowlist is None:
        return None
    if facts.address is not None and facts.address in principal.allowlist:
        return None
    return Refusal(Reason.ADDRESS_NOT_ALLOWED, "address is not on the key's list")


def holds_scopes(_facts: RequestFacts, route: Route, principal: Principal, _now: float) -> Refusal | None:
    """Refuse a credential that lacks what the route requires."""
    if not route.requires.alternatives or not (missing := missing_scopes(route.requires, principal.scopes)):
        return None
    return Refusal(Reason.INSUFFICIENT_SCOPE, f"needs {route.requires}", missing)


CHECKS: tuple[Check, ...] = (not_revoked, not_expired, right_environment, from_allowed_address, holds_scopes)


def admit(facts: RequestFacts, route: Route, principal: Principal, now: float) -> Denied | None:
    """Return the first reason to refuse *principal*, or None when it may proceed to its quota.

    *now* is in seconds since the epoch. The order is policy: cheap and final reasons first. None of it spends quota.
    """
    for check in CHECKS:
        if refusal := check(facts, route, principal, now):
            return Denied(refusal.reason, refusal.detail, route, principal, missing=refusal.missing)
    return None


def demand_of(facts: RequestFacts, route: Route, principal: Principal, now: float) -> AdmissionRequest | Denied:
    """Return what an admitted request asks of the quota, or what `admit` found against it.

    What `admit` looks at can change only with the record, which is a new Principal then, with time and with the
    address. So what was found in order for a route and an address is asked again of time alone.
    """
    if (remembered := principal.demands.get(route.match)) is not None:
        demand, address = remembered
        if address == facts.address and (principal.expires_at is None or now < principal.expires_at):
            return demand
    if denied := admit(facts, route, principal, now):
        return denied
    demand = AdmissionRequest(principal.subject, principal.version, principal.limits, route.cost)
    principal.demands[route.match] = demand, facts.address
    return demand


def conclude(route: Route, principal: Principal, answer: Admitted | Exceeded | LimiterUnavailable) -> Decision:
    """Return what the limiter's *answer* means for the request."""
    if isinstance(answer, Admitted):
        return _new(Allowed, (principal, answer, route))
    if isinstance(answer, LimiterUnavailable):
        return unavailable(route, answer.detail, principal)
    concurrency = answer.policy == CONCURRENCY
    reason = Reason.CONCURRENCY_LIMITED if concurrency else Reason.RATE_LIMITED
    detail = f"over its {answer.policy} limit"
    return Denied(reason, detail, route, principal, exceeded=answer, retry_after=answer.wait_seconds)


def unavailable(route: Route, detail: str, principal: Principal | None = None) -> Denied:
    """Fail closed: an identity or a limit that cannot be checked is not granted."""
    return Denied(Reason.UNAVAILABLE, detail, route, principal, retry_after=_RETRY_SECONDS)
