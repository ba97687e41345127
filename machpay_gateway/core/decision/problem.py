"""Responses to refused requests: one table from reason to status, title, challenge and WebSocket close code.

The body is application/problem+json (RFC 9457). All bad credentials get the same response, so that callers cannot tell
an unknown key from a revoked one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from machpay_gateway.core.brand import Brand
from machpay_gateway.core.decision.challenge import BEARER, Challenge
from machpay_gateway.core.decision.credential import PROOF_ALGORITHMS
from machpay_gateway.core.decision.decision import Denied
from machpay_gateway.core.decision.reason import Reason

_NO_ERROR = ""


@dataclass(frozen=True, slots=True)
class ProblemType:
    """The response for one reason. *error* is RFC 6750's code: None is no challenge, "" a challenge without a code.

    *advice* is what a caller can check, for the page about the problem.
    """

    status: int
    title: str
    detail: str
    close_code: int
    advice: str
    error: str | None = None


# Close codes: 1008 is RFC 6455's policy violation, 1013 (IANA) says to try again later; 44xx and 45xx are the
# status in the range that applications may use (RFC 6455 §7.4.2).
PROBLEMS: Mapping[Reason, ProblemType] = {
    # RFC 6750 §3.1: a request without credentials gets no error code, only the challenge.
    Reason.MISSING_CREDENTIALS: ProblemType(
        401,
        "Credentials required",
        BEARER.hint,
        4401,
        "Does the client send the header? Some clients drop it when they follow a redirect to another host.",
        _NO_ERROR,
    ),
    Reason.MALFORMED_REQUEST: ProblemType(
        400,
        "Malformed request",
        "The path or the Authorization header is malformed or ambiguous.",
        4400,
        "Send one Authorization header, with one scheme and one token. Encode the path once, without dot segments.",
        "invalid_request",
    ),
    # RFC 6750 §2: a token in more than one place is an invalid_request.
    Reason.CONFLICTING_CREDENTIALS: ProblemType(
        400,
        "Conflicting credentials",
        "The request has two different credentials: send one.",
        4400,
        "Compare what the client sends in its headers, in the URL and as a WebSocket's subprotocol.",
        "invalid_request",
    ),
    Reason.INVALID_CREDENTIALS: ProblemType(
        401,
        "Invalid credentials",
        "The credentials are not valid.",
        4401,
        "Is the key complete, not revoked and not expired? Is it a key of this API, and is a token for this API?",
        "invalid_token",
    ),
    Reason.INVALID_PROOF: ProblemType(
        401,
        "Invalid proof",
        "The DPoP proof is missing or not valid.",
        4401,
        "Sign a new proof for each request, with the key of the token, for this method and this URL.",
        "invalid_dpop_proof",
    ),
    Reason.INSUFFICIENT_SCOPE: ProblemType(
        403,
        "Insufficient scope",
        "The credentials lack a scope that this needs.",
        4403,
        "required_scopes lists what is required. Create a key with these scopes, or ask the user to allow them.",
        "insufficient_scope",
    ),
    Reason.ADDRESS_NOT_ALLOWED: ProblemType(
        403,
        "Address not allowed",
        "These credentials may not be used from this address.",
        4403,
        "The key has a list of networks. Add the address from which the request comes, or call from another one.",
    ),
    Reason.WRONG_ENVIRONMENT: ProblemType(
        403,
        "Wrong environment",
        "Credentials of this environment are not accepted here.",
        4403,
        "Use a live key where live data is served, and a test key in the sandbox.",
    ),
    Reason.CLIENT_CERTIFICATE_REQUIRED: ProblemType(
        403,
        "Client certificate required",
        "This needs a connection with a client certificate.",
        4403,
        "Connect over TLS with the certificate and the key that the operator of this API has given to you.",
    ),
    Reason.FORBIDDEN: ProblemType(
        403,
        "Forbidden",
        "The application does not allow this request.",
        4403,
        "The detail of the response says why. The operator of this API can tell you more.",
    ),
    Reason.ROUTE_NOT_FOUND: ProblemType(
        404,
        "Not found",
        "There is nothing at this path for this method.",
        4404,
        "Compare the method and the path with the documentation of this API.",
    ),
    Reason.RATE_LIMITED: ProblemType(
        429,
        "Rate limit exceeded",
        "A limit on requests is reached: see `violated_policies`.",
        4429,
        "Wait for the seconds in Retry-After. The RateLimit header of each response says how much is left.",
    ),
    Reason.CONCURRENCY_LIMITED: ProblemType(
        429,
        "Too many concurrent requests",
        "Too many requests are in flight: see `violated_policies`.",
        4429,
        "Send fewer requests at the same time. A slot is free again as soon as a response ends.",
    ),
    Reason.TOO_MANY_FAILURES: ProblemType(
        429,
        "Too many failures",
        "Too many invalid credentials came from this address.",
        4429,
        "Stop the client that sends a wrong key. Others behind the same address may be the cause. Then wait.",
    ),
    Reason.UNAVAILABLE: ProblemType(
        503,
        "Temporarily unavailable",
        "The request cannot be decided now.",
        1013,
        "Send the request again after the seconds in Retry-After. The status page of this API may say more.",
    ),
    Reason.INVALID_MESSAGE: ProblemType(
        400,
        "Invalid message",
        "The request is not well-formed HTTP/1.1.",
        4400,
        "The client, or a proxy before it, sends malformed HTTP. A current HTTP library does not.",
    ),
    Reason.NOT_IMPLEMENTED: ProblemType(
        501,
        "Not implemented",
        "This method or transfer coding is not served here.",
        4501,
        "Use another method, and no transfer coding other than chunked.",
    ),
    Reason.HEAD_TOO_LARGE: ProblemType(
        431,
        "Header fields too large",
        "The head of the request is too large.",
        4431,
        "Send fewer or shorter header fields. Cookies are the usual cause.",
    ),
    Reason.BODY_TOO_LARGE: ProblemType(
        413,
        "Content too large",
        "The body of the request is too large.",
        4413,
        "Send a smaller body, or several requests.",
    ),
    Reason.REQUEST_TIMEOUT: ProblemType(
        408,
        "Request timeout",
        "The request did not arrive in time.",
        4408,
        "Send the request without pauses. A slow connection is the usual cause, or a client that stopped.",
    ),
    Reason.UPSTREAM_UNAVAILABLE: ProblemType(
        502,
        "Bad gateway",
        "The upstream did not answer as it should.",
        4502,
        "Send the request again, if it is safe to repeat. The fault is behind the gateway.",
    ),
    Reason.UPSTREAM_TIMEOUT: ProblemType(
        504,
        "Gateway timeout",
        "The upstream did not answer in time.",
        4504,
        "The request may have taken effect: check before you send it again. The fault is behind the gateway.",
    ),
    Reason.UPSTREAM_OVERLOADED: ProblemType(
        503,
        "Overloaded",
        "Too many requests are in progress.",
        1013,
        "Send the request again after the seconds in Retry-After. It has had no effect.",
    ),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """A response to a refused request: *headers* to add to the usual ones, and *body*, a JSON object."""

    status: int
    close_code: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: Mapping[str, object]


def problem_for(denied: Denied, request_id: bytes, brand: Brand, challenge: Challenge = BEARER) -> Problem:
    """Return the response to a *denied* request, in the terms of *brand*.

    Its *challenge* depends on where credentials are read from.
    """
    row = PROBLEMS[denied.reason]
    detail = challenge.hint if denied.reason is Reason.MISSING_CREDENTIALS else denied.message or row.detail
    body = problem_body(str(denied.reason), row.status, row.title, detail, request_id, brand)
    headers: list[tuple[bytes, bytes]] = []
    if row.error is not None:
        headers.append((b"www-authenticate", challenge_for(row, denied.missing, brand.realm, challenge)))
    if denied.missing:
        body["required_scopes"] = list(denied.missing)
    if denied.exceeded is not None:
        body["violated_policies"] = list(denied.exceeded.policies)
    if denied.retry_after is not None:
        body["retry_after"] = whole_seconds(denied.retry_after)
        headers.append((b"retry-after", b"%d" % whole_seconds(denied.retry_after)))
    return Problem(row.status, row.close_code, tuple(headers), body)


def problem_body(  # noqa: PLR0917 - the members, in their order
    code: str, status: int, title: str, detail: str, request_id: bytes, brand: Brand
) -> dict[str, object]:
    """Return the members that every problem has (RFC 9457 §3.1), and our own two, `code` and `request_id`."""
    return {
        "type": brand.problem_type(code),
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id.decode(),
    }


def challenge_for(row: ProblemType, scopes: tuple[str, ...], realm: str, challenge: Challenge = BEARER) -> bytes:
    """Return the WWW-Authenticate value of *row* for *realm* (RFC 6750 §3, RFC 9449 §7.1)."""
    if row.error == "invalid_dpop_proof":
        parts = [f'DPoP realm="{realm}", algs="{" ".join(PROOF_ALGORITHMS)}"']
    else:
        parts = [f'{challenge.scheme} realm="{realm}"', *challenge.parameters]
    if row.error:
        parts.append(f'error="{row.error}"')
        parts.append(f'error_description="{row.detail.replace(chr(96), "")}"')
    if scopes:
        parts.append(f'scope="{" ".join(scopes)}"')
    return ", ".join(parts).encode("ascii")


def whole_seconds(seconds: float) -> int:
    """Return *seconds* rounded up, and at least 1: an earlier retry would be refused again."""
    return max(1, math.ceil(seconds))
