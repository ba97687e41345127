"""OAuth errors (RFC 6749 §4.1.2.1 and §5.2, and their extensions)."""

from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus


class OAuthErrorCode(StrEnum):
    """An error code of the standards."""

    INVALID_REQUEST = "invalid_request"
    INVALID_CLIENT = "invalid_client"
    INVALID_GRANT = "invalid_grant"
    UNAUTHORIZED_CLIENT = "unauthorized_client"
    UNSUPPORTED_GRANT_TYPE = "unsupported_grant_type"
    UNSUPPORTED_RESPONSE_TYPE = "unsupported_response_type"
    INVALID_SCOPE = "invalid_scope"
    INVALID_TARGET = "invalid_target"  # RFC 8707 §2
    INVALID_DPOP_PROOF = "invalid_dpop_proof"  # RFC 9449 §5
    ACCESS_DENIED = "access_denied"
    LOGIN_REQUIRED = "login_required"  # OpenID Connect Core §3.1.2.6, for prompt=none
    CONSENT_REQUIRED = "consent_required"  # as above
    REQUEST_NOT_SUPPORTED = "request_not_supported"  # RFC 9101 §7
    REQUEST_URI_NOT_SUPPORTED = "request_uri_not_supported"  # as above
    INVALID_REDIRECT_URI = "invalid_redirect_uri"  # RFC 7591 §3.2.2
    INVALID_CLIENT_METADATA = "invalid_client_metadata"  # as above
    INVALID_TOKEN = "invalid_token"  # noqa: S105 - a code: RFC 6750 §3.1
    SLOW_DOWN = "slow_down"  # RFC 8628 §3.5; no other code means "retry later"
    TEMPORARILY_UNAVAILABLE = "temporarily_unavailable"


@dataclass(frozen=True, slots=True)
class OAuthRefusal:
    """A refusal. *description* is for the developer of the client, and repeats nothing of the request."""

    code: OAuthErrorCode
    description: str
    retry_after: float | None = None  # seconds

    @property
    def status(self) -> int:
        """The status of a JSON response."""
        return _STATUSES.get(self.code, HTTPStatus.BAD_REQUEST)


_STATUSES = {
    OAuthErrorCode.INVALID_CLIENT: HTTPStatus.UNAUTHORIZED,
    OAuthErrorCode.INVALID_TOKEN: HTTPStatus.UNAUTHORIZED,
    OAuthErrorCode.SLOW_DOWN: HTTPStatus.TOO_MANY_REQUESTS,
    OAuthErrorCode.TEMPORARILY_UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
}
