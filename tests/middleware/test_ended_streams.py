"""Streams and WebSockets end when the credential that opened them is no longer good, and others go on."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse as FastApiStream
from httpx2 import AsyncClient, RemoteProtocolError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route as Endpoint
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from machpay_gateway import Gateway, MachPayAuth, Route, Tier
from machpay_gateway.core.decision.credential import ApiKey, credential_of
from machpay_gateway.core.decision.decision import Denied
from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.core.jose.session import TYPE, session_claims
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.services.keys import Keys
from machpay_gateway.web import streams
from machpay_gateway.web.streams import OpenStream, StreamWatch
from tests.gateways import Guarded, guarded
from tests.oauth.harness import serving_oauth
from tests.servers import serving
from tests.waiting import PATIENCE_SECONDS, until

RULES = (
    Route("GET /public", public=True),
    Route("GET /free", scopes="account:read"),
    Route("GET /{kind}", scopes="skills:execute"),
)
TIERS = {"standard": Tier("1000/minute", 2), "enterprise": Tier("1000/minute", 2)}
EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
BYTES = (b"content-type", b"application/octet-stream")


@dataclass
class App:
    """An application that streams without end, by the path, and knows what became of each stream."""

    ended: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
            return
        try:
            await self._stream(scope["path"], receive, send)
        finally:
            self.ended += 1

    async def _stream(self, path: str, receive: Receive, send: Send) -> None:
        headers = {
            "/free": [(b"content-length", b"0")],
            "/chunked": [BYTES],
            "/counted": [BYTES, (b"content-length", b"100")],
        }.get(path, [EVENTS])
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if path == "/free":
            await send({"type": "http.response.body"})
            return
        if path != "/silent":
            await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        while path == "/stubborn":
            try:
                await asyncio.sleep(0.01)
                await send({"type": "http.response.body", "body": b":\n\n", "more_body": True})
            except asyncio.CancelledError:
                pass
        while (await receive())["type"] != "http.disconnect":
            pass


@dataclass
class Served:
    """A guarded application that uvicorn serves, and a gateway on the same database, as a command is."""

    guarded: MachPayAuth
    command: Gateway
    host: str

    async def key(self, **settings: Any) -> tuple[str, str]:  # noqa: ANN401 - as `Keys.create` has them
        account = await self.command.accounts.find("acme") or await self.command.accounts.create("acme", "standard")
        given = {"scopes": ["skills:execute", "account:read"], "environment": "live", **settings}
        record, secret = await self.command.keys.create(account.id, name="test", **given)
        return record.id, secret

    @property
    def open(self) -> int:
        return len(self.guarded._streams.open)  # noqa: SLF001 - nothing may be left in it


@contextmanager
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "CHECK_SECONDS", 0.05)
        yield


@asynccontextmanager
async def served(app: ASGIApp, folder: Path) -> AsyncIterator[Served]:
    """Serve *app* with streams that are checked twenty times a second."""
    database = f"sqlite:///{folder}/keys.db"
    with _quick():
        guarded = MachPayAuth(app, database=database, routes=RULES, unlisted_routes="deny", tiers=TIERS)
    async with Gateway(database=database, routes=RULES, tiers=TIERS) as command:
        with serving(guarded, log_config=None) as (host, port):
            yield Served(guarded, command, f"{host}:{port}")


@asynccontextmanager
async def stream(it: Served, path: str, secret: str | None) -> AsyncIterator[AsyncIterator[bytes]]:
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    async with (
        AsyncClient(timeout=PATIENCE_SECONDS) as client,
        client.stream("GET", f"http://{it.host}{path}", headers=headers) as response,
    ):
        assert response.status_code == 200
        yield response.aiter_bytes()


async def rest(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


async def revoke(keyring: Keys, key_id: str) -> None:
    await keyring.revoke(None, key_id)


async def expire(keyring: Keys, key_id: str) -> None:
    await keyring.update(None, key_id, expires_at=time.time() + 0.2)


async def take_scope(keyring: Keys, key_id: str) -> None:
    await keyring.update(None, key_id, scopes=["account:read"])


async def move(keyring: Keys, key_id: str) -> None:
    await keyring.update(None, key_id, allowed_ips=["192.0.2.1"])


@pytest.mark.parametrize("change", [revoke, expire, take_scope, move])
async def test_a_change_that_would_refuse_the_request_ends_its_stream(
    tmp_path: Path, change: Callable[[Keys, str], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    async with served(app, tmp_path) as it:
        key_id, secret = await it.key()
        async with stream(it, "/events", secret) as pieces:
            assert await anext(pieces) == b"data: 1\n\n"
            await change(it.command.keys, key_id)
            assert await rest(pieces) == b""  # an event stream ends whole: its client asks again in any case
        await until(lambda: not it.open and app.ended == 1)
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == []


@pytest.mark.parametrize("path", ["/chunked", "/counted"])
async def test_a_body_other_than_an_event_stream_ends_visibly_incomplete(
    tmp_path: Path, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    async with served(app, tmp_path) as it:
        key_id, secret = await it.key()
        async with stream(it, path, secret) as pieces:
            await anext(pieces)
            await it.command.keys.revoke(None, key_id)
            with pytest.raises(RemoteProtocolError):
                await rest(pieces)
        await until(lambda: not it.open and app.ended == 1)
    assert "Traceback" not in caplog.text
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("path", ["/silent", "/stubborn"])
async def test_silent_streams_and_applications_that_ignore_cancellation_end(tmp_path: Path, path: str) -> None:
    app = App()
    async with served(app, tmp_path) as it:
        key_id, secret = await it.key()
        async with stream(it, path, secret) as pieces:
            await it.command.keys.revoke(None, key_id)
            await rest(pieces)
        await until(lambda: not it.open and app.ended == 1)


async def test_streams_with_a_valid_credential_continue(tmp_path: Path) -> None:
    app = App()
    async with served(app, tmp_path) as it:
        key_id, secret = await it.key()
        await it.command.accounts.set_tier("acme", "enterprise")
        other_id, other = await it.key()
        async with (
            stream(it, "/events", secret) as good,
            stream(it, "/public", secret) as public,
            stream(it, "/public", None) as anonymous,
            stream(it, "/events", other) as revoked,
        ):
            for pieces in (good, public, anonymous, revoked):
                await anext(pieces)
            await it.command.accounts.set_tier("acme", "standard")
            await it.command.keys.update(None, key_id, name="renamed")
            await it.command.keys.revoke(None, other_id)
            await rest(revoked)  # by then the others were looked at, too
            await until(lambda: app.ended)
            assert (app.ended, it.open) == (1, 1)


async def test_a_stream_continues_while_the_key_store_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App()
    async with served(app, tmp_path) as it:
        key_id, secret = await it.key()
        async with stream(it, "/events", secret) as pieces:
            await anext(pieces)
            looked = 0

            async def away(*_: object) -> None:
                nonlocal looked
                looked += 1
                raise StoreUnavailable("key lookup")

            monkeypatch.setattr(it.guarded.gateway.store, "find_by_digests", away)
            it.guarded.gateway.key_cache.forget(key_id)
            await until(lambda: looked > 2)
            assert it.open == 1
            assert app.ended == 0


async def test_a_session_ends_with_its_key(tmp_path: Path) -> None:
    app = App()
    async with served(app, tmp_path) as it:
        key_id, secret = await it.key()
        principal = await it.command.key_cache.find(_presented(secret))
        assert isinstance(principal, Principal)
        claims = session_claims(
            principal, Scopes(frozenset({"skills:execute"})), seconds=900, token_id="session_1", now=time.time()
        )
        await it.command.signing.ensure()
        async with stream(it, "/events", await it.command.signing.sign(claims, TYPE)) as pieces:
            await anext(pieces)
            await it.command.keys.revoke(None, key_id)
            assert await rest(pieces) == b""


async def pieces_without_end() -> AsyncIterator[bytes]:
    while True:
        yield b"data: 1\n\n"
        await asyncio.sleep(0.01)


async def starlette_stream(_request: Request) -> Response:
    return StreamingResponse(pieces_without_end(), media_type="text/event-stream")


async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
    return await call_next(request)


def fastapi_app() -> ASGIApp:
    app = FastAPI()

    @app.get("/events")
    async def events() -> FastApiStream:
        return FastApiStream(pieces_without_end(), media_type="text/event-stream")

    return app


def starlette_app(*, between: bool) -> ASGIApp:
    middleware = [Middleware(BaseHTTPMiddleware, dispatch=pass_on)] if between else []
    return Starlette(routes=[Endpoint("/events", starlette_stream)], middleware=middleware)


@pytest.mark.parametrize(
    "app",
    [starlette_app(between=False), starlette_app(between=True), fastapi_app()],
    ids=["Starlette", "behind BaseHTTPMiddleware", "FastAPI"],
)
async def test_a_frameworks_stream_ends_without_log_lines(
    tmp_path: Path, app: ASGIApp, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(app, tmp_path) as it:
        key_id, secret = await it.key()
        async with stream(it, "/events", secret) as pieces:
            await anext(pieces)
            await it.command.keys.revoke(None, key_id)
            await rest(pieces)
        await until(lambda: not it.open)
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == []


async def received_without_end(socket: ClientConnection) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            assert await socket.recv() == "more"


@dataclass
class Sockets:
    """A WebSocket's endpoint that listens, only sends, or does neither; and what it heard."""

    received: list[Any] = field(default_factory=list)

    async def serve(self, socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("open")
        try:
            if socket.url.path == "/listens":
                while True:
                    self.received.append(await socket.receive())
                    if self.received[-1]["type"] == "websocket.disconnect":
                        return
            while socket.url.path == "/sends":
                await socket.send_text("more")
                await asyncio.sleep(0.01)
            await asyncio.Event().wait()
        finally:
            self.received.append("over")


@pytest.mark.parametrize(
    "path, change, code",
    [
        ("/listens", revoke, 4401),
        ("/listens", take_scope, 4403),
        ("/sends", revoke, 4401),
        ("/waits", revoke, 4401),
    ],
)
async def test_a_websocket_is_closed_by_the_code_of_the_refusal(  # noqa: PLR0917 - columns and fixtures
    tmp_path: Path,
    path: str,
    change: Callable[[Keys, str], Awaitable[None]],
    code: int,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "GRACE_SECONDS", 0.3)
    endpoint = Sockets()
    app = Starlette(routes=[WebSocketRoute("/{kind}", endpoint.serve)])
    async with served(app, tmp_path) as it:
        key_id, secret = await it.key()
        headers = {"Authorization": f"Bearer {secret}"}
        async with connect(f"ws://{it.host}{path}", additional_headers=headers) as socket:
            assert await socket.recv() == "open"
            await change(it.command.keys, key_id)
            with pytest.raises(ConnectionClosed) as closed:
                await received_without_end(socket)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == code
        await until(lambda: not it.open and "over" in endpoint.received)
    if path == "/listens":
        assert endpoint.received[0]["type"] == "websocket.disconnect"
    assert "Traceback" not in caplog.text
    assert not [record for record in caplog.records if record.exc_info]


def _presented(secret: str) -> ApiKey:
    credential = credential_of(secret.encode())
    assert isinstance(credential, ApiKey)
    return credential


async def test_an_apps_token_ends_with_its_grant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "CHECK_SECONDS", 0.05)
    async with serving_oauth() as rig:
        token = (await rig.tokens())["access_token"]
        guarded = Guarded(MachPayAuth(App(), gateway=rig.gateway), rig.gateway)
        sent = Sent(b"Bearer " + token.encode())
        task = asyncio.create_task(guarded.app(sent.scope, sent.receive, sent.send))
        await sent.began.wait()
        (grant,) = await rig.gateway.revocation.list(None)
        await rig.gateway.revocation.revoke_grant(None, grant)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await task
        assert sent.messages[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


@dataclass
class Sent:
    """A server's side of a request for `/who`, with what it is sent."""

    authorization: bytes
    path: str = "/who"
    messages: list[Message] = field(default_factory=list)
    began: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def scope(self) -> Scope:
        headers = [(b"authorization", self.authorization)]
        return {"type": "http", "method": "GET", "path": self.path, "headers": headers, "client": ("192.0.2.1", 1)}

    async def receive(self) -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: Message) -> None:
        self.messages.append(message)
        self.began.set()


