"""The headers that the gateway adds to responses: rate limits and the request id."""

from math import ceil

from machpay_gateway.core.decision.decision import Denied
from machpay_gateway.core.decision.principal import Anonymous, Principal
from machpay_gateway.core.decision.problem import whole_seconds
from machpay_gateway.core.limits.admission import Admitted, Exceeded

Headers = list[tuple[bytes, bytes]]


def response_headers(
    principal: Principal | Anonymous,
    admission: Admitted | None,
    request_id: bytes,
    legacy: bool,  # noqa: FBT001 - a setting
) -> Headers:
    """Return the headers of a response to *principal* after its *admission*, which is None on a public route."""
    if admission is None or isinstance(principal, Anonymous):
        return [(b"x-request-id", request_id)]
    # The same as `quota_headers` and `whole_seconds`, inlined because it runs for every request.
    _, left, resets_in, slots_left, tier = admission
    field = tier.left_format % (left, ceil(resets_in) or 1, slots_left)
    fields = [(b"x-request-id", request_id), tier.policy_field, (b"ratelimit", field)]
    return fields + _legacy_headers(admission) if legacy else fields


def refusal_headers(denied: Denied, *, legacy: bool) -> Headers:
    """Return the quota headers of a refusal; none unless a limit was exceeded."""
    return [] if denied.exceeded is None else quota_headers(denied.exceeded, legacy=legacy)


def quota_headers(state: Admitted | Exceeded, *, legacy: bool) -> Headers:
    """Return RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers-11), X-RateLimit-* if *legacy*."""
    tier = state.tier
    field = tier.left_format % (state.left, whole_seconds(state.resets_in), state.slots_left)
    fields = [tier.policy_field, (b"ratelimit", field)]
    return fields + _legacy_headers(state) if legacy else fields


def _legacy_headers(state: Admitted | Exceeded) -> Headers:
    return [
        (b"x-ratelimit-limit", b"%d" % state.tier.limit),
        (b"x-ratelimit-remaining", b"%d" % state.left),
        (b"x-ratelimit-reset", b"%d" % whole_seconds(state.resets_in)),  # seconds from now, as `t` in RateLimit
    ]
