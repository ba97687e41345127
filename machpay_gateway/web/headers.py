"""The header fields of our answers: what is left of a quota, and the request's id."""

from math import ceil

from machpay_gateway.core.decision.decision import Denied
from machpay_gateway.core.decision.principal import Anonymous, Principal
from machpay_gateway.core.decision.problem import whole_seconds
from machpay_gateway.core.limits.admission import Admitted, Exceeded

Headers = list[tuple[bytes, bytes]]


def response_headers(
    principal: Principal | Anonymous,
    grant: Admitted | None,
    request_id: bytes,
    legacy: bool,  # noqa: FBT001 - a setting
) -> Headers:
    """Return what is added to the answer that *principal* gets on a *grant*; None is a public route's."""
    if grant is None or isinstance(principal, Anonymous):
        return [(b"x-request-id", request_id)]
    # As `quota_headers` and `whole_seconds` have it, written out: this is done for every request.
    _, left, resets_in, slots_left, tier = grant
    field = tier.left_format % (left, ceil(resets_in) or 1, slots_left)
    fields = [(b"x-request-id", request_id), tier.policy_field, (b"ratelimit", field)]
    return fields + _legacy_headers(grant) if legacy else fields


def refusal_headers(denied: Denied, *, legacy: bool) -> Headers:
    """Return what a refusal says of the quota, if that is why it was refused."""
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
