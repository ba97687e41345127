"""Lines and server-sent events in a body of bytes (HTML Living Standard, §9.2.6)."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSentEvent:
    """An event of a stream. *id* is the last one that the stream has sent, *retry* is in milliseconds."""

    event: str = "message"
    data: str = ""
    id: str | None = None
    retry: int | None = None

    def json(self) -> Any:  # noqa: ANN401 - any JSON value
        """Return the data as a JSON value. Raises ValueError if it is not JSON."""
        return json.loads(self.data)


class LineSplitter:
    """Splits chunks of bytes into lines, wherever the chunks end."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[str]:
        """Yield the lines that end in *chunk*."""
        self._rest += chunk
        position = 0
        for end in _LINE_END.finditer(self._rest):
            if end[0] == b"\r" and end.end() == len(self._rest):
                break  # its line feed may come with the next chunk
            yield self._rest[position : end.start()].decode(errors="replace")
            position = end.end()
        self._rest = self._rest[position:]

    def end(self) -> Iterator[str]:
        """Yield the last line, if it has no end."""
        if self._rest:
            yield self._rest.removesuffix(b"\r").decode(errors="replace")
        self._rest = b""


class EventParser:
    """Puts events together from lines."""

    def __init__(self) -> None:
        self._data: list[str] = []
        self._event = ""
        self._id: str | None = None
        self._retry: int | None = None

    def feed(self, line: str) -> ServerSentEvent | None:
        """Return the event that *line* ends, if it does."""
        if not line:
            return self._dispatch()
        name, _, value = line.removeprefix("\ufeff").partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self._retry = int(value)
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        data, event, retry = self._data, self._event, self._retry
        self._data, self._event, self._retry = [], "", None
        if not data:
            return None
        return ServerSentEvent(event=event or "message", data="\n".join(data), id=self._id, retry=retry)
