"""gRPC through the proxy: grpcio on both sides."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc import aio

from machpay_gateway import Route, Tier
from tests.proxy.harness import Rig, proxied

ROUTES = (
    Route("POST /test.Echo/Public", public=True),
    Route("POST /test.Echo/{method}", scopes="skills:execute"),
)
TIERS = {"standard": Tier("100000/minute", 2000), "small": Tier("1/hour", 10)}
LARGE = 3_500_000


@dataclass
class Echo:
    """A server's methods, by the kind of their streams."""

    canceled: asyncio.Event
    metadata: dict[str, str | bytes]
    waiting: int = 0
    is_open: asyncio.Event | None = None

    async def unary(self, message: bytes, context: Any) -> bytes:  # noqa: ANN401
        self.metadata = dict(context.invocation_metadata())
        context.set_trailing_metadata((("x-trailer", "t"),))
        if message == b"fail":
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "ünüsable")
        if message == b"hang":
            try:
                await asyncio.sleep(60)
            finally:
                self.canceled.set()
        if message == b"wait":
            self.waiting += 1
            assert self.is_open is not None
            if self.waiting == 1000:
                self.is_open.set()
            await self.is_open.wait()
        return message

    async def server(self, message: bytes, _: Any) -> AsyncIterator[bytes]:  # noqa: ANN401
        for number in range(int(message)):
            yield b"%d" % number

    async def client(self, messages: AsyncIterator[bytes], _: Any) -> bytes:  # noqa: ANN401
        return b"%d" % sum([len(message) async for message in messages])

    async def bidirectional(self, messages: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:  # noqa: ANN401
        async for message in messages:
            yield message.upper()


@dataclass
class Rigged:
    rig: Rig
    echo: Echo
    channel: aio.Channel
    secret: str

    def stub(self, name: str, kind: str = "unary_unary") -> Callable[..., Any]:
        call = getattr(self.channel, kind)(f"/test.Echo/{name}")
        metadata = (("authorization", f"Bearer {self.secret}"),)
        return lambda *arguments, **options: call(*arguments, **({"metadata": metadata} | options))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def rigged() -> AsyncIterator[Rigged]:
    echo = Echo(asyncio.Event(), {}, is_open=asyncio.Event())
    server = aio.server(options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)])
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(echo.unary),
        "Public": grpc.unary_unary_rpc_method_handler(echo.unary),
        "Server": grpc.unary_stream_rpc_method_handler(echo.server),
        "Client": grpc.stream_unary_rpc_method_handler(echo.client),
        "Both": grpc.stream_stream_rpc_method_handler(echo.bidirectional),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    upstreams = {"live": f"h2c://127.0.0.1:{port}"}
    async with (
        proxied(upstreams=upstreams, routes=ROUTES, tiers=TIERS) as rig,
        aio.insecure_channel(f"127.0.0.1:{rig.port}", options=[("grpc.enable_retries", 0)]) as channel,
    ):
        yield Rigged(rig, echo, channel, await rig.secret())
    await server.stop(None)


async def test_a_unary_call(rigged: Rigged) -> None:
    call = rigged.stub("Unary")(b"abc")
    assert await call == b"abc"
    assert dict(await call.trailing_metadata()) == {"x-trailer": "t"}
    assert rigged.echo.metadata["x-machpay-scopes"] == "skills:execute"
    assert "authorization" not in rigged.echo.metadata
    assert await call.code() == grpc.StatusCode.OK


async def test_a_status_of_the_server_comes_through(rigged: Rigged) -> None:
    with pytest.raises(aio.AioRpcError) as raised:
        await rigged.stub("Unary")(b"fail")
    assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "ünüsable")


