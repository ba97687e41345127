"""Well-formed answers that something happened to: a client sees a whole answer, or that there is none."""

import asyncio
import logging
from collections.abc import Iterator
from random import Random

import h11
import pytest

from tests.proxy.harness import OK, Rig, Upstream, proxied, request

_AT_ONCE = 64
_SOON = {"idle_seconds": 0.5, "first_byte_seconds": 0.5}
_ORIGINALS = (
    OK,
    b"HTTP/1.1 200 OK\r\nX: 1\r\nX: 2\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: close, X-Gone\r\nX-Gone: 1\r\n\r\nabc",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabc",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n",
)
_INSERTED = (
    *(b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\x00", b" ", b":", b",", b"\xff", b"0\r\n\r\n", b"0", b"\r\n ", b"abc"),
    *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n"),
    *(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", b"HTTP/1.1 200 OK\r\n", OK, b"X: " + b"a" * 9000),
)


def _mutations(seed: int) -> Iterator[bytes]:
    random = Random(seed)  # noqa: S311 - the same each time
    while True:
        data = bytearray(random.choice(_ORIGINALS))
        for _ in range(random.randint(1, 3)):
            at = random.randrange(len(data) + 1)
            kind = random.randrange(4)
            if kind == 0 and at < len(data):
                data[at] ^= 1 << random.randrange(8)
            elif kind == 1:
                data[at:at] = random.choice(_INSERTED)
            elif kind == 2:
                del data[at : at + random.choice((1, 2, 10))]
            else:
                other = random.choice(_ORIGINALS)
                data[at:] = other[random.randrange(len(other)) :]
        yield bytes(data)


class _Mutating:
    """An upstream that answers each request by the mutation that it names, and closes; others it answers well."""

    def __init__(self, answers: list[bytes]) -> None:
        self.answers = answers

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            name = (await reader.readuntil(b"\r\n\r\n")).split()[1].rpartition(b"/")[2]
            if not name.isdigit():
                writer.write(OK.replace(b"ok", name[:2]))
                continue
            writer.write(self.answers[int(name)])
            if int(name) % 2:
                return


def _is_whole(data: bytes) -> bool:
    """Tell whether *data* is one answer, and fail if it is anything but the beginning of one."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a.test"), ("Connection", "close")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            return False
    return connection.trailing_data[0] == b""


async def _try(rig: Rig, number: int) -> bool:
    async with rig.client() as client:
        await client.send(request("GET", f"/public/{number}", "Connection: close"))
        return _is_whole(await client.rest())


async def _check(count: int, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    mutations = _mutations(seed)
    answers = [next(mutations) for _ in range(count)]
    async with Upstream(_Mutating(answers)) as upstream, proxied(upstream, proxy=_SOON) as rig:
        left = list(range(count))
        whole: list[bool] = []

        async def work(name: str) -> None:
            while left:
                whole.append(await _try(rig, left.pop()))
                async with rig.client() as client:
                    await client.send(request("GET", f"/public/{name}"))
                    status, _, body = await client.answer()
                    assert body == name.encode() or status == 504  # and nobody else's, or too late on a busy machine

        async with asyncio.TaskGroup() as workers:
            for number in range(_AT_ONCE):
                workers.create_task(work(chr(ord("a") + number % 26) + chr(ord("a") + number // 26)))
        await rig.until(lambda: not len(rig.proxy))
        assert sum(whole) > count // 4
        assert {ended.status for ended in rig.ended} & set(range(500, 600)) <= {502, 504}
        assert [server.in_flight for server in rig.proxy.router.pools["live"].servers] == [0]
    assert caplog.text == ""


@pytest.mark.usefixtures("quick_clock")
async def test_a_client_sees_a_complete_response_or_that_it_is_incomplete(caplog: pytest.LogCaptureFixture) -> None:
    await _check(1000, 1, caplog)


@pytest.mark.drill
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("quick_clock")
async def test_a_client_sees_a_complete_response_or_that_it_is_incomplete_in_the_long_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await _check(10_000, 2, caplog)
