"""Answers as bytes: an upstream's with our fields added, and our own refusals."""

from email.utils import formatdate
from functools import lru_cache
from math import ceil
from time import time

from machpay_gateway.core.decision.decision import Denied
from machpay_gateway.core.decision.principal import Anonymous, Principal
from machpay_gateway.core.decision.problem import problem_for
from machpay_gateway.core.limits.admission import Admitted
from machpay_gateway.proxy.heads import AnswerHead
from machpay_gateway.web.headers import answer_headers, quota_headers, refusal_headers
from machpay_gateway.web.problems import problem_answer

_NO_CONTENT = 204


def own_lines(
    principal: Principal | Anonymous | None, grant: Admitted | None, request_id: bytes, *, legacy: bool
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


def answer_head(answer: AnswerHead, own: bytes, *, minor: bool, closes: bool, is_open: bool) -> bytes:
    """Return the head of *answer* with our *own* lines, as a client of HTTP/1.1 or, without *minor*, of 1.0 gets it.

    It is the connection's last if that *closes*, and its length is not known when it *is_open*.
    """
    lines = b"\r\n"
    if not answer.is_dated:  # RFC 9110 §6.6.1: whoever forwards it adds when it came
        own += _date(int(time())) + b"\r\n"
    if is_open:
        lines = b"Transfer-Encoding: chunked\r\n\r\n" if minor else b"\r\n"
    elif answer.length is not None and answer.status != _NO_CONTENT:
        # Where there is no body, it is what a GET would have had (RFC 9110 §9.3.2), or what has not changed (§15.4.5).
        lines = b"Content-Length: %d\r\n\r\n" % answer.length
    if closes:
        lines = b"Connection: close\r\n" + lines
    elif not minor:
        lines = b"Connection: keep-alive\r\n" + lines
    return answer.start + answer.via + own + lines


def interim_head(answer: AnswerHead) -> bytes:
    """Return the head of a 1xx *answer* as the client gets it."""
    return answer.start + b"\r\n"


def switching_head(answer: AnswerHead, own: bytes) -> bytes:
    """Return the head of a 101 *answer* with our *own* lines."""
    switch = b"Connection: Upgrade\r\nUpgrade: %b\r\n\r\n" % (answer.upgrade or b"")
    return answer.start + answer.via + own + switch


def refusal(
    denied: Denied,
    request_id: bytes,
    *,
    legacy: bool,
    closes: bool,
    minor: bool = True,
    is_head: bool = False,
    grant: Admitted | None = None,
) -> tuple[bytes, int]:
    """Return the whole answer that tells of *denied*, and its status.

    *closes* says that it is the connection's last; that it is not needs no word where the client speaks HTTP/1.1, as
    *minor* tells. A *grant* was given before the refusal, and its quota is told.
    """
    problem = problem_for(denied, request_id)
    added = refusal_headers(denied, legacy=legacy) if grant is None else quota_headers(grant, legacy=legacy)
    headers, body = problem_answer(problem, added)
    lines = [b"HTTP/1.1 %d %b" % (problem.status, str(problem.body["title"]).encode())]
    lines += (b"%b: %b" % field for field in headers)
    lines.append(_date(int(time())))
    if closes:
        lines.append(b"Connection: close")
    elif not minor:
        lines.append(b"Connection: keep-alive")
    return b"\r\n".join((*lines, b"", b"" if is_head else body)), problem.status


@lru_cache(maxsize=1)
def _date(now: int) -> bytes:
    return b"Date: %b" % formatdate(now, usegmt=True).encode()
