"""Attempts at a call, and whether and when it is retried: no clock, sleep or randomness."""

from dataclasses import dataclass

import httpx2

from machpay._call import Call
from machpay._credential import Authorization
from machpay._options import Options
from machpay._response import Response
from machpay.errors import APIConnectionError, APITimeoutError

_RETRYABLE = frozenset({408, 429, 500, 502, 503, 504})
_TOO_MANY = 429  # refused, so the request had no effect
_CONFLICT = 409  # retryable only if the server says so: usually the conflict remains
_MIN_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS = 0.5, 8.0
# Longer waits are for the application: they would block its thread. The gateway asks for 61 s after a burst, which is
# a window of a minute and the second that it rounds up to.
_MAX_RETRY_AFTER_SECONDS = 120.0
_MAX_JITTER = 0.25  # of Retry-After
_NOT_SENT_ERRORS = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_PERMANENT_ERRORS = (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol, httpx2.DecodingError)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a call. It ends at *deadline*, in seconds of the monotonic clock."""

    call: Call
    authorization: Authorization
    number: int
    address: str
    started_at: float
    deadline: float

    @property
    def url(self) -> str:
        """The address of the request, without its query."""
        return self.address + self.call.path


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """An attempt without a response."""

    error: APIConnectionError
    cause: Exception
    is_transient: bool

    @property
    def is_unsent(self) -> bool:
        """Whether the server cannot have received any part of the request."""
        return isinstance(self.cause, _NOT_SENT_ERRORS)


Outcome = Response | FailedAttempt


def failed_attempt(call: Call, origin: str, cause: Exception) -> FailedAttempt:
    """Return the failed attempt at *call*, with the error to raise for *cause*."""
    what = f"{call.method} {call.path} at {origin}"
    if isinstance(cause, httpx2.TimeoutException):
        kind = type(cause).__name__
        return FailedAttempt(APITimeoutError(f"{what} got no response in time ({kind})."), cause, is_transient=True)
    reason = " ".join(str(cause).split()) or type(cause).__name__
    return FailedAttempt(
        APIConnectionError(f"{what} got no response: {reason}"), cause, not isinstance(cause, _PERMANENT_ERRORS)
    )


def wait_before_retry(
    call: Call,
    outcome: Outcome,
    options: Options,
    *,
    retries: int,
    elapsed: float,
    draw: float,
    received_for: float | None = None,
) -> float | None:
    """Return the seconds to wait before the next attempt at *call*, or None to return this *outcome*.

    *retries* counts the retries so far. *elapsed* is in seconds since the start of the call. *draw* is from [0, 1).
    *received_for* is in seconds since the start of the first attempt that the server may have received, if any.
    """
    if retries >= options.max_retries or (call.needs_idempotency_key and not _had_no_effect(outcome)):
        return None
    if isinstance(outcome, FailedAttempt):
        wait = back_off(retries, draw) if outcome.is_transient else None
    else:
        wait = _wait_after(outcome, retries, draw)
    left = options.deadline - elapsed
    if received_for is not None:
        left = min(left, call.repeatable_seconds - received_for)
    if wait is None or wait >= left:
        return None
    if isinstance(outcome, Response) and outcome.retry_after is not None:
        wait += _jitter(wait, left - wait, draw)
    return wait


def back_off(retries: int, draw: float) -> float:
    """Return an exponential backoff with full jitter, so that clients that failed together do not retry together."""
    return draw * min(_MAX_BACKOFF_SECONDS, _MIN_BACKOFF_SECONDS * 2.0 ** min(retries, 10))


def _wait_after(response: Response, retries: int, draw: float) -> float | None:
    retry_after = response.retry_after
    if not _is_retryable(response) or (retry_after is not None and retry_after > _MAX_RETRY_AFTER_SECONDS):
        return None
    return back_off(retries, draw) if retry_after is None else retry_after


def _jitter(wait: float, left: float, draw: float) -> float:
    """Return what a server's *wait* is prolonged by, so that all that it refused at once do not return at once."""
    longest = min(_MAX_BACKOFF_SECONDS, max(_MIN_BACKOFF_SECONDS, wait * _MAX_JITTER))
    return (1.0 - draw) * min(longest, left / 2)


def _had_no_effect(outcome: Outcome) -> bool:
    """Return whether the server cannot have performed the call."""
    return outcome.is_unsent if isinstance(outcome, FailedAttempt) else outcome.status == _TOO_MANY


def _is_retryable(response: Response) -> bool:
    advice = response.headers.get("x-should-retry")
    if advice == "false":
        return False
    if response.status == _CONFLICT:
        return advice == "true" or response.retry_after is not None
    return response.status in _RETRYABLE
