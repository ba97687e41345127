"""The problems that the key API responds with: `core.api_problems` has the table."""

from collections.abc import Sequence
from http import HTTPStatus

import orjson
from starlette.responses import Response

from machpay_gateway.admin.documents import NO_STORE
from machpay_gateway.admin.responses import FieldProblem
from machpay_gateway.core.api_problems import API_PROBLEMS
from machpay_gateway.core.brand import Brand
from machpay_gateway.core.decision.problem import problem_body

_RETRY_SECONDS = 1


class ProblemError(Exception):
    """Ends an operation with a problem of `API_PROBLEMS`. Callers see the *detail* and the *errors* in fields."""

    def __init__(self, code: str, detail: str, errors: Sequence[FieldProblem] = ()) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)


def problem_response(error: ProblemError, request_id: bytes, brand: Brand) -> Response:
    """Return *error* as application/problem+json (RFC 9457)."""
    problem = API_PROBLEMS[error.code]
    body = problem_body(error.code, problem.status, problem.title, error.detail, request_id, brand)
    headers = dict(NO_STORE)
    if error.errors:
        body["errors"] = error.errors
    if problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
        body["retry_after"] = _RETRY_SECONDS
        headers["Retry-After"] = str(_RETRY_SECONDS)
    return Response(orjson.dumps(body), problem.status, headers, "application/problem+json")
