"""Many clients over a few kept connections, each leaving when it likes: nobody gets what is another's."""

import asyncio
import contextlib
from random import Random

import pytest

from machpay_gateway import Tier
from tests.proxy.harness import Client, Rig, Upstream, fields_of, proxied, request

_SLOTS = 100
_CLIENTS = 40


class _Echo:
    """An upstream that answers each request with its own name, in one of several ways, and sometimes breaks off."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)  # noqa: S311 - the same each time

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            name, fields = head.split()[1], fields_of(head)
            if "content-length" in fields:
                assert await reader.readexactly(int(fields["content-length"][0])) == name
            for piece in self._answer(name):
                writer.write(piece)
                await asyncio.sleep(0)
                if self.random.random() < 0.02:
                    return
            if self.random.random() < 0.05:
                return

    def _answer(self, name: bytes) -> list[bytes]:
        half = len(name) // 2
        if self.random.random() < 0.5:
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(name)
            return self.random.choice(([head + name], [head, name], [head + name[:half], name[half:]]))
        pieces = [b"%x\r\n%b\r\n" % (len(part), part) for part in (name[:half], name[half:])]
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        return self.random.choice(([head, *pieces, b"0\r\n\r\n"], [head + b"".join(pieces) + b"0\r\n\r\n"]))


async def _ask(client: Client, random: Random, name: bytes, secret: str) -> bool:
    """Ask for *name*; tell whether an answer came. It is the right one, or none."""
    if random.random() < 0.5:
        sent = request("POST", name.decode(), f"Content-Length: {len(name)}", secret=secret, body=name)
    else:
        sent = request("GET", name.decode(), secret=secret)
    cut = random.randrange(len(sent))
    await client.send(sent[:cut])
    await asyncio.sleep(0)
    if random.random() < 0.05:
        return False
    await client.send(sent[cut:])
    if random.random() < 0.1:
        await client.reader.read(random.randrange(1, 100))
        return False
    status, _, body = await client.answer()
    assert (status, body) == (200, name) or status == 502
    return status == 200


async def _go_on(rig: Rig, seed: int, number: int, rounds: int, secret: str) -> int:
    random, answers, done = Random(seed * 1000 + number), 0, 0  # noqa: S311 - the same each time
    while done < rounds:
        async with rig.client() as client:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                for _ in range(random.randrange(1, 10)):
                    done += 1
                    if not await _ask(client, random, b"/v1/%d/%d" % (number, done), secret):
                        break
                    answers += 1
    return answers


@pytest.mark.parametrize("seed", [1, 2])
async def test_nobody_gets_the_response_of_another_client(seed: int) -> None:
    tiers = {"standard": Tier("1000000/minute", concurrency=_SLOTS)}
    async with (
        Upstream(_Echo(seed)) as upstream,
        Upstream(_Echo(seed)) as second,
        proxied(upstream, second, tiers=tiers) as rig,
    ):
        secret = await rig.secret()
        async with asyncio.TaskGroup() as workers:
            tasks = [workers.create_task(_go_on(rig, seed, number, 20, secret)) for number in range(_CLIENTS)]
        assert sum(task.result() for task in tasks) > _CLIENTS * 10
        await rig.until(lambda: not len(rig.proxy))
        assert {ended.status for ended in rig.ended} <= {200, 499, 502}
        assert [server.in_flight for server in rig.proxy.router.pools["live"].servers] == [0, 0]
        assert await _slots_left(rig, secret) == _SLOTS - 1  # but for the one that asks


async def _slots_left(rig: Rig, secret: str) -> int:
    while True:
        async with rig.client() as client:
            await client.send(request("GET", "/v1/x", secret=secret))
            if (head := await client.head()).startswith(b"HTTP/1.1 200 "):
                return int(fields_of(head)["ratelimit"][0].rpartition("=")[2])
