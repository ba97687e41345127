"""The reasons for refusing a request, in one enum, so that tables by reason can be tested to be complete."""

from enum import StrEnum


class Reason(StrEnum):
    """The stable name of a refusal; its value is the `code` in responses."""

    MISSING_CREDENTIALS = "missing_credentials"
    MALFORMED_REQUEST = "malformed_request"
    CONFLICTING_CREDENTIALS = "conflicting_credentials"
    INVALID_CREDENTIALS = "invalid_credentials"
    INVALID_PROOF = "invalid_proof"
    INSUFFICIENT_SCOPE = "insufficient_scope"
    ADDRESS_NOT_ALLOWED = "address_not_allowed"
    WRONG_ENVIRONMENT = "wrong_environment"
    CLIENT_CERTIFICATE_REQUIRED = "client_certificate_required"
    FORBIDDEN = "forbidden"
    ROUTE_NOT_FOUND = "route_not_found"
    RATE_LIMITED = "rate_limited"
    CONCURRENCY_LIMITED = "concurrency_limited"
    TOO_MANY_FAILURES = "too_many_failures"
    UNAVAILABLE = "unavailable"
    INVALID_MESSAGE = "invalid_message"
    NOT_IMPLEMENTED = "not_implemented"
    HEAD_TOO_LARGE = "head_too_large"
    BODY_TOO_LARGE = "body_too_large"
    REQUEST_TIMEOUT = "request_timeout"
    UPSTREAM_UNAVAILABLE = "upstream_unavailable"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    UPSTREAM_OVERLOADED = "upstream_overloaded"


# Only the reverse proxy has these reasons, since it speaks HTTP/1.1 itself.
PROXY_REASONS = frozenset(
    {
        Reason.INVALID_MESSAGE,
        Reason.NOT_IMPLEMENTED,
        Reason.HEAD_TOO_LARGE,
        Reason.BODY_TOO_LARGE,
        Reason.REQUEST_TIMEOUT,
        Reason.UPSTREAM_UNAVAILABLE,
        Reason.UPSTREAM_TIMEOUT,
        Reason.UPSTREAM_OVERLOADED,
    }
)