async def test_all_kinds_of_streams(rigged: Rigged) -> None:
    received = [message async for message in rigged.stub("Server", "unary_stream")(b"500")]
    assert received == [b"%d" % number for number in range(500)]

    async def messages() -> AsyncIterator[bytes]:
        for _ in range(300):
            yield b"x" * 1000

    assert await rigged.stub("Client", "stream_unary")(messages()) == b"300000"
    call = rigged.stub("Both", "stream_stream")()
    for number in range(50):  # each answer comes before the next message is sent
        await call.write(b"a%d" % number)
        assert await call.read() == b"A%d" % number
    await call.done_writing()
    assert await call.read() is aio.EOF


async def test_large_messages(rigged: Rigged) -> None:
    message = b"x" * LARGE
    assert await rigged.stub("Unary")(message) == message


async def test_a_thousand_concurrent_calls(rigged: Rigged) -> None:
    unary = rigged.stub("Unary")
    assert await asyncio.gather(*(unary(b"wait") for _ in range(1000))) == [b"wait"] * 1000
    await rigged.rig.until(lambda: rigged.rig.proxy.in_flight == 0)


async def test_a_canceled_call_is_canceled_at_the_server(rigged: Rigged) -> None:
    rigged.echo.canceled.clear()
    call = rigged.stub("Unary")(b"hang")
    await rigged.rig.until(lambda: rigged.rig.proxy.in_flight == 1)
    await asyncio.sleep(0.05)
    call.cancel()
    await asyncio.wait_for(rigged.echo.canceled.wait(), 5)
    await rigged.rig.until(lambda: rigged.rig.proxy.in_flight == 0)


async def test_the_deadline_of_a_call_ends_it(rigged: Rigged) -> None:
    rigged.echo.canceled.clear()
    with pytest.raises(aio.AioRpcError) as raised:
        await rigged.stub("Unary")(b"hang", timeout=0.2)
    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(rigged.echo.canceled.wait(), 5)
    await rigged.rig.until(lambda: rigged.rig.proxy.in_flight == 0)


@pytest.mark.parametrize(
    "name, secret, code",
    [
        ("Unary", None, grpc.StatusCode.UNAUTHENTICATED),
        ("Unary", "nonsense", grpc.StatusCode.UNAUTHENTICATED),
        ("Unary", "scopeless", grpc.StatusCode.PERMISSION_DENIED),
        ("Unary", "exhausted", grpc.StatusCode.RESOURCE_EXHAUSTED),
        ("Unary", "test", grpc.StatusCode.PERMISSION_DENIED),
        ("Other/x", None, grpc.StatusCode.UNIMPLEMENTED),
    ],
)
async def test_refusals_are_statuses(rigged: Rigged, name: str, secret: str | None, code: grpc.StatusCode) -> None:
    rig = rigged.rig
    if secret == "scopeless":
        secret = await rig.secret(scopes=["skills:list"])
    elif secret == "test":
        secret = await rig.secret(environment="test")
    elif secret == "exhausted":
        secret = await rig.secret(tier="small")
        await rigged.stub("Unary")(b"1", metadata=(("authorization", f"Bearer {secret}"),))
    metadata = () if secret is None else (("authorization", f"Bearer {secret}"),)
    with pytest.raises(aio.AioRpcError) as raised:
        await rigged.stub(name)(b"1", metadata=metadata)
    error = raised.value
    assert error.code() == code
    assert error.details()
    fields = dict([*error.initial_metadata(), *error.trailing_metadata()])
    assert "x-request-id" in fields
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        assert int(fields["retry-after"]) > 0
        assert int(fields["grpc-retry-pushback-ms"]) == 1000 * int(fields["retry-after"])


async def test_a_server_that_is_gone_is_unavailable() -> None:
    async with (
        proxied(upstreams={"live": "h2c://127.0.0.1:9"}, routes=ROUTES) as rig,
        aio.insecure_channel(f"127.0.0.1:{rig.port}") as channel,
    ):
        with pytest.raises(aio.AioRpcError) as raised:
            await channel.unary_unary("/test.Echo/Public")(b"1")
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
