"""The limits that a key has, and where each comes from, for `machpay-gateway doctor --key`.

They are those of the plan that decides the key's requests. Nothing is asked of the limiter, and no secret is shown.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from machpay_gateway.cli.policy import describe_limits_by
from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.check_result import CheckResult, CheckStatus
from machpay_gateway.core.decision.policy import Policy
from machpay_gateway.core.decision.principal import key_principal
from machpay_gateway.core.decision.request_limits import request_of
from machpay_gateway.core.keys.key import KeyRecord, KeyStatus
from machpay_gateway.core.limits.rate import Limits, Tier, describe_limit, describe_limits
from machpay_gateway.core.limits.tier_names import describe_tier
from machpay_gateway.core.scopes import missing_scopes

_LIVE = "live"
_WAYS_OUT = {
    "account": "define it, or `machpay-gateway accounts set-tier`",
    "key": "define it, or `machpay-gateway keys update --tier`",
}


class AppliedLimits(NamedTuple):
    """Limits of a key's requests: *by* whom they are counted, and the *tier* or the *route* that they come from."""

    by: str
    limits: Limits
    enforced: bool
    tier: str | None = None
    route: str | None = None


def applied_limits(key: KeyRecord, policy: Policy) -> list[AppliedLimits]:
    """Return the limits of *key*: those on all of its requests, then those on the routes that it may use."""
    principal = key_principal(key, key.secrets[0], policy.tiers)
    applied = [
        AppliedLimits(part.kind, part.limits, part.enforced, tier=key.tier if part.kind == "key" else key.account_tier)
        for part in request_of(principal, None, None).plan.parts
    ]
    for route in policy.routes:
        is_usable = not route.public and key.environment in route.environments
        if is_usable and not missing_scopes(route.requires, key.scopes):
            applied += [AppliedLimits(it.by, it.limits, it.enforce, route=match) for match, it in route.limits]
    return applied


def key_findings(key: KeyRecord, account: Account | None, policy: Policy, now: float) -> Iterator[CheckResult]:
    """Yield who *key* is, the tiers that its limits come from, and each of its limits."""
    yield _identity(key, account, now)
    yield from _tiers(key, policy.tiers)
    for applied in applied_limits(key, policy):
        yield CheckResult("limits", CheckStatus.OK, _describe(applied, policy.tiers))
    shared = policy.tiers.get(key.account_tier)
    if key.owner is None and shared is not None and shared.owner_limits is not None:
        text = f"{describe_limits(shared.owner_limits)}, by owner: not of this key, which has no owner"
        yield CheckResult("limits", CheckStatus.OK, text)


def key_limits_json(key: KeyRecord, policy: Policy) -> dict[str, Any]:
    """Return the tiers and the limits of *key* for scripts."""
    return {
        "id": key.id,
        "account_id": key.account_id,
        "environment": key.environment,
        "owner": key.owner,
        "tier": key.tier,
        "own_tier": key.own_tier,
        "account_tier": key.account_tier,
        "limits": [
            {
                "by": applied.by,
                "limits": describe_limits(applied.limits),
                "enforced": applied.enforced,
                "tier": applied.tier,
                "tier_configured": None if applied.tier is None else applied.tier in policy.tiers,
                "route": applied.route,
            }
            for applied in applied_limits(key, policy)
        ],
    }


def _identity(key: KeyRecord, account: Account | None, now: float) -> CheckResult:
    name = key.account_id if account is None else f"{account.name} ({account.id})"
    owner = "" if key.owner is None else f", owner {key.owner}"
    text = f"{key.id} ({key.name}), {key.environment}, of account {name}{owner}"
    status = key.status(now)
    if status is KeyStatus.ACTIVE:
        return CheckResult("key", CheckStatus.OK, text)
    return CheckResult("key", CheckStatus.WARNING, f"{text}: it is {status}, so all of its requests are refused")


def _tiers(key: KeyRecord, tiers: Mapping[str, Tier]) -> Iterator[CheckResult]:
    """Yield the tier of *key*, and that of its account where limits that keys share come from another one."""
    from_account = "from its account" if key.environment == _LIVE else f"that of all {key.environment} keys"
    if key.own_tier is None:
        yield _tier("tier", key.tier, from_account, tiers, "account")
        return
    yield _tier("tier", key.own_tier, f"its own, instead of {key.account_tier}", tiers, "key")
    yield _tier("account tier", key.account_tier, "which limits by account and owner come from", tiers, "account")


def _tier(subject: str, tier: str, source: str, tiers: Mapping[str, Tier], whose: str) -> CheckResult:
    text = f"{describe_tier(tier, tiers)}, {source}"
    if tier in tiers:
        return CheckResult(subject, CheckStatus.OK, text)
    text += ": it is not configured, so each of its limits is the strictest that a tier has"
    return CheckResult(subject, CheckStatus.WARNING, text, _WAYS_OUT[whose])


def _describe(applied: AppliedLimits, tiers: Mapping[str, Tier]) -> str:
    """Return the limits, by whom they are counted, and what they come from."""
    text = describe_limits_by(applied.by, applied.limits, enforced=applied.enforced)
    if applied.tier is None:
        return f"{text}, from {applied.route}"
    if applied.tier in tiers:
        return f"{text}, from tier {applied.tier}"
    return f"{text}: {', '.join(_origins(applied, tiers))}"


def _origins(applied: AppliedLimits, tiers: Mapping[str, Tier]) -> Iterator[str]:
    """Yield each limit of a tier that is not configured, with the first of *tiers* that has it."""
    candidates = {name: _limits_by(applied.by, tier) for name, tier in tiers.items()}
    for limit in applied.limits.counted:
        name = next(name for name, other in candidates.items() if other is not None and limit in other.counted)
        yield f"{describe_limit(limit)} from tier {name}"
    concurrency = applied.limits.concurrency
    if concurrency is not None:
        name = next(
            name for name, other in candidates.items() if other is not None and other.concurrency == concurrency
        )
        yield f"{concurrency} concurrent from tier {name}"


def _limits_by(by: str, tier: Tier) -> Limits | None:
    return {"account": tier.account_limits, "owner": tier.owner_limits}.get(by, tier.limits)
