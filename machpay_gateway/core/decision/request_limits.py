"""Which limits apply to a request: those of the caller's tier, account and owner, of its route, or of its address."""

from collections.abc import Iterator
from functools import lru_cache

from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.limits.admission import AdmissionRequest
from machpay_gateway.core.limits.plan import Part, plan_of
from machpay_gateway.core.limits.rate import AnonymousLimits, LimitedBy
from machpay_gateway.core.network.address import block_name

_ANONYMOUS_REQUESTS = 4096  # cached, of an address on a route
_LIVE = "live"


def request_of(principal: Principal, route: Route | None, address: int | None) -> AdmissionRequest:
    """Return what *principal* asks of the limiter for *route*, or for reading what is left beside those of routes.

    All subjects of an account are stored together, so that one step reaches them.
    """
    parts = [Part("key", principal.limits.limits, principal.limits.enforce)]
    others: list[str] = []
    for part, subject in _shared_parts(principal):
        parts.append(part)
        others.append(subject)
    for number, (match, limit) in () if route is None else enumerate(route.limits, 1):
        parts.append(Part("route", limit.limits, limit.enforce, number))
        others.append(f"route:{match}:{limit.by}:{_subject(principal, limit.by, address)}")
    cost = 1 if route is None else route.cost
    group = principal.account_subject or principal.account_id or principal.subject
    return AdmissionRequest(
        principal.subject,
        principal.version,
        plan_of(tuple(parts)),
        cost,
        tuple(others),
        group,
        principal.account_version,
    )


@lru_cache(_ANONYMOUS_REQUESTS)
def anonymous_request(route: Route, limits: AnonymousLimits | None, address: int | None) -> AdmissionRequest | None:
    """Return what the caller of a public *route* asks of the limiter, by its address block; None without a limit."""
    block = block_name(address)
    parts, subjects = [], []
    if limits is not None:
        parts.append(Part("address", limits.limits, limits.enforce))
        subjects.append(f"address:{block}")
    for number, (match, limit) in enumerate(route.limits, 1):
        parts.append(Part("route", limit.limits, limit.enforce, number))
        subjects.append(f"route:{match}:address:{block}")
    if not parts:
        return None
    subject, *others = subjects
    return AdmissionRequest(subject, 0, plan_of(tuple(parts)), route.cost, tuple(others), f"address:{block}")


def _shared_parts(principal: Principal) -> Iterator[tuple[Part, str]]:
    """Yield the limits that a caller shares, with the subjects that they count against."""
    tier = principal.shared_limits or principal.limits
    if tier.account_limits is not None:
        yield Part("account", tier.account_limits, tier.enforce), f"account:{_account(principal)}"
    # With a colon, the live owner `test:ada` would be the test owner `ada`. Names of accounts have no slash.
    if tier.owner_limits is not None and principal.owner is not None:
        yield Part("owner", tier.owner_limits, tier.enforce), f"owner:{_account(principal)}/{principal.owner}"


def _subject(principal: Principal, by: LimitedBy, address: int | None) -> str:
    match by:
        case "account":
            return _account(principal)
        case "owner" if principal.owner is not None:
            return f"{_account(principal)}/{principal.owner}"
        case "address":
            return f"{_account(principal)}:{block_name(address)}"
    return principal.subject  # a key without an owner counts for itself


def _account(principal: Principal) -> str:
    """Return the name of the caller's account, or without one of its own; test and live are counted apart."""
    account = principal.account_subject or principal.account_id or principal.subject
    return account if principal.environment == _LIVE else f"{account}:{principal.environment}"
