"""The exceptions, as a tree to catch from.

* MachPayError
  x ConfigurationError         an invalid configuration of the client
  x InvalidArgumentError       an invalid argument of a call; nothing was sent
  x ClientClosedError          a call after `close()`; nothing was sent
  x OAuthError                 the authorization server refuses, or a callback is forged: `.error`
  x APIConnectionError         there is no response
    + APITimeoutError
  x InvalidResponseError       the response does not follow this API
  x APIStatusError             an error response: problem+json (RFC 9457), or any page of a proxy
    + BadRequestError          400
    + AuthenticationError      401
    + PermissionDeniedError    403, `.required_scopes`
    + NotFoundError            404
    + ConflictError            409
      x KeyLimitError          the account has as many working keys as its tier allows
    + PreconditionFailedError  412
    + UnprocessableEntityError 422, `.errors`
    + RateLimitError           429, `.retry_after`, `.violated_policies`
    + InternalServerError      500 and above

The first two are ValueErrors as well, the third is a RuntimeError. No message contains a credential.
"""

import json
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

import httpx2

from machpay._rate_limit import RateLimit
from machpay._response import Response

__all__ = [
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "ClientClosedError",
    "ConfigurationError",
    "ConflictError",
    "InternalServerError",
    "InvalidArgumentError",
    "InvalidResponseError",
    "KeyLimitError",
    "MachPayError",
    "NotFoundError",
    "OAuthError",
    "PermissionDeniedError",
    "PreconditionFailedError",
    "RateLimitError",
    "UnprocessableEntityError",
]

_MAX_DETAIL = 300  # keeps a message to one line, whatever page a proxy sends


class MachPayError(Exception):
    """The base class of all exceptions of this package."""


class ConfigurationError(MachPayError, ValueError):
    """The configuration of the client is invalid."""


class InvalidArgumentError(MachPayError, ValueError):
    """An argument of a call is invalid. Nothing was sent."""


class ClientClosedError(MachPayError, RuntimeError):
    """The client, or the `http_client` that it was given, is closed. Nothing was sent."""

    def __init__(self, message: str = "The client is closed; create another one.") -> None:
        super().__init__(message)


class OAuthError(MachPayError):
    """The authorization server refuses (RFC 6749 §5.2), or a callback is forged.

    *error* is the server's code, or `state_mismatch`, `issuer_mismatch` or `invalid_callback`. An error in a callback
    has no *response*.
    """

    def __init__(self, error: str, error_description: str | None = None, response: Response | None = None) -> None:
        self.error = error
        self.error_description = error_description
        self.response = response
        super().__init__(self._message())

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.error, self.error_description, self.response)

    @property
    def status(self) -> int | None:
        """The HTTP status."""
        return None if self.response is None else self.response.status

    @property
    def request_id(self) -> str | None:
        """The server's id of the request, for questions to support."""
        return None if self.response is None else self.response.request_id

    def _message(self) -> str:
        text = f"{self.error}: {self.error_description}" if self.error_description else self.error
        details = [f"status {self.status}"] if self.status else []
        details += [f"request {self.request_id}"] if self.request_id else []
        return _as_sentence(text) + (f" ({', '.join(details)})" if details else "")


class APIConnectionError(MachPayError):
    """There is no response: the server was not reached, or the connection broke."""


class APITimeoutError(APIConnectionError):
    """There is no response in time."""


class InvalidResponseError(MachPayError):
    """The response does not follow this API. It is in `.response`."""

    def __init__(self, message: str, response: Response) -> None:
        super().__init__(message)
        self.response = response

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.response)


class APIStatusError(MachPayError):
    """An error response. Members that the server did not send are None."""

    def __init__(self, response: Response) -> None:
        self.response = response
        self.problem: Mapping[str, object] = problem_in(response)
        self.type = self._text("type")
        self.title = self._text("title")
        self.detail = self._text("detail")
        self.code = self._text("code")
        super().__init__(self._message())

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.response,)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.response.status

    @property
    def headers(self) -> httpx2.Headers:
        """The headers of the response."""
        return self.response.headers

    @property
    def request_id(self) -> str | None:
        """The server's id of the request, for questions to support."""
        return self.response.request_id or self._text("request_id")

    @property
    def rate_limit(self) -> RateLimit | None:
        """The limits that the request counted against."""
        return self.response.rate_limit

    def _text(self, name: str) -> str | None:
        value = self.problem.get(name)
        return value if isinstance(value, str) else None

    def _strings(self, name: str) -> tuple[str, ...]:
        value = self.problem.get(name)
        return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()

    def _hint(self) -> str:
        """Return an addition to the message for this type of error."""
        if self.response.status // 100 == 3:  # noqa: PLR2004 - RFC 9110 §15.4: 3xx
            return "Redirects are never followed, they could send the credential elsewhere; check base_url or auth_url."
        return ""

    def _message(self) -> str:
        parts = [self.title or _reason_phrase(self.status), self.detail, self._hint()]
        text = " ".join(_as_sentence(part) for part in parts if part)
        request = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.status} {text}{request}"


