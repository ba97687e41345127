"""Parsing of bodies and queries. A problem lists every error in them at once, each with its place."""

import json
from collections.abc import Iterable, Iterator
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request

from machpay_gateway.admin.problems import ProblemError
from machpay_gateway.admin.requests import RequestModel, ValidationContext
from machpay_gateway.admin.responses import FieldProblem
from machpay_gateway.core.text import mask_secrets
from machpay_gateway.web.bodies import media_types, read_limited_body

T = TypeVar("T", bound=RequestModel)

MAX_BODY_BYTES = 262_144  # 1,000 networks and 50 pairs in any script come to less than 200 KB
_MAX_ERRORS = 100  # in one response
_LONGEST_PLACE = 100


async def read_body(request: Request, limit: int = MAX_BODY_BYTES) -> bytes:
    """Return the raw body. Raises ProblemError if it is too large, or is not declared as JSON."""
    try:
        body = await read_limited_body(request, limit)
    except ClientDisconnect:
        raise ProblemError("malformed_body", "The body ended early.") from None
    if body is None:
        raise ProblemError("body_too_large", f"Send at most {limit} bytes.")
    if body and media_types(request) != ["application/json"]:
        raise ProblemError("unsupported_media_type", "Send the body as Content-Type: application/json.")
    return body


def parse_body(body: bytes, model: type[T], context: ValidationContext) -> T:
    """Return *body* as a *model*. No body counts as an empty object. Raises ProblemError."""
    body = body or b"{}"
    try:
        parsed = model.model_validate_json(body, context=context)
    except ValidationError as exc:
        details = _details(exc)
        if details[0]["type"] == "json_invalid":
            raise ProblemError("malformed_body", details[0]["msg"]) from None
        raise _invalid_fields(_field_problems(details)) from None
    if repeated := list(_repeated_places(_members(body)))[:_MAX_ERRORS]:
        raise _repeated_problem(repeated)
    return parsed


def parse_query(query: QueryParams, model: type[T]) -> T:
    """Return *query* as a *model*. Raises ProblemError."""
    if repeated := sorted({name for name in query if len(query.getlist(name)) > 1}):
        raise _repeated_problem([("query", name) for name in repeated[:_MAX_ERRORS]])
    try:
        return model.model_validate_strings(dict(query))
    except ValidationError as exc:
        details = _details(exc)
    raise _invalid_fields(_field_problems(details, "query"))


def invalid_field(place: str, reason: str) -> ProblemError:
    """Return the problem of one invalid field."""
    return _invalid_fields([{"place": place, "reason": reason}])


class _Members(list[tuple[str, object]]):
    """The members of an object as sent. A name may occur more than once."""


def _members(body: bytes) -> object:
    # Numbers stay text: Python refuses to parse those with thousands of digits.
    return json.loads(body, object_pairs_hook=_Members, parse_int=str, parse_float=str)


def _repeated_places(value: object, place: tuple[int | str, ...] = ()) -> Iterator[tuple[int | str, ...]]:
    """Yield the place of each member whose name occurs earlier in the same object.

    RFC 8259 §4 does not define which of the two counts: another program that parses the body may use the other one.
    """
    if not isinstance(value, list):
        return
    names: set[int | str] = set()
    for name, inner in value if isinstance(value, _Members) else enumerate(value):
        if name in names:
            yield (*place, name)
        names.add(name)
        yield from _repeated_places(inner, (*place, name))


def _repeated_problem(repeated: list[tuple[int | str, ...]]) -> ProblemError:
    return _invalid_fields([{"place": _place(place), "reason": "is given more than once."} for place in repeated])


def _details(error: ValidationError) -> list[ErrorDetails]:
    # Without the input: it may be a secret in the wrong field.
    return error.errors(include_url=False, include_context=False, include_input=False)


def _field_problems(details: list[ErrorDetails], *prefix: str) -> Iterator[FieldProblem]:
    for detail in details[:_MAX_ERRORS]:
        yield {"place": _place((*prefix, *detail["loc"])), "reason": detail["msg"]}


def _place(location: tuple[int | str, ...]) -> str:
    place = ".".join(str(part) for part in location if part != "[key]") or "body"
    return mask_secrets(place if len(place) <= _LONGEST_PLACE else f"{place[:_LONGEST_PLACE]}…")


def _invalid_fields(problems: Iterable[FieldProblem]) -> ProblemError:
    return ProblemError("invalid_fields", "Nothing was changed: see `errors`.", list(problems))
