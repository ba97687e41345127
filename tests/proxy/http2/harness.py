"""A client of HTTP/2 that a test can let send any frame, and what came of each of its streams."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError
from hyperframe.frame import Frame

from tests.proxy.harness import PATIENCE_SECONDS, Rig

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
Fields = list[tuple[str, str]]
_CONFIGURATION = H2Configuration(
    client_side=True,
    header_encoding="latin-1",
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
    validate_inbound_headers=True,
)


@dataclass
class Result:
    """What came of a stream: the last response's fields, its body and its trailers, or the code of a reset."""

    fields: Fields = field(default_factory=list)
    interim: list[Fields] = field(default_factory=list)
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    has_ended: bool = False
    reset: ErrorCodes | int | None = None

    @property
    def status(self) -> int:
        """The status, 0 while there is none."""
        return int(dict(self.fields).get(":status", "0"))

    def values(self, name: str) -> list[str]:
        """Return the values of the fields with this *name*."""
        return [value for other, value in self.fields if other == name]


@dataclass
class Http2Client:
    """A connection to the proxy. *goaways* are the codes and last ids that it sent."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    takes_content: bool = True  # or leaves the windows as they are
    state: H2Connection = field(default_factory=lambda: H2Connection(_CONFIGURATION))
    results: dict[int, Result] = field(default_factory=dict)
    goaways: list[tuple[int, int]] = field(default_factory=list)
    is_closed: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def flush(self) -> None:
        """Send what the state machine has."""
        self.writer.write(self.state.data_to_send())

    def frames(self, *frames: Frame) -> None:
        """Send *frames* as they are."""
        self.flush()
        self.writer.write(b"".join(frame.serialize() for frame in frames))

    def raw_request(self, fields: Fields, *, is_last: bool = True) -> int:
        """Send *fields*, which need not be valid, and return their stream."""
        stream_id = self.state.get_next_available_stream_id()
        self.results[stream_id] = Result()
        self.state.send_headers(stream_id, fields, end_stream=is_last)
        self.flush()
        return stream_id

    def request(
        self,
        method: str = "GET",
        path: str = "/public/x",
        *fields: tuple[str, str],
        secret: str | None = None,
        body: bytes | None = None,
        is_open: bool = False,
    ) -> int:
        """Send a request and return its stream; *is_open* leaves out its end."""
        head = [(":method", method), (":scheme", "http"), (":authority", "api.test"), (":path", path), *fields]
        if secret is not None:
            head.append(("authorization", f"Bearer {secret}"))
        stream_id = self.state.get_next_available_stream_id()
        self.results[stream_id] = Result()
        self.state.send_headers(stream_id, head, end_stream=body is None and not is_open)
        if body is not None:
            self.state.send_data(stream_id, body, end_stream=not is_open)
        self.flush()
        return stream_id

    def data(self, stream_id: int, data: bytes, *, is_last: bool = False) -> None:
        """Send content."""
        self.state.send_data(stream_id, data, end_stream=is_last)
        self.flush()

    async def fill(self, stream_id: int, *, most: int) -> int:
        """Send content until the windows stay closed, or *most* bytes are sent; return how many were."""
        sent = 0
        while sent < most:
            try:
                async with asyncio.timeout(0.3):
                    await self.until(lambda: self.state.local_flow_control_window(stream_id) > 0)
            except TimeoutError:
                break
            size = min(self.state.local_flow_control_window(stream_id), 16_384)
            self.data(stream_id, b"y" * size)
            sent += size
        return sent

    async def until(self, claim: Callable[[], object]) -> None:
        """Wait until *claim* holds."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not claim():
                self._changed.clear()
                await self._changed.wait()

    async def result(self, stream_id: int) -> Result:
        """Return what came of a stream, once that has ended."""
        result = self.results[stream_id]
        await self.until(lambda: result.has_ended or result.reset is not None or self.is_closed)
        return result

    async def fetch(self, *arguments: object, **options: object) -> Result:
        """Send a request, as by `request`, and return what came of it."""
        return await self.result(self.request(*arguments, **options))  # type: ignore[arg-type]

    async def closed(self) -> list[tuple[int, int]]:
        """Return the GOAWAY frames that came before the connection was closed."""
        await self.until(lambda: self.is_closed)
        return self.goaways

    async def read(self) -> None:
        """Take all that comes."""
        rest = b""
        while data := await self.reader.read(65536):
            rest = self._frames_received(rest + data)
            self._changed.set()
        self.is_closed = True
        self._changed.set()

    def _frames_received(self, data: bytes) -> bytes:
        """Handle the frames in *data*, and return what is left of it. GOAWAY would end the state machine."""
        while len(data) >= 9 and len(data) >= (end := 9 + int.from_bytes(data[:3])):
            frame, data = data[:end], data[end:]
            if frame[3] == 7:
                self.goaways.append((int.from_bytes(frame[13:17]), int.from_bytes(frame[9:13])))
                continue
            with contextlib.suppress(ProtocolError):  # a test may have sent what its state machine does not know of
                for event in self.state.receive_data(frame):
                    self._event_received(event)
        self.flush()
        return data

    def _event_received(self, event: Event) -> None:
        if isinstance(event, ConnectionTerminated):
            return
        result = self.results.setdefault(getattr(event, "stream_id", 0) or 0, Result())
        if isinstance(event, ResponseReceived):
            result.fields = list(event.headers or ())  # type: ignore[arg-type]
        elif isinstance(event, InformationalResponseReceived):
            result.interim.append(list(event.headers or ()))  # type: ignore[arg-type]
        elif isinstance(event, TrailersReceived):
            result.trailers = list(event.headers or ())  # type: ignore[arg-type]
        elif isinstance(event, DataReceived):
            result.body += bytes(event.data or b"")
            if self.takes_content:
                self.state.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
        elif isinstance(event, StreamEnded):
            result.has_ended = True
        elif isinstance(event, StreamReset):
            result.reset = event.error_code


@asynccontextmanager
async def http2(rig: Rig, *, takes_content: bool = True) -> AsyncIterator[Http2Client]:
    """Connect to the proxy of *rig* and speak HTTP/2."""
    async with rig.client() as raw:
        client = Http2Client(raw.reader, raw.writer, takes_content)
        client.state.initiate_connection()
        client.flush()
        reading = asyncio.create_task(client.read())
        try:
            yield client
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await reading