class BadRequestError(APIStatusError):
    """400: the request is malformed."""


class AuthenticationError(APIStatusError):
    """401: the credential is missing, unknown, expired or revoked. The server does not say which."""


class PermissionDeniedError(APIStatusError):
    """403: the credential is valid, but not permitted to do this, or not from this address."""

    @property
    def required_scopes(self) -> tuple[str, ...]:
        """The scopes that the call needs and the credential lacks."""
        return self._strings("required_scopes")

    def _hint(self) -> str:
        return f"Required: {', '.join(self.required_scopes)}." if self.required_scopes else ""


class NotFoundError(APIStatusError):
    """404: there is no such object in this account."""


class ConflictError(APIStatusError):
    """409: the request conflicts with the current state, or its idempotency key was used for another request."""


class KeyLimitError(ConflictError):
    """409 `key_limit_reached`: the account has as many working keys as its tier allows. Revoke one first."""


class PreconditionFailedError(APIStatusError):
    """412: the object has changed since it was retrieved (`if_match`)."""


class UnprocessableEntityError(APIStatusError):
    """422: the request is well-formed, but some fields are invalid."""

    @property
    def errors(self) -> tuple[Mapping[str, object], ...]:
        """The errors in fields: mappings with `place` and `reason`."""
        value = self.problem.get("errors")
        return tuple(item for item in value if isinstance(item, dict)) if isinstance(value, list) else ()

    def _hint(self) -> str:
        return "; ".join(f"{error.get('place')}: {error.get('reason')}" for error in self.errors)


class RateLimitError(APIStatusError):
    """429: too many requests, or too many at the same time."""

    @property
    def retry_after(self) -> float | None:
        """The seconds to wait before the next request."""
        value = self.problem.get("retry_after")
        in_body = float(value) if isinstance(value, int | float) else None
        return in_body if self.response.retry_after is None else self.response.retry_after

    @property
    def violated_policies(self) -> tuple[str, ...]:
        """The names of the limits that were reached. Their values are in `.rate_limit`."""
        return self._strings("violated_policies")

    def _hint(self) -> str:
        return "" if self.retry_after is None else f"Retry in {self.retry_after:g} s."


class InternalServerError(APIStatusError):
    """500 and above: the server failed."""


BY_STATUS: Mapping[int, type[APIStatusError]] = MappingProxyType(
    {
        400: BadRequestError,
        401: AuthenticationError,
        403: PermissionDeniedError,
        404: NotFoundError,
        409: ConflictError,
        412: PreconditionFailedError,
        422: UnprocessableEntityError,
        429: RateLimitError,
    }
)


BY_CODE: Mapping[tuple[int, str], type[APIStatusError]] = MappingProxyType({(409, "key_limit_reached"): KeyLimitError})


def error_for(response: Response) -> APIStatusError:
    """Return the exception for *response*, which is not a success."""
    default = InternalServerError if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR else APIStatusError
    code = str(problem_in(response).get("code"))
    return BY_CODE.get((response.status, code), BY_STATUS.get(response.status, default))(response)


def oauth_error_for(response: Response) -> MachPayError:
    """Return the exception for *response* of the authorization server. A proxy's page is not an OAuth error."""
    problem = problem_in(response)
    error, description = problem.get("error"), problem.get("error_description")
    if not isinstance(error, str):
        return error_for(response)
    return OAuthError(error, description if isinstance(description, str) else None, response)


def problem_in(response: Response) -> Mapping[str, object]:
    """Return the JSON object in *response*, or an empty one if there is none, as in a proxy's page."""
    try:
        body = json.loads(response.body)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _reason_phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown status"


def _as_sentence(text: str) -> str:
    """Return *text* on one line, truncated, with a period at its end."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    if len(line) > _MAX_DETAIL:
        return line[:_MAX_DETAIL] + "…"
    return line if line.endswith((".", "!", "?", "…")) else f"{line}."
