"""The header fields of our answers: what is left of a quota, and the request's id."""

from math import ceil

from machpay_gateway.core.admission import Exceeded, Granted
from machpay_gateway.core.decision import Denied
from machpay_gateway.core.principal import Anonymous, Principal
from machpay_gateway.core.quota import Tier

Headers = list[tuple[bytes, bytes]]


def answer_headers(
    principal: Principal | Anonymous,
    grant: Granted | None,
    request_id: bytes,
    legacy: bool,  # noqa: FBT001 - a setting
) -> Headers:
    """Return what is added to the answer that *principal* gets on a *grant*; None is a public route's."""
    if grant is None or isinstance(principal, Anonymous):
        return [(b"x-request-id", request_id)]
    _, left, resets_in, slots_left = grant
    tier = principal.limits
    if legacy:
        return [(b"x-request-id", request_id), *quota_headers(grant, tier, legacy=True)]
    field = tier.left_format % (left, ceil(resets_in) or 1, slots_left)
    return [(b"x-request-id", request_id), tier.policy_field, (b"ratelimit", field)]


def refusal_headers(denied: Denied, *, legacy: bool) -> Headers:
    """Return what a refusal says of the quota, if that is why it was refused."""
    if denied.exceeded is None or denied.principal is None:
        return []
    return quota_headers(denied.exceeded, denied.principal.limits, legacy=legacy)


def quota_headers(state: Granted | Exceeded, tier: Tier, *, legacy: bool) -> Headers:
    """Return RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers-11), X-RateLimit-* if *legacy*."""
    left, seconds = state.left, ceil(state.resets_in) or 1
    fields = [tier.policy_field, (b"ratelimit", tier.left_format % (left, seconds, state.slots_left))]
    if legacy:
        fields += [
            (b"x-ratelimit-limit", b"%d" % tier.limit),
            (b"x-ratelimit-remaining", b"%d" % left),
            (b"x-ratelimit-reset", b"%d" % seconds),  # seconds from now, as `t` in RateLimit
        ]
    return fields
