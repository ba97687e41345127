"""A response that is read while it arrives.

Generated from `_async` by generate.py: edit it there.
"""

from collections.abc import Iterator
from types import TracebackType
from typing import Self

import httpx2

from machpay._call import Call
from machpay._rate_limit import RateLimit
from machpay._response import Response
from machpay._retry import failed_attempt
from machpay._server_sent_events import EventParser, LineSplitter, ServerSentEvent


class Stream:
    """An open response. Close it, or use it in a `with` statement: it holds a connection.

    *response* has the status and the headers, and no body.
    """

    def __init__(self, http_response: httpx2.Response, response: Response, call: Call, address: str) -> None:
        self.response = response
        self._http_response = http_response
        self._call = call
        self._address = address

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return self.response.is_success

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.response.status

    @property
    def headers(self) -> httpx2.Headers:
        """The headers of the response."""
        return self.response.headers

    @property
    def request_id(self) -> str | None:
        """The server's id of the request, for questions to support."""
        return self.response.request_id

    @property
    def rate_limit(self) -> RateLimit | None:
        """The limits that the request counted against."""
        return self.response.rate_limit

    def iter_bytes(self) -> Iterator[bytes]:
        """Yield the body in chunks as they arrive. Raises APIConnectionError if it breaks off."""
        try:
            for chunk in self._http_response.iter_bytes():
                yield chunk
        except httpx2.RequestError as exc:
            raise failed_attempt(self._call, self._address, exc).error from exc

    def iter_lines(self) -> Iterator[str]:
        """Yield the lines of the body, without their ends."""
        lines = LineSplitter()
        for chunk in self.iter_bytes():
            for line in lines.feed(chunk):
                yield line
        for line in lines.end():
            yield line

    def iter_events(self) -> Iterator[ServerSentEvent]:
        """Yield the events of a `text/event-stream`."""
        events = EventParser()
        for line in self.iter_lines():
            if (event := events.feed(line)) is not None:
                yield event

    def close(self) -> None:
        """Release the connection. What has not arrived yet is dropped."""
        self._http_response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(status={self.status})"
