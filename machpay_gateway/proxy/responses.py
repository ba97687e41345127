"""Responses as bytes: an upstream's response with the gateway's own headers, and refusals."""

from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from math import ceil
from time import time
from typing import NamedTuple

from machpay_gateway.core.brand import Brand
from machpay_gateway.core.decision.challenge import BEARER, Challenge
from machpay_gateway.core.decision.decision import Denied
from machpay_gateway.core.decision.principal import Anonymous, Principal
from machpay_gateway.core.decision.problem import problem_for
from machpay_gateway.core.limits.admission import Admitted
from machpay_gateway.proxy.heads import ResponseHead
from machpay_gateway.web.headers import Headers, limit_headers, refusal_headers, response_headers
from machpay_gateway.web.problems import problem_response

NO_CONTENT = 204
_NO_HEADERS: Headers = []


def gateway_lines(
    principal: Principal | Anonymous | None,
    admission: Admitted | None,
    request_id: bytes,
    legacy: bool,  # noqa: FBT001
) -> bytes:
    """Return the header lines that the gateway adds to a response: none if *principal* is None.

    The control plane, which has no principal here, adds its own.
    """
    if principal is None:
        return b""
    if legacy or admission is None or not admission.plan.left_format:
        return b"".join(b"%b: %b\r\n" % field for field in response_headers(admission, request_id, legacy))
    # The same as `response_headers`, inlined because it runs for nearly every request.
    _, levels, plan, _ = admission
    if plan.is_simple:
        left, resets_in, slots_left = levels
        field = plan.left_format % (left, ceil(resets_in) or 1, slots_left)
    else:
        field = plan.header(levels)
    name, policy = plan.policy_field
    return b"x-request-id: %b\r\n%b: %b\r\nratelimit: %b\r\n" % (request_id, name, policy, field)


class OwnResponse(NamedTuple):
    """A whole response of the gateway's own. *body* is empty in one to a HEAD request."""

    status: int
    reason: bytes
    headers: Headers
    body: bytes


def interim_head(response: ResponseHead) -> bytes:
    """Return the head of an interim (1xx) *response* as the client gets it."""
    return response.start + b"\r\n"


def switching_head(response: ResponseHead, start: bytes, added: bytes) -> bytes:
    """Return the head of a 101 *response* with its own lines in *start* and the gateway's in *added*."""
    switch = b"Connection: Upgrade\r\nUpgrade: %b\r\n\r\n" % (response.upgrade or b"")
    return start + response.via + added + switch


def refusal(
    denied: Denied,
    request_id: bytes,
    brand: Brand,
    *,
    legacy: bool,
    is_head: bool = False,
    admission: Admitted | None = None,
    challenge: Challenge = BEARER,
    cors: Headers = _NO_HEADERS,
) -> OwnResponse:
    """Return the response for *denied*.

    If it was refused after its *admission*, the response has the quota of that. *challenge* says where credentials are
    read from; *cors* are the headers of CORS.
    """
    problem = problem_for(denied, request_id, brand, challenge)
    if admission is None:
        added = refusal_headers(denied, legacy=legacy)
    else:
        added = limit_headers(admission.plan, admission.levels, legacy=legacy)
    headers, body = problem_response(problem, [*added, *cors])
    return OwnResponse(problem.status, str(problem.body["title"]).encode(), headers, b"" if is_head else body)


def options_response(headers: Headers, *, status: HTTPStatus = HTTPStatus.NO_CONTENT) -> OwnResponse:
    """Return the response to a CORS preflight, or to `OPTIONS *`, which has these *headers*."""
    return OwnResponse(status, status.phrase.encode(), headers, b"")


def own_response_bytes(response: OwnResponse, *, minor: bool, closes: bool) -> bytes:
    """Return *response* for a client of HTTP/1.1 or, without *minor*, of 1.0, whose connection *closes* after it."""
    lines = [b"HTTP/1.1 %d %b" % (response.status, response.reason)]
    lines += (b"%b: %b" % field for field in response.headers)
    lines.append(date_line(int(time())))
    if closes:
        lines.append(b"Connection: close")
    elif not minor:
        lines.append(b"Connection: keep-alive")
    return b"\r\n".join((*lines, b"", response.body))


@lru_cache(maxsize=1)
def date_line(now: int) -> bytes:
    """Return the header line Date at *now*, without its CR LF."""
    return b"Date: %b" % formatdate(now, usegmt=True).encode()
