"""The headers that the gateway adds to responses: rate limits and the request id."""

from math import ceil

from machpay_gateway.core.decision.decision import Denied
from machpay_gateway.core.decision.problem import whole_seconds
from machpay_gateway.core.limits.admission import Admitted
from machpay_gateway.core.limits.plan import Levels, Plan

Headers = list[tuple[bytes, bytes]]


def response_headers(
    admission: Admitted | None,
    request_id: bytes,
    legacy: bool,  # noqa: FBT001 - a setting
) -> Headers:
    """Return the headers of a response after its *admission*, which is None where nothing limits the request."""
    if admission is None:
        return [(b"x-request-id", request_id)]
    _, levels, plan, _ = admission
    if legacy or not plan.left_format:
        return [(b"x-request-id", request_id), *limit_headers(plan, levels, legacy=legacy)]
    if plan.is_simple:  # the same as `Plan.header`, inlined because it runs for nearly every request
        left, resets_in, slots_left = levels
        field = plan.left_format % (left, ceil(resets_in) or 1, slots_left)
    else:
        field = plan.header(levels)
    return [(b"x-request-id", request_id), plan.policy_field, (b"ratelimit", field)]


def refusal_headers(denied: Denied, *, legacy: bool) -> Headers:
    """Return the quota headers of a refusal; none unless a limit was exceeded."""
    exceeded = denied.exceeded
    return [] if exceeded is None else limit_headers(exceeded.plan, exceeded.levels, legacy=legacy)


def limit_headers(plan: Plan, levels: Levels, *, legacy: bool) -> Headers:
    """Return RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers-11), X-RateLimit-* if *legacy*.

    There are none where no limit is enforced.
    """
    if not plan.left_format:
        return []
    fields = [plan.policy_field, (b"ratelimit", plan.header(levels))]
    return fields + _legacy_headers(plan, levels) if legacy else fields


def _legacy_headers(plan: Plan, levels: Levels) -> Headers:
    """Return the headers that have room for one policy: the first one that counts units."""
    for policy, left, resets_in in plan.levels(levels):
        if policy.enforced and not policy.is_concurrency:
            return [
                (b"x-ratelimit-limit", b"%d" % policy.limit),
                (b"x-ratelimit-remaining", b"%d" % max(0, left)),
                (b"x-ratelimit-reset", b"%d" % whole_seconds(resets_in)),  # seconds from now, as `t` in RateLimit
            ]
    return []