async def test_an_ended_stream_releases_its_slot_and_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "CHECK_SECONDS", 0.05)
    async with guarded(App(), routes=RULES, tiers={"standard": Tier("1000/minute", 1)}) as api:
        key_id, secret = await api.key()
        sent = Sent(b"Bearer " + secret.encode(), "/chunked")
        task = asyncio.create_task(api.app(sent.scope, sent.receive, sent.send))
        await sent.began.wait()
        await api.gateway.keys.update(None, key_id, scopes=["account:read"])
        async with asyncio.timeout(PATIENCE_SECONDS):
            await task
        assert sent.messages[-1]["more_body"] is True  # the server sees that the response is not whole
        api.gateway.recorder.gather()
        counts = api.gateway.recorder.requests.counts
        assert [numbers for (name, _), numbers in counts.items() if name == "machpay_requests_total"] == [[1]]
        assert not task.cancelled()
        assert (await api.client(secret).get("/free")).status_code == 200


async def test_a_servers_own_cancellation_is_not_swallowed() -> None:
    async with guarded(App(), routes=RULES) as api:
        _, secret = await api.key()
        sent = Sent(b"Bearer " + secret.encode(), "/events")
        task = asyncio.create_task(api.app(sent.scope, sent.receive, sent.send))
        await sent.began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_background_work_after_a_response_is_not_canceled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "CHECK_SECONDS", 0.02)
    go_on = asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [EVENTS]})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await send({"type": "http.response.body"})
        await go_on.wait()

    async with guarded(app, routes=RULES) as api:
        key_id, secret = await api.key()
        sent = Sent(b"Bearer " + secret.encode(), "/events")
        task = asyncio.create_task(api.app(sent.scope, sent.receive, sent.send))
        await sent.began.wait()
        await api.gateway.keys.revoke(None, key_id)
        await asyncio.sleep(0.2)
        assert not task.done()
        go_on.set()
        await task


def test_each_event_loop_has_its_own_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As test clients do: one application, and a new event loop for each test, with streams left behind."""
    monkeypatch.setattr(streams, "CHECK_SECONDS", 0.02)
    refused = Denied(Reason.INVALID_CREDENTIALS, "revoked", RULES[2])

    async def check(*_: object) -> Denied:
        return refused

    guarded_app = MachPayAuth(App(), database="memory://", routes=RULES)
    watch = guarded_app._streams = StreamWatch(check)  # noqa: SLF001 - one that refuses all

    async def ended() -> bool:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        start = {"type": "http.response.start", "headers": [EVENTS]}
        facts = RequestFacts("GET", "/events", (), None, b"id")
        stream = OpenStream(start, facts=facts, route=RULES[2], lease=None, send=send)
        watch.add(stream, None)
        try:
            await asyncio.sleep(PATIENCE_SECONDS)
        except asyncio.CancelledError:
            return stream.explains(asyncio.CancelledError())
        return False  # and the stream stays behind

    for _ in range(2):
        assert asyncio.run(ended())
