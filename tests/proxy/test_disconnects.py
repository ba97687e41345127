"""Whoever is gone is waited for by nobody: the upstream is told, the slot is free, and the request is counted."""

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any

import pytest

from machpay_gateway import Tier
from machpay_gateway.core.decision.decision import Allowed, Decision
from machpay_gateway.core.limits.admission import Admitted
from machpay_gateway.core.limits.plan import tier_plan
from machpay_gateway.gate import PendingIdentity
from tests.proxy.harness import Client, Rig, Upstream, deaf, proxied, request, status_of

# One slot only: whoever is admitted shows that nobody else holds one.
_ONE_SLOT = {"standard": Tier("1000/minute", concurrency=1)}


class _Held:
    """An upstream that sends *first* of an answer, and nothing more until nobody waits for it."""

    def __init__(self, first: bytes = b"") -> None:
        self.first = first
        self.came, self.gone = asyncio.Event(), asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/v1/next" in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            return
        writer.write(self.first)
        self.came.set()
        while await reader.read(65536):
            pass
        self.gone.set()


async def _admits_the_next(rig: Rig, secret: str) -> bool:
    async with rig.client() as client:
        await client.send(request("GET", "/v1/next", secret=secret))
        return status_of(await client.head()) == 200


@pytest.mark.parametrize("is_reset", [False, True])
@pytest.mark.parametrize(
    "first, status",
    [
        (b"", 499),  # before the answer
        (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 499),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", 200),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", 200),
        (b"HTTP/1.1 200 OK\r\n\r\nabc", 200),
    ],
)
async def test_a_disconnect_frees_the_slot(first: bytes, status: int, is_reset: bool) -> None:  # noqa: FBT001 - a table's column
    held = _Held(first)
    async with Upstream(held) as upstream, proxied(upstream, tiers=_ONE_SLOT) as rig:
        secret = await rig.secret()
        async with rig.client() as client:
            await client.send(request("GET", "/v1/x", secret=secret))
            await held.came.wait()
            if first:
                await client.head()
            assert not await _admits_the_next(rig, secret)
            if is_reset:
                client.writer.transport.abort()
        await asyncio.wait_for(held.gone.wait(), 3)
        assert await _admits_the_next(rig, secret)
        assert [ended.status for ended in rig.ended] == [429, status, 200]


async def test_a_refusal_is_recorded_although_the_client_has_disconnected() -> None:
    async with Upstream() as upstream, proxied(upstream) as rig:
        with socket.create_connection(("127.0.0.1", rig.port)):
            await rig.until(lambda: rig.connections)
        # It has closed, which nobody has seen yet; to write to it now is answered by a reset.
        rig.connections[0].data_received(b"nonsense\r\n\r\n")
        assert [ended.status for ended in rig.ended] == [400]
        await rig.until(lambda: not len(rig.proxy))


async def test_a_disconnect_during_the_request_body_frees_the_slot() -> None:
    held = _Held()
    async with Upstream(held) as upstream, proxied(upstream, tiers=_ONE_SLOT) as rig:
        secret = await rig.secret()
        async with rig.client() as client:
            await client.send(request("POST", "/v1/x", "Content-Length: 9", secret=secret, body=b"abc"))
            await held.came.wait()
        await asyncio.wait_for(held.gone.wait(), 3)
        assert await _admits_the_next(rig, secret)


async def test_a_disconnect_while_connecting_to_the_upstream_frees_the_slot() -> None:
    with deaf() as upstream:
        async with proxied(upstream, tiers=_ONE_SLOT) as rig:
            secret = await rig.secret()
            for _ in range(3):
                async with rig.client() as client:
                    await client.send(request("GET", "/v1/x", secret=secret))
                    await rig.until(lambda: any(connection.forwarder for connection in rig.connections))
                await rig.until(lambda: not len(rig.proxy))
            assert [ended.status for ended in rig.ended] == [499] * 3  # and none a 429


@pytest.mark.parametrize("is_late", [False, True])
async def test_a_disconnect_during_the_decision_leaves_no_slot(
    is_late: bool,  # noqa: FBT001 - a table's column
    replaceable: pytest.MonkeyPatch,
) -> None:
    """*is_late* has the decision come all the same, as when it was done at that very moment."""
    has_arrived, go_on = asyncio.Event(), asyncio.Event()
    async with Upstream(_Held()) as upstream, proxied(upstream, tiers=_ONE_SLOT) as rig:
        secret = await rig.secret()
        resolve = rig.gateway.gate.resolve

        async def slowly(pending: PendingIdentity) -> Decision:
            decision = await resolve(pending) if is_late else None  # nothing is awaited after the cancellation
            has_arrived.set()
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                if decision is None:
                    raise
            return decision or await resolve(pending)

        replaceable.setattr(rig.gateway.gate, "resolve", slowly)
        async with rig.client() as client:
            await client.send(request("GET", "/v1/x", secret=secret))
            await has_arrived.wait()
        await rig.until(lambda: rig.ended)
        go_on.set()
        assert await _admits_the_next(rig, secret)
        assert upstream.connections == 1


