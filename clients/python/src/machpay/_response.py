"""The HTTP response that every result and every error has."""

import json
import re
from dataclasses import dataclass, field
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from machpay._rate_limit import RateLimit, rate_limit_from

_SECONDS = re.compile(r"[0-9]{1,10}")


@dataclass(frozen=True, slots=True)
class Response:
    """A response. *attempts* counts the requests that it took. *received_at* is in seconds since the epoch."""

    status: int
    headers: httpx2.Headers = field(repr=False, hash=False)
    body: bytes = field(default=b"", repr=False)  # may hold a new key's secret
    attempts: int = 1
    received_at: float = 0.0

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return self.status // 100 == 2  # noqa: PLR2004 - RFC 9110 §15.3: the class of a status is its first digit

    @property
    def text(self) -> str:
        """The body as text, decoded from the charset of its Content-Type, or from UTF-8."""
        charset = Message()
        charset["content-type"] = self.headers.get("content-type", "")
        try:
            return self.body.decode(charset.get_content_charset() or "utf-8", errors="replace")
        except LookupError:
            return self.body.decode(errors="replace")

    def json(self) -> Any:  # noqa: ANN401 - any JSON value
        """Return the body as a JSON value. Raises InvalidResponseError if it is not JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            from machpay.errors import InvalidResponseError  # noqa: PLC0415 - errors hold responses

            kind = self.headers.get("content-type", "of unknown type")
            raise InvalidResponseError(f"The response is not JSON but {kind} (status {self.status}).", self) from None

    @property
    def request_id(self) -> str | None:
        """The server's id of the request, for questions to support."""
        return self.headers.get("x-request-id")

    @property
    def rate_limit(self) -> RateLimit | None:
        """The limits that the request counted against."""
        return rate_limit_from(self.headers.get("ratelimit-policy"), self.headers.get("ratelimit"))

    @property
    def retry_after(self) -> float | None:
        """The seconds to wait before a retry, or None if Retry-After is missing or malformed."""
        raw = self.headers.get("retry-after", "").strip()
        if _SECONDS.fullmatch(raw):
            return float(raw)
        until = _moment(raw)
        if until is None:
            return None
        # Relative to the server's own clock if it sends Date: the local clock may be minutes off.
        server_time = _moment(self.headers.get("date", ""))
        return max(0.0, until - (self.received_at if server_time is None else server_time))


def _moment(http_date: str) -> float | None:
    """Return *http_date* (RFC 9110 §5.6.7) in seconds since the epoch."""
    try:
        parsed = parsedate_to_datetime(http_date)
    except (ValueError, TypeError, OverflowError):
        return None
    return None if parsed.tzinfo is None else parsed.timestamp()
