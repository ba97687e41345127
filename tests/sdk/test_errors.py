import inspect
import json
import pickle
import re

import httpx2
import machpay
import pytest
from machpay import errors
from machpay._response import Response


def answer(status: int, problem: object = None, **headers: str) -> Response:
    body = problem if isinstance(problem, bytes) else json.dumps(problem or {}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, httpx2.Headers(named), body)


@pytest.mark.parametrize(
    "status, expected",
    [
        (302, machpay.APIStatusError),
        (400, machpay.BadRequestError),
        (401, machpay.AuthenticationError),
        (402, machpay.APIStatusError),
        (403, machpay.PermissionDeniedError),
        (404, machpay.NotFoundError),
        (409, machpay.ConflictError),
        (412, machpay.PreconditionFailedError),
        (422, machpay.UnprocessableEntityError),
        (429, machpay.RateLimitError),
        (500, machpay.InternalServerError),
        (503, machpay.InternalServerError),
        (599, machpay.InternalServerError),
    ],
)
def test_each_status_has_its_class(status: int, expected: type[machpay.APIStatusError]) -> None:
    assert type(errors.error_for(answer(status))) is expected


@pytest.mark.parametrize(
    "status, code, expected",
    [
        (409, "key_limit_reached", machpay.KeyLimitError),
        (409, "conflict", machpay.ConflictError),
        (409, ["key_limit_reached"], machpay.ConflictError),
        (403, "key_limit_reached", machpay.PermissionDeniedError),
    ],
)
def test_too_many_keys_are_a_conflict_of_their_own(
    status: int, code: object, expected: type[machpay.APIStatusError]
) -> None:
    error = errors.error_for(answer(status, {"title": "Too many keys", "code": code}))
    assert type(error) is expected
    assert issubclass(machpay.KeyLimitError, machpay.ConflictError)
    assert type(pickle.loads(pickle.dumps(error))) is expected  # noqa: S301 - our own


PROBLEM = {
    "type": "https://docs.machpay.xyz/problems/insufficient_scope",
    "title": "Insufficient scope",
    "status": 403,
    "detail": "The credentials lack a scope that this needs.",
    "code": "insufficient_scope",
    "request_id": "req-9",
    "required_scopes": ["keys:manage"],
}


def test_an_error_carries_what_the_problem_says() -> None:
    error = errors.error_for(answer(403, PROBLEM, x_request_id="req-9", ratelimit='"minute";r=1'))
    assert isinstance(error, machpay.PermissionDeniedError)
    members = {name: getattr(error, name) for name in ("type", "title", "detail", "code")}
    assert members == {name: PROBLEM[name] for name in members}
    assert (error.status, error.request_id, error.required_scopes) == (403, "req-9", ("keys:manage",))
    assert error.headers["X-Request-Id"] == "req-9"
    assert error.rate_limit is not None
    assert error.rate_limit["minute"].remaining == 1


@pytest.mark.parametrize(
    "response, expected",
    [
        (
            answer(403, PROBLEM),
            f"403 Insufficient scope. {PROBLEM['detail']} Required: keys:manage. (request req-9)",
        ),
        (answer(502, b"<html>\n<h1>nope</h1>"), "502 Bad Gateway."),
        (answer(404, b"[1, 2]", x_request_id="r"), "404 Not Found. (request r)"),
        (answer(499), "499 Unknown status."),
        (answer(400, {"title": "Bad", "detail": "two\nlines\x1b[31m"}), "400 Bad. two lines [31m."),
        (answer(400, {"title": "Bad", "detail": 7}), "400 Bad."),
        (answer(429, {"title": "Slow down"}, retry_after="12"), "429 Slow down. Retry in 12 s."),
        (
            answer(422, {"title": "Invalid", "errors": [{"place": "name", "reason": "too long"}]}),
            "422 Invalid. name: too long.",
        ),
        (answer(400, {"title": "x" * 999}), f"400 {'x' * 300}…"),
    ],
)
def test_a_message_is_one_helpful_line(response: Response, expected: str) -> None:
    assert str(errors.error_for(response)) == expected


def test_validation_errors_tell_place_and_reason() -> None:
    error = errors.error_for(answer(422, {"errors": [{"place": "name", "reason": "too long"}, "junk"]}))
    assert isinstance(error, machpay.UnprocessableEntityError)
    assert error.errors == ({"place": "name", "reason": "too long"},)


@pytest.mark.parametrize(
    "problem, headers, expected",
    [
        ({"retry_after": 5}, {"retry_after": "12"}, 12.0),  # the header is what the retries went by
        ({"retry_after": 5}, {}, 5.0),
        ({"retry_after": "5"}, {}, None),
        ({}, {}, None),
    ],
)
def test_a_rate_limit_error_tells_when_to_ask_again(
    problem: dict[str, object], headers: dict[str, str], expected: float | None
) -> None:
    error = errors.error_for(answer(429, {**problem, "violated_policies": ["minute"]}, **headers))
    assert isinstance(error, machpay.RateLimitError)
    assert (error.retry_after, error.violated_policies) == (expected, ("minute",))


def test_an_error_survives_pickling() -> None:
    error = errors.error_for(answer(403, PROBLEM, x_request_id="req-9"))
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - its own
    assert (type(copy), str(copy), copy.code, copy.headers) == (type(error), str(error), error.code, error.headers)


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    drawn = re.findall(r"^ *[*x+] (\w+)", errors.__doc__ or "", re.MULTILINE)
    classes = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__]
    assert sorted(drawn) == sorted(cls.__name__ for cls in classes)
    assert set(drawn) <= set(machpay.__all__)
    assert all(issubclass(cls, machpay.MachPayError) for cls in classes)
