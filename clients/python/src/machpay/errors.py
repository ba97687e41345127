"""What can go wrong, as a tree to catch from.

* MachPayError
  x ConfigurationError         the client cannot be set up like this
  x InvalidArgumentError       the call cannot be made like this; nothing was sent
  x OAuthError                 the authorization server refuses, or a callback is not to be trusted: `.error`
  x APIConnectionError         there is no answer
    + APITimeoutError
  x InvalidResponseError       there is an answer, and it is not what this API says
  x APIStatusError             the answer is an error: problem+json (RFC 9457), or whatever a proxy says
    + BadRequestError          400
    + AuthenticationError      401
    + PermissionDeniedError    403, `.required_scopes`
    + NotFoundError            404
    + ConflictError            409
    + PreconditionFailedError  412
    + UnprocessableEntityError 422, `.errors`
    + RateLimitError           429, `.retry_after`, `.violated_policies`
    + InternalServerError      500 and above

The first two are ValueErrors as well. No message contains a credential.
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
    "ConfigurationError",
    "ConflictError",
    "InternalServerError",
    "InvalidArgumentError",
    "InvalidResponseError",
    "MachPayError",
    "NotFoundError",
    "OAuthError",
    "PermissionDeniedError",
    "PreconditionFailedError",
    "RateLimitError",
    "UnprocessableEntityError",
]

_LONGEST_DETAIL = 300  # a message is one line, and a proxy's page is not


class MachPayError(Exception):
    """Anything that this package raises."""


class ConfigurationError(MachPayError, ValueError):
    """The client cannot be set up like this."""


class InvalidArgumentError(MachPayError, ValueError):
    """The call cannot be made like this. Nothing was sent."""


class OAuthError(MachPayError):
    """The authorization server refuses (RFC 6749 §5.2), or a callback is not to be trusted.

    *error* is the server's code, or `state_mismatch`, `issuer_mismatch` or `invalid_callback`. An error that came by
    a callback has no *response*.
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
        """What the server calls this request; name it to support."""
        return None if self.response is None else self.response.request_id

    def _message(self) -> str:
        said = f"{self.error}: {self.error_description}" if self.error_description else self.error
        told = [f"status {self.status}"] if self.status else []
        told += [f"request {self.request_id}"] if self.request_id else []
        return _as_sentence(said) + (f" ({', '.join(told)})" if told else "")


class APIConnectionError(MachPayError):
    """There is no answer: the server was not reached, or the connection broke."""


class APITimeoutError(APIConnectionError):
    """There is no answer in time."""


class InvalidResponseError(MachPayError):
    """The answer is not what this API says; `.response` holds it."""

    def __init__(self, message: str, response: Response) -> None:
        super().__init__(message)
        self.response = response

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.response)


class APIStatusError(MachPayError):
    """The answer is an error. What the server did not say of it is None."""

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
        """The answer's headers."""
        return self.response.headers

    @property
    def request_id(self) -> str | None:
        """What the server calls this request; name it to support."""
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
        """Return what else to say, with what this kind of error knows."""
        if self.response.status // 100 == 3:  # noqa: PLR2004 - RFC 9110 §15.4: 3xx
            return "Redirects are never followed, they could lead the credential elsewhere; check base_url or auth_url."
        return ""

    def _message(self) -> str:
        said = [self.title or _reason_phrase(self.status), self.detail, self._hint()]
        text = " ".join(_as_sentence(part) for part in said if part)
        request = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.status} {text}{request}"


class BadRequestError(APIStatusError):
    """400: the server cannot read the request."""


class AuthenticationError(APIStatusError):
    """401: the credential is missing, unknown, expired or revoked; the server tells nobody which."""


class PermissionDeniedError(APIStatusError):
    """403: the credential is good, and may not do this, or not from here."""

    @property
    def required_scopes(self) -> tuple[str, ...]:
        """The scopes that the call needs and the credential lacks."""
        return self._strings("required_scopes")

    def _hint(self) -> str:
        return f"Required: {', '.join(self.required_scopes)}." if self.required_scopes else ""


class NotFoundError(APIStatusError):
    """404: there is nothing of that name, or not for this account."""


class ConflictError(APIStatusError):
    """409: the request does not fit the present state, or its idempotency key was used for another one."""


class PreconditionFailedError(APIStatusError):
    """412: what was to be changed has changed meanwhile; retrieve it anew."""


class UnprocessableEntityError(APIStatusError):
    """422: the request is readable, and something in it is not acceptable."""

    @property
    def errors(self) -> tuple[Mapping[str, object], ...]:
        """What is wrong where: mappings with `place` and `reason`."""
        value = self.problem.get("errors")
        return tuple(item for item in value if isinstance(item, dict)) if isinstance(value, list) else ()

    def _hint(self) -> str:
        return "; ".join(f"{error.get('place')}: {error.get('reason')}" for error in self.errors)


class RateLimitError(APIStatusError):
    """429: too much at once, or too often."""

    @property
    def retry_after(self) -> float | None:
        """The seconds after which to ask again."""
        said = self.problem.get("retry_after")
        in_body = float(said) if isinstance(said, int | float) else None
        return in_body if self.response.retry_after is None else self.response.retry_after

    @property
    def violated_policies(self) -> tuple[str, ...]:
        """The names of the limits that were reached; `.rate_limit` has their figures."""
        return self._strings("violated_policies")

    def _hint(self) -> str:
        return "" if self.retry_after is None else f"Ask again in {self.retry_after:g} s."


class InternalServerError(APIStatusError):
    """500 and above: the server's side failed."""


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


def error_for(response: Response) -> APIStatusError:
    """Return what to raise for *response*, which is not a success."""
    default = InternalServerError if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR else APIStatusError
    return BY_STATUS.get(response.status, default)(response)


def oauth_error_for(response: Response) -> MachPayError:
    """Return what to raise for *response* of the authorization server; a proxy's answer is no error of OAuth."""
    said = problem_in(response)
    error, description = said.get("error"), said.get("error_description")
    if not isinstance(error, str):
        return error_for(response)
    return OAuthError(error, description if isinstance(description, str) else None, response)


def problem_in(response: Response) -> Mapping[str, object]:
    """Return the JSON object in *response*, an empty one when there is none: a proxy's page is no problem+json."""
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
    """Return *text* on one line, cut where it gets long, with a stop at its end."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    if len(line) > _LONGEST_DETAIL:
        return line[:_LONGEST_DETAIL] + "…"
    return line if line.endswith((".", "!", "?", "…")) else f"{line}."
