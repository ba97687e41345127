"""An upstream that reads by another parser than ours, h11, and takes nothing that is not well-formed."""

import asyncio
from dataclasses import dataclass, field

import h11

Lines = list[tuple[bytes, bytes]]

# What the gateway says by itself, and what concerns one connection alone: the rest is the client's.
_OURS = frozenset(
    b"host forwarded via authorization connection keep-alive te transfer-encoding content-length x-request-id "
    b"upgrade".split()
)


@dataclass
class Seen:
    """A request as the upstream has read it. *lines* have their names as they came."""

    method: bytes
    target: bytes
    lines: Lines
    body: bytes = b""
    trailers: Lines = field(default_factory=list)

    @property
    def passed(self) -> Lines:
        """The fields that are the client's."""
        return [(name, value) for name, value in self.lines if not is_ours(name)]

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of a field by its *name* in lower case."""
        return [value for field_name, value in self.lines if field_name.lower() == name]

    @property
    def id(self) -> bytes:
        """The request's id, as the gateway's log has it."""
        (value,) = self.values(b"x-request-id")
        return value


class Reading:
    """What comes over one connection, cut into requests. Raises h11.RemoteProtocolError for what is not well-formed."""

    def __init__(self) -> None:
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=64 * 1024)
        self._seen: Seen | None = None

    @property
    def is_within(self) -> bool:
        """Whether a request has begun and not ended."""
        return self._seen is not None

    @property
    def is_over(self) -> bool:
        """Whether the connection takes no more requests."""
        return self._connection.our_state not in {h11.IDLE, h11.SEND_RESPONSE}

    def take(self, data: bytes) -> None:
        """Take what came; b"" is the end."""
        self._connection.receive_data(data)

    def next(self) -> Seen | None:
        """Return the next request that is there whole."""
        while not self.is_over:
            event = self._connection.next_event()
            if isinstance(event, h11.Request):
                self._seen = Seen(event.method, event.target, event.headers.raw_items())
            elif isinstance(event, h11.Data) and self._seen is not None:
                self._seen.body += event.data
            elif isinstance(event, h11.EndOfMessage) and self._seen is not None:
                seen, self._seen = self._seen, None
                seen.trailers = event.headers.raw_items()
                return seen
            else:
                break
        return None

    def go_on(self) -> bytes:
        """Return a 100 where one is waited for."""
        if not self._connection.they_are_waiting_for_100_continue:
            return b""
        return self._connection.send(h11.InformationalResponse(status_code=100, headers=[])) or b""

    def answer(self, body: bytes) -> bytes:
        """Return an answer to the request that was last returned."""
        events = [
            h11.Response(status_code=200, headers=[(b"Content-Length", b"%d" % len(body))]),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ]
        answer = b"".join(self._connection.send(event) or b"" for event in events)
        if self._connection.our_state is h11.DONE:
            self._connection.start_next_cycle()
        return answer


@dataclass
class Strict:
    """A handler for `Upstream` that answers with what it was asked for.

    *faults* are what could not be read; *unfinished* counts requests without their end.
    """

    requests: list[Seen] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    unfinished: int = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reading = Reading()
        while not reading.is_over:
            data = await reader.read(65536)
            if not data:
                self.unfinished += reading.is_within
                return
            reading.take(data)
            try:
                while (seen := reading.next()) is not None:
                    self.requests.append(seen)
                    writer.write(reading.answer(b"" if seen.method == b"HEAD" else seen.target))
            except h11.RemoteProtocolError as exc:
                self.faults.append(str(exc))
                return
            writer.write(reading.go_on())


def read_all(raw: bytes) -> list[Seen]:
    """Return all requests in *raw*, as far as they are whole. Raises h11.RemoteProtocolError."""
    reading, requests = Reading(), []
    reading.take(raw)
    while (seen := reading.next()) is not None:
        requests.append(seen)
        reading.answer(b"" if seen.method == b"HEAD" else b"ok")
    return requests


def is_ours(name: bytes) -> bool:
    """Tell whether a field's *name* is one that the gateway writes, or reads and keeps."""
    name = name.lower().replace(b"_", b"-")
    return name in _OURS or name.startswith((b"x-machpay-", b"x-forwarded-"))
