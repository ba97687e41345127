"""Upstreams that speak HTTP/2: `h2c://` and `h2://`."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, StreamReset, TrailersReceived
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.network.upstream import parse_origin
from machpay_gateway.proxy.health_probe import probe_status
from tests.certificates import Authority
from tests.proxy.harness import Rig, fields_of, proxied, request
from tests.proxy.http2.harness import http2

Fields = list[tuple[str, str]]
_CONFIGURATION = H2Configuration(client_side=False, header_encoding="latin-1")
OK = [(":status", "200")]


@dataclass
class Call:
    """A request that has come."""

    connection: "Connection" = field(repr=False)
    stream_id: int
    fields: dict[str, str]
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    has_ended: bool = False
    reset: int | None = None

    def respond(self, fields: Fields, body: bytes = b"", trailers: Fields | None = None) -> None:
        """Send a whole response."""
        state = self.connection.state
        state.send_headers(self.stream_id, fields, end_stream=not body and trailers is None)
        if body:
            state.send_data(self.stream_id, body, end_stream=trailers is None)
        if trailers is not None:
            state.send_headers(self.stream_id, trailers, end_stream=True)
        self.connection.flush()


@dataclass
class Connection:
    writer: asyncio.StreamWriter
    state: H2Connection
    calls: dict[int, Call] = field(default_factory=dict, repr=False)

    def flush(self) -> None:
        self.writer.write(self.state.data_to_send())


@dataclass
class Http2Server:
    """A server that calls *handler* with each request that has ended, or that has begun if *answers_early*."""

    handler: Callable[[Call], None]
    answers_early: bool = False
    takes_content: bool = True
    max_streams: int = 100
    calls: list[Call] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(writer, H2Connection(_CONFIGURATION))
        self.connections.append(connection)
        settings = {SettingCodes.MAX_CONCURRENT_STREAMS: self.max_streams}
        connection.state.local_settings = Settings(client=False, initial_values=settings)
        connection.state.initiate_connection()
        connection.flush()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                for event in connection.state.receive_data(data):
                    self._event_received(connection, event)
                connection.flush()
        writer.close()

    def _event_received(self, connection: Connection, event: Event) -> None:
        call = connection.calls.get(getattr(event, "stream_id", 0) or 0)
        if isinstance(event, RequestReceived):
            call = Call(connection, event.stream_id or 0, dict(event.headers or ()))  # type: ignore[arg-type]
            connection.calls[call.stream_id] = call
            self.calls.append(call)
            if self.answers_early:
                self.handler(call)
        elif call is None:
            return
        elif isinstance(event, DataReceived):
            call.body += bytes(event.data or b"")
            if self.takes_content:
                connection.state.acknowledge_received_data(event.flow_controlled_length or 0, call.stream_id)
        elif isinstance(event, TrailersReceived):
            call.trailers = list(event.headers or ())  # type: ignore[arg-type]
        elif isinstance(event, StreamEnded):
            call.has_ended = True
            if not self.answers_early:
                self.handler(call)
        elif isinstance(event, StreamReset):
            call.reset = int(event.error_code or 0)


@asynccontextmanager
async def served(
    handler: Callable[[Call], None],
    proxy: dict[str, Any] | None = None,
    **options: Any,  # noqa: ANN401
) -> AsyncIterator[tuple[Rig, Http2Server]]:
    upstream = Http2Server(handler, **options)
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        async with proxied(upstreams={"live": f"h2c://127.0.0.1:{upstream.port}"}, proxy=proxy or {}) as rig:
            yield rig, upstream
    finally:
        server.close()
        for connection in upstream.connections:
            connection.writer.close()


async def test_a_request_of_http11_becomes_a_stream() -> None:
    def handler(call: Call) -> None:
        call.respond([*OK, ("content-length", "3"), ("set-cookie", "a=1"), ("set-cookie", "b=2")], b"abc")

    async with served(handler) as (rig, upstream), rig.client() as client:
        await client.send(request("POST", "/public/x?q=1", "X-Mine: 1", "Content-Length: 4", body=b"body"))
        status, head, body = await client.answer()
        assert (status, body, fields_of(head)["set-cookie"]) == (200, b"abc", ["a=1", "b=2"])
        [call] = upstream.calls
        assert (call.fields[":method"], call.fields[":path"], call.fields[":scheme"]) == (
            "POST",
            "/public/x?q=1",
            "http",
        )
        assert (call.fields[":authority"], call.fields["x-mine"], call.body) == ("api.test", "1", b"body")
        assert not call.fields.keys() & {"host", "connection", "transfer-encoding"}
        assert call.fields["content-length"] == "4"


async def test_chunks_and_trailers_go_through() -> None:
    def handler(call: Call) -> None:
        call.respond(OK, b"ok", [("x-sum", "7")])

    chunked = b"3\r\nabc\r\n2\r\nde\r\n0\r\nX-Check: 9\r\n\r\n"
    async with served(handler) as (rig, upstream), http2(rig) as client:
        sent = request("POST", "/public/x", "Transfer-Encoding: chunked", "Connection: close", body=chunked)
        answer = await rig.exchange(sent)
        assert answer.endswith(b"\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n")
        assert (upstream.calls[0].body, upstream.calls[0].trailers) == (b"abcde", [("x-check", "9")])
        result = await client.fetch("POST", body=b"x")
        assert (result.body, result.trailers) == (b"ok", [("x-sum", "7")])


async def test_streams_share_a_connection_until_it_is_full() -> None:
    waiting: list[Call] = []

    async with served(waiting.append, max_streams=10) as (rig, upstream), http2(rig) as client:
        streams = [client.request() for _ in range(25)]
        await rig.until(lambda: len(waiting) == 25)
        assert len(upstream.connections) == 3
        for call in waiting:
            call.respond([*OK, ("content-length", "2")], b"ok")
        assert {(await client.result(stream)).status for stream in streams} == {200}
        assert rig.proxy.router.pools["live"].servers[0].opened == 3


async def test_a_refused_stream_is_sent_again() -> None:
    def handler(call: Call) -> None:
        if len(upstream.calls) == 1:
            call.connection.state.reset_stream(call.stream_id, ErrorCodes.REFUSED_STREAM)
            call.connection.flush()
        else:
            call.respond(OK, b"ok")

    async with served(handler) as (rig, upstream), http2(rig) as client:
        result = await client.fetch("POST", body=b"abc")
        assert (result.status, [call.body for call in upstream.calls]) == (200, [b"abc", b"abc"])


async def test_a_goaway_moves_what_was_not_begun_and_lets_the_rest_end() -> None:
    def handler(call: Call) -> None:
        if len(upstream.calls) == 2:
            frame = GoAwayFrame(0, last_stream_id=1)
            call.connection.flush()
            call.connection.writer.write(frame.serialize())
        elif len(upstream.calls) == 3:
            call.respond(OK, b"new")
            upstream.calls[0].respond(OK, b"old")

    async with served(handler) as (rig, upstream), http2(rig) as client:
        first = client.request("POST", body=b"1")
        await rig.until(lambda: upstream.calls)
        second = client.request("POST", body=b"2")
        assert [(await client.result(stream)).body for stream in (first, second)] == [b"old", b"new"]
        assert len(upstream.connections) == 2


async def test_a_lost_connection_fails_its_requests_and_not_the_next() -> None:
    def handler(call: Call) -> None:
        if len(upstream.calls) == 1:
            call.connection.writer.transport.abort()
        else:
            call.respond(OK, b"ok")

    async with served(handler) as (rig, upstream), http2(rig) as client:
        assert (await client.fetch("POST", body=b"1")).status == 502
        assert (await client.fetch("POST", body=b"2")).status == 200
        assert len(upstream.calls) == 2


async def test_a_client_that_goes_resets_the_stream() -> None:
    async with served(lambda _: None) as (rig, upstream):
        async with http2(rig) as client:
            client.request()
            await rig.until(lambda: upstream.calls)
        await rig.until(lambda: upstream.calls[0].reset == ErrorCodes.CANCEL)
        assert not upstream.connections[0].writer.is_closing()


async def test_a_response_may_come_before_the_request_has_ended() -> None:
    async with (
        served(lambda call: call.respond(OK, b"no"), answers_early=True) as (rig, upstream),
        http2(rig) as client,
    ):
        for _ in range(3):
            assert (await client.result(client.request("POST", is_open=True))).body == b"no"
        await rig.until(lambda: [call.reset for call in upstream.calls] == [ErrorCodes.CANCEL] * 3)
        assert len(upstream.connections) == 1


async def test_windows_apply_backpressure_both_ways() -> None:
    async with served(lambda _: None, takes_content=False, answers_early=True) as (rig, upstream), http2(rig) as client:
        stream = client.request("POST", is_open=True)
        sent = await client.fill(stream, most=5_000_000)
        assert 65_535 < sent < 500_000
        assert len(upstream.calls[0].body) == 65_535


async def test_content_shorter_than_its_length_breaks_off() -> None:
    def handler(call: Call) -> None:
        state = call.connection.state
        state.send_headers(call.stream_id, [*OK, ("content-length", "9")])
        state.send_data(call.stream_id, b"abc")
        state.reset_stream(call.stream_id, ErrorCodes.INTERNAL_ERROR)
        call.connection.flush()

    async with served(handler) as (rig, _), http2(rig) as client:
        result = await client.fetch()
        assert (result.status, result.body, result.reset) == (200, b"abc", ErrorCodes.INTERNAL_ERROR)


@pytest.mark.parametrize("offers, status", [(["h2"], 200), (["http/1.1"], 502), ([], 502)])
async def test_over_tls_both_agree_on_http2(tmp_path: Path, offers: list[str], status: int) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("upstream", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    context.set_alpn_protocols(offers)
    upstream = Http2Server(lambda call: call.respond([*OK, ("content-length", "2")], b"ok"))
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, ssl=context)
    url = f"h2://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with proxied(upstreams={"live": url, "tls_ca": str(authority.path)}) as rig, http2(rig) as client:
        assert (await client.fetch()).status == status
        assert [call.fields[":scheme"] for call in upstream.calls] == (["https"] if status == 200 else [])
    server.close()


@pytest.mark.parametrize("length, body", [("2", b"abc"), ("4", b"abc"), ("x", b"abc")])
async def test_content_of_another_length_fails_no_other_request(length: str, body: bytes) -> None:
    waiting: list[Call] = []

    def handler(call: Call) -> None:
        if call.fields[":path"] == "/public/wait":
            waiting.append(call)
        else:
            call.respond([*OK, ("content-length", length)], body)

    async with served(handler) as (rig, upstream), http2(rig) as client:
        other = client.request("GET", "/public/wait")
        await rig.until(lambda: waiting)
        result = await client.fetch()
        assert (result.status, result.body) in {(200, b"ab"), (200, b"abc"), (502, result.body)}
        assert result.has_ended is (length != "4")
        waiting[0].respond(OK, b"ok")
        assert (await client.result(other)).body == b"ok"
        assert len(upstream.connections) == 1


async def test_a_health_check_is_a_stream() -> None:
    async with served(lambda call: call.respond([(":status", "503")])) as (rig, upstream):
        server = rig.proxy.router.pools["live"].servers[0]
        assert [await probe_status(server, "/healthz", 5) for _ in range(2)] == [503, 503]
        assert [call.fields[":path"] for call in upstream.calls] == ["/healthz", "/healthz"]
        assert len(upstream.connections) == 1


async def test_a_websocket_needs_an_upstream_of_http11() -> None:
    async with served(lambda call: call.respond([(":status", "426")])) as (rig, upstream), rig.client() as client:
        await client.send(request("GET", "/public/x", "Connection: Upgrade", "Upgrade: websocket"))
        assert b" 426 " in await client.head()
        assert not upstream.calls[0].fields.keys() & {"upgrade", "connection"}


async def test_a_server_of_http11_is_not_mistaken() -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with proxied(upstreams={"live": f"h2c://127.0.0.1:{port}"}) as rig, http2(rig) as client:
        assert (await client.fetch()).status == 502
    server.close()


@pytest.mark.parametrize(
    "url, port, has_tls", [("h2c://a", 80, False), ("h2://a", 443, True), ("h2://[::1]:9", 9, True)]
)
def test_addresses_of_http2(url: str, port: int, has_tls: bool) -> None:  # noqa: FBT001 - a table's column
    origin = parse_origin(url)
    assert (origin.port, origin.has_tls, origin.is_http2) == (port, has_tls, True)


def test_other_schemes_are_refused() -> None:
    with pytest.raises(ConfigurationError):
        parse_origin("h3://a")