class _Lease:
    """A lease that counts how often it was given back."""

    released = 0

    def release(self) -> None:
        self.released += 1

    def charge(self, units: int) -> None:
        raise AssertionError(units)


@pytest.mark.parametrize("is_there", [False, True])
async def test_a_disconnect_while_the_limiter_answers_leaves_no_slot(
    is_there: bool,  # noqa: FBT001 - a table's column
    replaceable: pytest.MonkeyPatch,
) -> None:
    """*is_there* has the answer come at that very moment, when nobody has been told of it yet."""
    async with Upstream() as upstream, proxied(upstream) as rig, rig.client() as client:
        secret = await rig.secret()
        await client.send(request("GET", "/v1/x", secret=secret))
        assert (await client.answer())[0] == 200  # from here on the caller is known
        answer = asyncio.get_running_loop().create_future()
        replaceable.setattr(rig.gateway.gate.limiter, "admit", lambda _: answer)
        await client.send(request("GET", "/v1/x", secret=secret))
        connection = rig.connections[0]
        await rig.until(lambda: connection.forwarder)
        lease = _Lease()
        if is_there:
            answer.set_result(Admitted(lease, (9, 1.0, 9), tier_plan(Tier("10/minute", concurrency=10))))
        connection.connection_lost(None)
        await asyncio.sleep(0)
        assert answer.cancelled() is not is_there
        assert lease.released == is_there
        assert [ended.status for ended in rig.ended] == [200, 499]
        assert len(upstream.heads) == 1


async def test_an_unexpected_error_in_the_decision_ends_the_request(replaceable: pytest.MonkeyPatch) -> None:
    async with Upstream() as upstream, proxied(upstream) as rig, rig.client() as client:

        async def fail(_: PendingIdentity) -> Decision:
            raise RuntimeError("a surprise")

        replaceable.setattr(rig.gateway.gate, "resolve", fail)
        await client.send(request("GET", "/v1/x", secret=await rig.secret()))
        assert (await client.answer())[0] == 503
        assert [str(fault["exception"]) for fault in rig.faults] == ["a surprise"]  # and the log has it
        rig.faults.clear()
        await client.send(request())
        assert (await client.answer())[0] == 200


async def test_a_connection_made_for_a_disconnected_client_serves_the_next_request(
    replaceable: pytest.MonkeyPatch,
) -> None:
    """And as any that was kept, it may have ended by then: what is safe is sent again."""
    go_on, connected = asyncio.Event(), asyncio.Event()

    async def second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        if upstream.connections > 1:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with Upstream(second) as upstream, proxied(upstream) as rig, rig.client() as client:
        run = rig.proxy.context.run

        async def later(work: Coroutine[Any, Any, None]) -> None:
            await go_on.wait()
            await work
            connected.set()

        replaceable.setattr(rig.proxy.context, "run", lambda work: run(later(work)))
        async with rig.client() as gone:
            await gone.send(request("GET", "/public/gone"))
            await rig.until(lambda: any(connection.forwarder for connection in rig.connections))
        await rig.until(lambda: rig.ended)
        go_on.set()
        await connected.wait()
        await client.send(request())
        assert (await client.answer())[0] == 200
        assert (upstream.connections, len(upstream.heads)) == (2, 2)
        assert [server.in_flight for server in rig.proxy.router.pools["live"].servers] == [0]


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"])
async def test_a_shutdown_past_its_deadline_frees_slots_and_records_requests(first: bytes) -> None:
    held = _Held(first)
    async with Upstream(held) as upstream, proxied(upstream, tiers=_ONE_SLOT) as rig, rig.client() as client:
        secret = await rig.secret()
        await client.send(request("GET", "/v1/x", secret=secret))
        await held.came.wait()
        if first:
            await client.head()
        await rig.proxy.close(drain_seconds=0)
        assert [ended.status for ended in rig.ended] == [200 if first else 499]
        await asyncio.wait_for(held.gone.wait(), 3)
        facts = rig.ended[0].facts
        assert isinstance(await rig.gateway.gate.decide(facts), Allowed)  # which needs the only slot


async def test_a_graceful_shutdown_finishes_requests_in_flight() -> None:
    go_on, came = asyncio.Event(), asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        came.set()
        await go_on.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async def stopped(rig: Rig, client: Client) -> bytes:
        closing = asyncio.create_task(rig.proxy.close(drain_seconds=3))
        await rig.until(lambda: rig.connections[0].will_close)
        go_on.set()
        answer = await client.rest()
        await closing
        return answer

    async with Upstream(wait) as upstream, proxied(upstream) as rig, rig.client() as client:
        await client.send(request())
        await came.wait()
        answer = await stopped(rig, client)
        assert answer.endswith(b"\r\n\r\nok")
        assert b"\r\nConnection: close\r\n" in answer
