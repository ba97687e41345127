"""The problems that the key API responds with: one table from code to status and title."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

import orjson
from starlette.responses import Response

from machpay_gateway.admin.documents import NO_STORE
from machpay_gateway.admin.responses import FieldProblem
from machpay_gateway.core.decision.problem import problem_body

CODES: Mapping[str, tuple[HTTPStatus, str]] = {
    "malformed_body": (HTTPStatus.BAD_REQUEST, "The body is not JSON"),
    "not_permitted": (HTTPStatus.FORBIDDEN, "Not permitted"),
    "not_found": (HTTPStatus.NOT_FOUND, "Not found"),
    "method_not_allowed": (HTTPStatus.METHOD_NOT_ALLOWED, "Method not allowed"),
    "conflict": (HTTPStatus.CONFLICT, "Not possible in this state"),
    "key_limit_reached": (HTTPStatus.CONFLICT, "Too many keys"),
    "precondition_failed": (HTTPStatus.PRECONDITION_FAILED, "Changed since"),
    "body_too_large": (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large"),
    "unsupported_media_type": (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body is not application/json"),
    "invalid_fields": (HTTPStatus.UNPROCESSABLE_ENTITY, "Fields are not valid"),
    "not_configured": (HTTPStatus.NOT_IMPLEMENTED, "Not configured here"),
    "unavailable": (HTTPStatus.SERVICE_UNAVAILABLE, "Temporarily unavailable"),
}
_RETRY_SECONDS = 1


class ProblemError(Exception):
    """Ends an operation with a problem of `CODES`. *detail* and the *errors* in fields are shown to the caller."""

    def __init__(self, code: str, detail: str, errors: Sequence[FieldProblem] = ()) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)


def problem_response(error: ProblemError, request_id: bytes) -> Response:
    """Return *error* as application/problem+json (RFC 9457)."""
    status, title = CODES[error.code]
    body = problem_body(error.code, status, title, error.detail, request_id)
    headers = dict(NO_STORE)
    if error.errors:
        body["errors"] = error.errors
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        body["retry_after"] = _RETRY_SECONDS
        headers["Retry-After"] = str(_RETRY_SECONDS)
    return Response(orjson.dumps(body), status, headers, "application/problem+json")
