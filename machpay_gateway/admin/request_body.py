"""From a request to what it says, or to every mistake in it at once, each with its place."""

import json
from collections.abc import Iterator
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request

from machpay_gateway.admin.fields import ValidationContext
from machpay_gateway.admin.problems import ProblemError
from machpay_gateway.admin.requests import RequestModel
from machpay_gateway.admin.responses import FieldProblem
from machpay_gateway.core.text import masked
from machpay_gateway.web.bodies import declared_types, whole_body

T = TypeVar("T", bound=RequestModel)

MAX_BODY_BYTES = 262_144  # 1,000 networks and 50 pairs in any script come to less than 200 KB
_MAX_TOLD = 100  # mistakes in one answer
_LONGEST_PLACE = 100


async def body_bytes(request: Request, limit: int = MAX_BODY_BYTES) -> bytes:
    """Return the body. Raises ProblemError when it is too large, or is not declared as JSON."""
    try:
        body = await whole_body(request, limit)
    except ClientDisconnect:
        raise ProblemError("malformed_body", "The body ended before its time.") from None
    if body is None:
        raise ProblemError("body_too_large", f"Send at most {limit} bytes.")
    if body and declared_types(request) != ["application/json"]:
        raise ProblemError("unsupported_media_type", "Send the body as Content-Type: application/json.")
    return body


def read_body(body: bytes, model: type[T], readings: ValidationContext) -> T:
    """Return *body* as a *model*; no body at all is an empty object. Raises ProblemError."""
    body = body or b"{}"
    try:
        sent = model.model_validate_json(body, context=readings)
    except ValidationError as exc:
        mistakes = _details(exc)
        if mistakes[0]["type"] == "json_invalid":
            raise ProblemError("malformed_body", mistakes[0]["msg"]) from None
        raise _invalid(_told(mistakes, "")) from None
    if repeated := list(_repeated(_members(body)))[:_MAX_TOLD]:
        raise _twice(repeated)
    return sent


def read_query(query: QueryParams, model: type[T]) -> T:
    """Return *query* as a *model*. Raises ProblemError."""
    if repeated := sorted({name for name in query if len(query.getlist(name)) > 1}):
        raise _twice([("query", name) for name in repeated[:_MAX_TOLD]])
    try:
        return model.model_validate_strings(dict(query))
    except ValidationError as exc:
        mistakes = _details(exc)
    raise _invalid(_told(mistakes, "query"))


def invalid(place: str, reason: str) -> ProblemError:
    """Return the problem of one field that is not valid."""
    return _invalid([{"place": place, "reason": reason}])


class _Members(list[tuple[str, object]]):
    """An object as it was sent: a name may stand in it more than once."""


def _members(body: bytes) -> object:
    # Numbers stay text: Python refuses to read those of thousands of digits.
    return json.loads(body, object_pairs_hook=_Members, parse_int=str, parse_float=str)


def _repeated(value: object, place: tuple[int | str, ...] = ()) -> Iterator[tuple[int | str, ...]]:
    """Yield the place of each member whose name stood in its object before.

    RFC 8259 §4 leaves open which of the two holds: whatever reads the body next may go by the other one.
    """
    if not isinstance(value, list):
        return
    seen: set[int | str] = set()
    for name, inner in value if isinstance(value, _Members) else enumerate(value):
        if name in seen:
            yield (*place, name)
        seen.add(name)
        yield from _repeated(inner, (*place, name))


def _twice(repeated: list[tuple[int | str, ...]]) -> ProblemError:
    return _invalid([{"place": _place(place), "reason": "is given more than once."} for place in repeated])


def _details(error: ValidationError) -> list[ErrorDetails]:
    # Not the input: it may be a secret that was sent in the wrong place.
    return error.errors(include_url=False, include_context=False, include_input=False)


def _told(mistakes: list[ErrorDetails], part: str) -> Iterator[FieldProblem]:
    for mistake in mistakes[:_MAX_TOLD]:
        yield {"place": _place((*filter(None, [part]), *mistake["loc"])), "reason": mistake["msg"]}


def _place(location: tuple[int | str, ...]) -> str:
    place = ".".join(str(part) for part in location if part != "[key]") or "body"
    return masked(place if len(place) <= _LONGEST_PLACE else f"{place[:_LONGEST_PLACE]}…")


def _invalid(mistakes: Iterator[FieldProblem] | list[FieldProblem]) -> ProblemError:
    return ProblemError("invalid_fields", "Nothing was changed: see `errors`.", list(mistakes))
