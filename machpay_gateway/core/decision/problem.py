"""Responses to refused requests: one table from reason to status, title, challenge and WebSocket close code.

The body is application/problem+json (RFC 9457). All bad credentials get the same response, so that callers cannot tell
an unknown key from a revoked one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from machpay_gateway.core.decision.credential import PROOF_ALGORITHMS
from machpay_gateway.core.decision.decision import Denied
from machpay_gateway.core.decision.reason import Reason

TYPE_BASE = "https://docs.machpay.xyz/problems/"
REALM = "machpay"
_NO_ERROR = ""


@dataclass(frozen=True, slots=True)
class ProblemType:
    """The response for one reason. *error* is RFC 6750's code: None is no challenge, "" a challenge without a code."""

    status: int
    title: str
    detail: str
    close_code: int
    error: str | None = None


# Close codes: 1008 is RFC 6455's policy violation, 1013 (IANA) says to try again later; 44xx and 45xx are the
# status in the range that applications may use (RFC 6455 §7.4.2).
PROBLEMS: Mapping[Reason, ProblemType] = {
    # RFC 6750 §3.1: a request without credentials gets no error code, only the challenge.
    Reason.MISSING_CREDENTIALS: ProblemType(
        401, "Credentials required", "Send an API key or a token as `Authorization: Bearer …`.", 4401, _NO_ERROR
    ),
    Reason.MALFORMED_REQUEST: ProblemType(
        400,
        "Malformed request",
        "The path or the Authorization header is malformed or ambiguous.",
        4400,
        "invalid_request",
    ),
    Reason.INVALID_CREDENTIALS: ProblemType(
        401, "Invalid credentials", "The credentials are not valid.", 4401, "invalid_token"
    ),
    Reason.INVALID_PROOF: ProblemType(
        401, "Invalid proof", "The DPoP proof is missing or not valid.", 4401, "invalid_dpop_proof"
    ),
    Reason.INSUFFICIENT_SCOPE: ProblemType(
        403, "Insufficient scope", "The credentials lack a scope that this needs.", 4403, "insufficient_scope"
    ),
    Reason.ADDRESS_NOT_ALLOWED: ProblemType(
        403, "Address not allowed", "These credentials may not be used from this address.", 4403
    ),
    Reason.WRONG_ENVIRONMENT: ProblemType(
        403, "Wrong environment", "Credentials of this environment are not accepted here.", 4403
    ),
    Reason.FORBIDDEN: ProblemType(403, "Forbidden", "The application does not allow this request.", 4403),
    Reason.ROUTE_NOT_FOUND: ProblemType(404, "Not found", "There is nothing at this path for this method.", 4404),
    Reason.RATE_LIMITED: ProblemType(
        429, "Rate limit exceeded", "A limit on requests is reached: see `violated_policies`.", 4429
    ),
    Reason.CONCURRENCY_LIMITED: ProblemType(
        429, "Too many concurrent requests", "Too many requests are in flight: see `violated_policies`.", 4429
    ),
    Reason.TOO_MANY_FAILURES: ProblemType(
        429, "Too many failures", "Too many invalid credentials came from this address.", 4429
    ),
    Reason.UNAVAILABLE: ProblemType(503, "Temporarily unavailable", "The request cannot be decided now.", 1013),
    Reason.INVALID_MESSAGE: ProblemType(400, "Invalid message", "The request is not well-formed HTTP/1.1.", 4400),
    Reason.NOT_IMPLEMENTED: ProblemType(
        501, "Not implemented", "This method or transfer coding is not served here.", 4501
    ),
    Reason.HEAD_TOO_LARGE: ProblemType(431, "Header fields too large", "The head of the request is too large.", 4431),
    Reason.BODY_TOO_LARGE: ProblemType(413, "Content too large", "The body of the request is too large.", 4413),
    Reason.REQUEST_TIMEOUT: ProblemType(408, "Request timeout", "The request did not arrive in time.", 4408),
    Reason.UPSTREAM_UNAVAILABLE: ProblemType(502, "Bad gateway", "The upstream did not answer as it should.", 4502),
    Reason.UPSTREAM_TIMEOUT: ProblemType(504, "Gateway timeout", "The upstream did not answer in time.", 4504),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """A response to a refused request: *headers* to add to the usual ones, and *body*, a JSON object."""

    status: int
    close_code: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: Mapping[str, object]


def problem_for(denied: Denied, request_id: bytes) -> Problem:
    """Return the response to a *denied* request."""
    row = PROBLEMS[denied.reason]
    body = problem_body(str(denied.reason), row.status, row.title, denied.message or row.detail, request_id)
    headers: list[tuple[bytes, bytes]] = []
    if row.error is not None:
        headers.append((b"www-authenticate", challenge_for(row, denied.missing)))
    if denied.missing:
        body["required_scopes"] = list(denied.missing)
    if denied.exceeded is not None:
        body["violated_policies"] = list(denied.exceeded.policies)
    if denied.retry_after is not None:
        body["retry_after"] = whole_seconds(denied.retry_after)
        headers.append((b"retry-after", b"%d" % whole_seconds(denied.retry_after)))
    return Problem(row.status, row.close_code, tuple(headers), body)


def problem_body(code: str, status: int, title: str, detail: str, request_id: bytes) -> dict[str, object]:
    """Return the members that every problem has (RFC 9457 §3.1), and our own two, `code` and `request_id`."""
    return {
        "type": TYPE_BASE + code,
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id.decode(),
    }


def challenge_for(row: ProblemType, scopes: tuple[str, ...]) -> bytes:
    """Return the WWW-Authenticate value of *row* (RFC 6750 §3, RFC 9449 §7.1)."""
    is_proof = row.error == "invalid_dpop_proof"
    parts = [f'DPoP realm="{REALM}", algs="{" ".join(PROOF_ALGORITHMS)}"' if is_proof else f'Bearer realm="{REALM}"']
    if row.error:
        parts.append(f'error="{row.error}"')
        parts.append(f'error_description="{row.detail.replace(chr(96), "")}"')
    if scopes:
        parts.append(f'scope="{" ".join(scopes)}"')
    return ", ".join(parts).encode("ascii")


def whole_seconds(seconds: float) -> int:
    """Return *seconds* rounded up, and at least 1: an earlier retry would be refused again."""
    return max(1, math.ceil(seconds))
