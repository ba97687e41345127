"""May they? The checks before the limiter is asked (`admit`), and the decision by its answer (`conclude`)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple
from weakref import finalize

from machpay_gateway.core.decision.principal import Anonymous, Principal
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.decision.request_limits import request_of
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.limits.admission import AdmissionRequest, Admitted, Exceeded, LimiterUnavailable
from machpay_gateway.core.limits.rate import CONCURRENCY
from machpay_gateway.core.scopes import missing_scopes

_RETRY_SECONDS = 1.0  # of Retry-After, when something is unavailable
_new = tuple.__new__  # half the cost of a NamedTuple's own constructor, on every request


class Allowed(NamedTuple):
    """The request is allowed. A public route has no *admission*. A tuple, because one is made for every request."""

    principal: Principal | Anonymous
    admission: Admitted | None
    route: Route


@dataclass(frozen=True, slots=True)
class Denied:
    """The request is refused. *detail* is for the log alone: callers get the reason, and *message* if there is one.

    *missing* are the scopes that the route requires of a principal that lacks some of them.
    """

    reason: Reason
    detail: str = ""
    route: Route | None = None
    principal: Principal | None = None
    exceeded: Exceeded | None = None
    missing: tuple[str, ...] = ()
    retry_after: float | None = None
    message: str = ""


Decision = Allowed | Denied


class Refusal(NamedTuple):
    """The failure of one check, one of ours or of the application's.

    *detail* is for the log alone. *message* is what callers read as the problem's `detail`, instead of the sentence for
    the *reason*. *missing* are scopes that the caller lacks.
    """

    reason: Reason
    detail: str = ""
    missing: tuple[str, ...] = ()
    message: str = ""


Check = Callable[[RequestFacts, Route, Principal, float], Refusal | None]


def not_revoked(_facts: RequestFacts, _route: Route, principal: Principal, _now: float) -> Refusal | None:
    """Refuse a revoked credential."""
    return Refusal(Reason.INVALID_CREDENTIALS, "revoked") if principal.revoked else None


def not_expired(_facts: RequestFacts, _route: Route, principal: Principal, now: float) -> Refusal | None:
    """Refuse an expired credential."""
    if principal.expires_at is None or now < principal.expires_at:
        return None
    return Refusal(Reason.INVALID_CREDENTIALS, "expired")


def environment_is_served(_facts: RequestFacts, route: Route, principal: Principal, _now: float) -> Refusal | None:
    """Refuse a credential of an environment that the route does not serve."""
    if principal.environment in route.environments:
        return None
    return Refusal(Reason.WRONG_ENVIRONMENT, f"{principal.environment} is not served here")


def from_allowed_address(facts: RequestFacts, _route: Route, principal: Principal, _now: float) -> Refusal | None:
    """Refuse an address that is not on the credential's allowlist; an unreadable address is on none."""
    if principal.allowlist is None:
        return None
    if facts.address is not None and facts.address in principal.allowlist:
        return None
    return Refusal(Reason.ADDRESS_NOT_ALLOWED, "address is not on the key's list")


def has_required_scopes(_facts: RequestFacts, route: Route, principal: Principal, _now: float) -> Refusal | None:
    """Refuse a credential that lacks the scopes that the route requires."""
    if not route.requires.alternatives or not (missing := missing_scopes(route.requires, principal.scopes)):
        return None
    return Refusal(Reason.INSUFFICIENT_SCOPE, f"needs {route.requires}", missing)


CHECKS: tuple[Check, ...] = (not_revoked, not_expired, environment_is_served, from_allowed_address, has_required_scopes)


def admit(facts: RequestFacts, route: Route, principal: Principal, now: float) -> Denied | None:
    """Return the first reason to refuse *principal*, or None when it may proceed to the limiter.

    *now* is in seconds since the epoch. The order is policy: cheap and final reasons first. A refusal spends no quota.
    """
    for check in CHECKS:
        if refusal := check(facts, route, principal, now):
            return Denied(refusal.reason, refusal.detail, route, principal, missing=refusal.missing)
    return None


class CheckCache:
    """Builds admission requests, and remembers which principals passed the checks of which routes.

    The result of `admit` depends on the principal, the route, the address and the time. A principal never changes (a
    changed record is a new one), so a check that passed is repeated for another address or after the expiry only.
    What is remembered of a principal lives as long as the principal itself, which the caches of credentials bound.
    """

    def __init__(self) -> None:
        # By the principal's id(): hashing a weak reference on every request would cost more than the checks save.
        self._passed: dict[int, dict[str, tuple[AdmissionRequest, int | None]]] = {}

    def admission_request(
        self, facts: RequestFacts, route: Route, principal: Principal, now: float
    ) -> AdmissionRequest | Denied:
        """Return the request to the limiter for *principal*, or the refusal of `admit`."""
        try:  # faster than two calls of `get`
            request, address = self._passed[id(principal)][route.match]
        except KeyError:
            pass
        else:
            if address == facts.address and (principal.expires_at is None or now < principal.expires_at):
                return request
        if denied := admit(facts, route, principal, now):
            return denied
        request = request_of(principal, route, facts.address)
        if id(principal) not in self._passed:
            self._passed[id(principal)] = {}
            finalize(principal, self._passed.pop, id(principal)).atexit = False  # before the id is used again
        self._passed[id(principal)][route.match] = request, facts.address
        return request

    def __len__(self) -> int:
        return len(self._passed)


def conclude(
    route: Route, principal: Principal | Anonymous, answer: Admitted | Exceeded | LimiterUnavailable
) -> Decision:
    """Return the decision by the limiter's *answer*."""
    if isinstance(answer, Admitted):
        return _new(Allowed, (principal, answer, route))
    caller = principal if isinstance(principal, Principal) else None
    if isinstance(answer, LimiterUnavailable):
        return unavailable(route, answer.detail, caller)
    is_concurrency = all(name.endswith(CONCURRENCY) for name in answer.policies)
    reason = Reason.CONCURRENCY_LIMITED if is_concurrency else Reason.RATE_LIMITED
    detail = f"over its {' and '.join(answer.policies)} limit"
    return Denied(reason, detail, route, caller, exceeded=answer, retry_after=answer.wait_seconds)


def unavailable(route: Route, detail: str, principal: Principal | None = None) -> Denied:
    """Return the refusal for an identity or a limit that cannot be checked: the gate fails closed."""
    return Denied(Reason.UNAVAILABLE, detail, route, principal, retry_after=_RETRY_SECONDS)
