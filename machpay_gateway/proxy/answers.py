"""Answers as bytes: an upstream's with our fields added, and our own refusals."""

from math import ceil

from machpay_gateway.core.admission import Granted
from machpay_gateway.core.decision import Denied
from machpay_gateway.core.principal import Anonymous, Principal
from machpay_gateway.core.problem import problem_for
from machpay_gateway.proxy.forwarding import PSEUDONYM
from machpay_gateway.proxy.framing import AnswerHead, RequestHead
from machpay_gateway.web.headers import answer_headers, quota_headers, refusal_headers
from machpay_gateway.web.problems import problem_answer

_VIA = (b"Via: 1.0 " + PSEUDONYM, b"Via: 1.1 " + PSEUDONYM)
_NO_CONTENT = 204


def own_lines(
    principal: Principal | Anonymous | None, grant: Granted | None, request_id: bytes, *, legacy: bool
) -> bytes:
    """Return the header lines that are added to an answer, none where the control plane did: *principal* is None."""
    if principal is None:
        return b""
    if legacy or grant is None:
        return b"".join(b"%b: %b\r\n" % field for field in answer_headers(principal, grant, request_id, legacy))
    # As `answer_headers` has it, written out: this is done for every request.
    _, left, resets_in, slots_left, tier = grant
    field = tier.left_format % (left, ceil(resets_in) or 1, slots_left)
    name, policy = tier.policy_field
    return b"x-request-id: %b\r\n%b: %b\r\nratelimit: %b\r\n" % (request_id, name, policy, field)


def answer_head(answer: AnswerHead, request: RequestHead, own: bytes, *, is_open: bool) -> bytes:
    """Return the head of *answer* to *request* with our *own* lines; its length is not known when it *is_open*."""
    if is_open:
        lines = b"Transfer-Encoding: chunked\r\n" if request.minor else b""
    elif answer.length is None or answer.status == _NO_CONTENT:
        lines = b""
    else:
        # Where there is no body, it is what a GET would have had (RFC 9110 §9.3.2), or what has not changed (§15.4.5).
        lines = b"Content-Length: %d\r\n" % answer.length
    if request.closes:
        lines += b"Connection: close\r\n"
    elif not request.minor:
        lines += b"Connection: keep-alive\r\n"
    return b"\r\n".join((b"HTTP/1.1 " + answer.status_line, *answer.lines, _VIA[answer.minor], own + lines + b"\r\n"))


def interim_head(answer: AnswerHead) -> bytes:
    """Return the head of a 1xx *answer* as the client gets it."""
    return b"\r\n".join((b"HTTP/1.1 " + answer.status_line, *answer.lines, b"\r\n"))


def switching_head(answer: AnswerHead, own: bytes) -> bytes:
    """Return the head of a 101 *answer* with our *own* lines."""
    switch = b"Connection: Upgrade\r\nUpgrade: %b\r\n\r\n" % (answer.upgrade or b"")
    return b"\r\n".join((b"HTTP/1.1 " + answer.status_line, *answer.lines, _VIA[answer.minor], own + switch))


def refusal(
    denied: Denied,
    request_id: bytes,
    *,
    legacy: bool,
    closes: bool,
    is_head: bool = False,
    grant: Granted | None = None,
) -> tuple[bytes, int]:
    """Return the whole answer that tells of *denied*, and its status.

    *closes* says that it is the connection's last. A *grant* was given before the refusal, and its quota is told.
    """
    problem = problem_for(denied, request_id)
    added = refusal_headers(denied, legacy=legacy) if grant is None else quota_headers(grant, legacy=legacy)
    headers, body = problem_answer(problem, added)
    lines = [b"HTTP/1.1 %d %b" % (problem.status, str(problem.body["title"]).encode())]
    lines += (b"%b: %b" % field for field in headers)
    if closes:
        lines.append(b"Connection: close")
    return b"\r\n".join((*lines, b"", b"" if is_head else body)), problem.status
