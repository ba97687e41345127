"""Requests that are sent to another server because of a response's status, and those refused because there are many."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from machpay_gateway.core.network.upstream_options import UpstreamOptions
from machpay_gateway.proxy.pool import ServerPool
from machpay_gateway.proxy.upstream import UpstreamConnection
from machpay_gateway.proxy.upstream_server import UpstreamServer
from tests.proxy.harness import OK, Upstream, fields_of, proxied, request

UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"


def _options(*upstreams: Upstream, **options: object) -> Mapping[str, object]:
    return {"live": [f"http://127.0.0.1:{upstream.port}" for upstream in upstreams], **options}


@pytest.mark.parametrize(
    "method, fields, body, expected",
    [
        ("GET", (), b"", 200),
        ("HEAD", (), b"", 200),
        ("OPTIONS", (), b"", 200),
        ("GET", ("Content-Length: 3",), b"abc", 503),  # its body is not kept
        ("POST", (), b"", 503),  # it may have been done
        ("PUT", ("Content-Length: 3",), b"abc", 503),
        ("DELETE", (), b"", 503),
    ],
)
async def test_safe_requests_are_sent_to_another_server(
    method: str, fields: Sequence[str], body: bytes, expected: int
) -> None:
    async with Upstream(answer=UNAVAILABLE) as bad, Upstream() as good:
        upstreams = _options(bad, good, retry_statuses=[502, 503], balance="round_robin")
        async with proxied(upstreams=upstreams) as rig:
            statuses = []
            for _ in range(2):
                async with rig.client() as client:
                    await client.send(request(method, "/public/x", *fields, body=body))
                    statuses.append(int((await client.head()).split()[1]))
            assert sorted(statuses) == [200, expected]
            assert (len(bad.heads), len(good.heads)) == (1, 2 if expected == 200 else 1)
            pool = rig.proxy.router.pools["live"]
            assert pool.retries == (expected == 200)
            await rig.until(lambda: not any(server.in_flight for server in pool.servers))


@pytest.mark.parametrize(
    "options",
    [{}, {"retry_statuses": [502]}, {"retry_statuses": [503], "retry_budget": 0.0}],
    ids=["off", "another status", "no budget"],
)
async def test_other_statuses_pass(options: Mapping[str, object]) -> None:
    async with (
        Upstream(answer=UNAVAILABLE) as bad,
        Upstream() as good,
        proxied(upstreams=_options(bad, good, balance="round_robin", **options)) as rig,
        rig.client() as client,
    ):
        answers = []
        for _ in range(24):  # more than are retried at once without a budget
            await client.send(request())
            answers.append(await client.answer())
        refused = [body for status, _, body in answers if status == 503]
        assert set(refused) == {b"busy"}
        assert len(refused) + rig.proxy.router.pools["live"].retries == 12


async def test_if_all_servers_fail_the_last_response_passes_and_each_got_the_request_once() -> None:
    async with (
        Upstream(answer=UNAVAILABLE) as one,
        Upstream(answer=UNAVAILABLE) as two,
        proxied(upstreams=_options(one, two, retry_statuses=[503])) as rig,
        rig.client() as client,
    ):
        await client.send(request())
        status, _, body = await client.answer()
        assert (status, body, len(one.heads), len(two.heads)) == (503, b"busy", 1, 1)
        await client.send(request())  # over the same connection
        assert (await client.answer())[0] == 503


async def test_retries_are_at_most_their_share_of_requests() -> None:
    async with (
        Upstream(answer=UNAVAILABLE) as one,
        Upstream(answer=UNAVAILABLE) as two,
        proxied(upstreams=_options(one, two, retry_statuses=[503])) as rig,
        rig.client() as client,
    ):
        for _ in range(200):
            await client.send(request())
            assert (await client.answer())[0] == 503
        retries = rig.proxy.router.pools["live"].retries
        assert len(one.heads) + len(two.heads) == 200 + retries
        assert 10 + 0.2 * 180 <= retries <= 10 + 0.2 * 200


def test_servers_that_are_out_get_no_retries() -> None:
    async def never() -> tuple[object, UpstreamConnection]:
        raise AssertionError("this test does not connect")

    options = UpstreamOptions(retry_statuses=[503])
    one, two = (UpstreamServer(name, never, options=options) for name in ("one", "two"))
    pool = ServerPool([one, two], options=options)
    assert pool.take_retry([one])
    assert not pool.take_retry([one, two])
    two.set_health(is_healthy=False, problem="a test")
    assert not pool.take_retry([one])


async def test_requests_beyond_the_greatest_number_in_flight_are_refused_at_once() -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await upstream.read(reader)
            came.release()
            await go_on.wait()
            writer.write(OK)

    came, go_on = asyncio.Semaphore(0), asyncio.Event()
    async with (
        Upstream(slow) as upstream,
        proxied(upstreams=_options(upstream, max_in_flight=2)) as rig,
        rig.client() as first,
        rig.client() as second,
        rig.client() as third,
    ):
        for client in (first, second):
            await client.send(request())
            await came.acquire()
        for _ in range(2):
            await third.send(request("POST", "/public/x", "Content-Length: 3", body=b"abc"))
            status, head, body = await third.answer()
            assert (status, fields_of(head)["retry-after"]) == (503, ["1"])
            assert b'"upstream_overloaded"' in body
        go_on.set()
        for client in (first, second):
            assert (await client.answer())[0] == 200
        await third.send(request())
        assert (await third.answer())[0] == 200
        assert len(upstream.heads) == 3
