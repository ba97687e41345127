"""The problems of the key API: one table from code to status and title, and what a caller can do."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple


class ApiProblem(NamedTuple):
    """The *status* and *title* of a problem. *advice* is for the page about it; `detail` and `errors` say the rest."""

    status: int
    title: str
    advice: str


API_PROBLEMS: Mapping[str, ApiProblem] = {
    "malformed_body": ApiProblem(HTTPStatus.BAD_REQUEST, "The body is not JSON", "Send one JSON object in UTF-8."),
    "not_permitted": ApiProblem(
        HTTPStatus.FORBIDDEN, "Not permitted", "Use a key of the account that has the scope keys:manage."
    ),
    "not_found": ApiProblem(
        HTTPStatus.NOT_FOUND, "Not found", "Check the path and the id. Records of other accounts are not found either."
    ),
    "method_not_allowed": ApiProblem(
        HTTPStatus.METHOD_NOT_ALLOWED, "Method not allowed", "The Allow header lists the methods of this path."
    ),
    "conflict": ApiProblem(
        HTTPStatus.CONFLICT, "Not possible in this state", "Read the record again: it may be revoked or expired."
    ),
    "key_limit_reached": ApiProblem(
        HTTPStatus.CONFLICT, "Too many keys", "Revoke keys that nobody uses, or ask for a tier that allows more."
    ),
    "precondition_failed": ApiProblem(
        HTTPStatus.PRECONDITION_FAILED,
        "Changed since",
        "Read the record again, and repeat the change with its new ETag.",
    ),
    "body_too_large": ApiProblem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large", "Send a smaller body."),
    "unsupported_media_type": ApiProblem(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "The body is not application/json",
        "Send the header Content-Type: application/json.",
    ),
    "invalid_fields": ApiProblem(
        HTTPStatus.UNPROCESSABLE_ENTITY, "Fields are not valid", "Correct what errors lists, field by field."
    ),
    "unavailable": ApiProblem(
        HTTPStatus.SERVICE_UNAVAILABLE, "Temporarily unavailable", "Send the request again after Retry-After."
    ),
}
