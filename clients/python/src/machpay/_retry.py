"""Whether a call is tried again, and after how long: arithmetic without a clock, a sleep or a die."""

from dataclasses import dataclass

import httpx2

from machpay._call import Call
from machpay._options import Options
from machpay._response import Response
from machpay.errors import APIConnectionError, APITimeoutError

_WORTH_RETRYING = frozenset({408, 429, 502, 503, 504})
_CONFLICT = 409  # worth it only when the server says so: usually the conflict is still there
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.5, 8.0
_LONGEST_ASKED_SECONDS = 60.0  # told to wait any longer, a person or a queue waits better than a blocked thread
_UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_OUR_OWN_FAULT = (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol, httpx2.DecodingError)


@dataclass(frozen=True, slots=True)
class Lost:
    """An attempt that brought no answer."""

    error: APIConnectionError
    cause: Exception
    is_passing: bool

    @property
    def is_unsent(self) -> bool:
        """Whether the server cannot have received any of it."""
        return isinstance(self.cause, _UNSENT)


Outcome = Response | Lost


def lost(call: Call, origin: str, cause: Exception) -> Lost:
    """Return what *cause* means for *call*."""
    what = f"{call.method} {call.path} at {origin}"
    if isinstance(cause, httpx2.TimeoutException):
        kind = type(cause).__name__
        return Lost(APITimeoutError(f"{what} was not answered in time ({kind})."), cause, is_passing=True)
    said = " ".join(str(cause).split()) or type(cause).__name__
    return Lost(APIConnectionError(f"{what} got no answer: {said}"), cause, not isinstance(cause, _OUR_OWN_FAULT))


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
    """Return the seconds to wait before trying *call* again, None when this *outcome* is the last.

    *retries* counts those made so far, *elapsed* is in seconds since the call began, *draw* is from [0, 1).
    *received_for* is in seconds since the first attempt that may have been received began, None without one.
    """
    if retries >= options.max_retries or call.needs_idempotency_key:
        return None
    if isinstance(outcome, Lost):
        wait = back_off(retries, draw) if outcome.is_passing else None
    else:
        wait = _wait_after(outcome, retries, draw)
    if wait is None or elapsed + wait >= options.deadline:
        return None
    if received_for is not None and received_for + wait >= call.repeatable_seconds:
        return None
    return wait


def back_off(retries: int, draw: float) -> float:
    """Return a wait with full jitter: whoever failed together does not come back together."""
    return draw * min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2.0 ** min(retries, 10))


def _wait_after(response: Response, retries: int, draw: float) -> float | None:
    asked = response.retry_after
    if not _is_worth_retrying(response, asked) or (asked is not None and asked > _LONGEST_ASKED_SECONDS):
        return None
    return back_off(retries, draw) if asked is None else asked


def _is_worth_retrying(response: Response, asked: float | None) -> bool:
    advice = response.headers.get("x-should-retry")
    if advice == "false":
        return False
    if response.status == _CONFLICT:
        return advice == "true" or asked is not None
    return response.status in _WORTH_RETRYING
