"""Random sequences of frames: no 500, nothing stays behind, and nothing is forwarded that the gate refused."""

import asyncio
import random
from typing import TYPE_CHECKING

import pytest
from h2.errors import ErrorCodes
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.proxy.harness import Rig, Upstream, proxied
from tests.proxy.http2.harness import PREFACE

if TYPE_CHECKING:
    from collections.abc import Callable

_SETTINGS = {1: (0, 4096, 1 << 20), 3: (0, 1, 100), 4: (0, 1, 65_535, 2**31 - 1), 5: (16_384, 2**24 - 1), 6: (0, 4096)}
_CODES = [int(code) for code in ErrorCodes]


class Sequence:
    """One sequence of *choice*. *secret* is a valid credential, which some of its requests have."""

    def __init__(self, choice: random.Random, secret: str, *, is_valid: bool) -> None:
        self.choice = choice
        self.secret = secret
        self.encoder = Encoder()
        self.next_id = 1
        self.is_valid = is_valid

    def bytes(self) -> bytes:
        frames = [self.frame() for _ in range(self.choice.randint(1, 25))]
        data = PREFACE + SettingsFrame(0).serialize()
        for frame in frames:
            piece = bytearray(frame.serialize())
            if not self.is_valid and self.choice.random() < 0.1:
                piece[self.choice.randrange(len(piece))] = self.choice.randrange(256)
            data += bytes(piece)
        return data

    def frame(self) -> Frame:
        choice = self.choice
        kinds: list[Callable[[], Frame]] = [self.request, self.request, self.request, self.data, self.data, self.reset]
        kinds += [self.ping, self.window, self.priority, self.settings]
        if not self.is_valid:
            kinds += [self.goaway, self.continuation, self.promise]
        return choice.choice(kinds)()

    def stream(self) -> int:
        """Return the id of a stream: nearly always one that was begun."""
        return self.choice.choice([max(1, self.next_id - 2 * self.choice.randint(1, 3)), self.next_id, 0, 2])

    def request(self) -> Frame:
        choice = self.choice
        path = choice.choice(["/public/x", "/v1/x", "/v1/x", "/elsewhere", "/v1/../public", "x", "/public/%2e%2e/v1/x"])
        fields = [
            (":method", choice.choice(["GET", "POST", "HEAD", "OPTIONS", "CONNECT", "get"])),
            (":scheme", choice.choice(["http", "https", "http", "ftp"])),
            (":authority", choice.choice(["api.test", "api.test", "other.test", ""])),
            (":path", path),
        ]
        if choice.random() < 0.2:
            fields.pop(choice.randrange(4))
        fields += choice.sample(
            [
                ("cookie", "a=1"),
                ("content-length", choice.choice(["0", "3", "x", "99999999"])),
                ("te", choice.choice(["trailers", "gzip"])),
                ("connection", "close"),
                ("X-Upper", "1"),
                ("x-machpay-scopes", "forged"),
                ("expect", "100-continue"),
                ("content-type", choice.choice(["application/grpc", "text/plain"])),
                ("grpc-timeout", choice.choice(["1n", "5S", "x"])),
                ("x-bytes", "a\r\nb: c"),
                ("host", choice.choice(["api.test", "evil.test"])),
                (":protocol", "websocket"),
            ],
            k=choice.randint(0, 3),
        )
        if choice.random() < 0.3:
            fields.append(("authorization", f"Bearer {choice.choice([self.secret, 'nonsense'])}"))
        frame = HeadersFrame(self.next_id, data=self.encoder.encode(fields))
        self.next_id += 2
        if choice.random() < 0.95:
            frame.flags.add("END_HEADERS")
        if choice.random() < 0.6:
            frame.flags.add("END_STREAM")
        return frame

    def data(self) -> Frame:
        frame = DataFrame(self.stream() or 1, data=b"x" * self.choice.choice([0, 3, 1000, 16_384]))
        if self.choice.random() < 0.5:
            frame.flags.add("END_STREAM")
        return frame

    def reset(self) -> Frame:
        return RstStreamFrame(self.stream() or 1, error_code=self.choice.choice(_CODES))

    def ping(self) -> Frame:
        return PingFrame(0, opaque_data=b"12345678")

    def window(self) -> Frame:
        return WindowUpdateFrame(self.stream(), window_increment=self.choice.choice([1, 65_535, 2**31 - 1]))

    def priority(self) -> Frame:
        return PriorityFrame(self.stream() or 1, depends_on=0, stream_weight=1)

    def settings(self) -> Frame:
        name = self.choice.choice(list(_SETTINGS))
        return SettingsFrame(0, settings={name: self.choice.choice(_SETTINGS[name])})

    def goaway(self) -> Frame:
        return GoAwayFrame(0, last_stream_id=0, error_code=self.choice.choice(_CODES))

    def continuation(self) -> Frame:
        frame = ContinuationFrame(self.stream() or 1, data=b"\x82")
        if self.choice.random() < 0.5:
            frame.flags.add("END_HEADERS")
        return frame

    def promise(self) -> Frame:
        return PushPromiseFrame(self.stream() or 1, promised_stream_id=2, data=b"")


async def send(rig: Rig, sequence: Sequence) -> None:
    async with rig.client() as client:
        await client.send(sequence.bytes())
        reading = asyncio.create_task(client.reader.read(1 << 20))
        await asyncio.wait([reading], timeout=0.02)
        reading.cancel()


async def run(count: int, seed: int) -> None:
    async with Upstream() as upstream, proxied(upstream) as rig:
        secret = await rig.secret()
        choice = random.Random(seed)  # noqa: S311 - repeatable
        for number in range(0, count, 20):
            sequences = [Sequence(choice, secret, is_valid=number % 40 == 0) for _ in range(20)]
            await asyncio.gather(*(send(rig, sequence) for sequence in sequences))
        await rig.until(lambda: len(rig.proxy) == 0)
        assert rig.proxy.in_flight == 0
        assert all(ended.status < 500 or ended.status in {501, 502} for ended in rig.ended)
        # Every request that an upstream saw was allowed: by its route, or with the credential.
        for head in upstream.heads:
            target = head.split(b" ")[1]
            assert target.startswith((b"/public/x", b"/v1/x"))
            assert (b"x-machpay-scopes: skills:execute" in head.lower()) == target.startswith(b"/v1/")
            assert b"forged" not in head
            assert head.count(b"\r\nhost: ") + head.count(b"\r\nHost: ") == 1
        assert upstream.heads
        server = rig.proxy.router.pools["live"].servers[0]
        await rig.until(lambda: server.in_flight == 0)


async def test_random_frames() -> None:
    await run(300, seed=1)


@pytest.mark.drill
@pytest.mark.timeout(600)
async def test_ten_thousand_random_sequences() -> None:
    await run(10_000, seed=2)
