"""What hostile and broken clients send, to a real server: an answer of the table, never a 500, and no growth."""

import gc
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from machpay_gateway import Gateway, MachPayAuth
from machpay_gateway.core.keys.key import KeyRecord, mint_secret
from tests.applications import ok
from tests.gateways import guarded
from tests.servers import exchange, serving


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, int]]:
    app = MachPayAuth(ok, gateway=Gateway(database="memory://", failure_limit="1000000/minute"))
    with serving(app, h11_max_incomplete_event_size=65536) as address:
        yield address


def request(*lines: bytes, target: bytes = b"/v1/x") -> bytes:
    return b"\r\n".join([b"GET " + target + b" HTTP/1.1", b"Host: api.test", b"Connection: close", *lines, b"", b""])


@pytest.mark.parametrize(
    "raw, statuses, why",
    [
        (request(), {401}, "nothing presented"),
        (request(b"Authorization: "), {401}, "an empty header presents nothing"),
        (request(b"Authorization: Bearer"), {400}, "a scheme without a token"),
        (request(b"Authorization: Basic dXNlcjpwYXNz"), {401}, "an unsupported scheme is no credential"),
        (request(b"Authorization: Bearer " + bytes(range(0x80, 0x100))), {400}, "non-ASCII bytes are no token68"),
        (request(b"Authorization: Bearer a\x00b"), {400}, "NUL"),
        (request(b"Authorization: Bearer a b c"), {400}, "spaces within a token"),
        (request(b"Authorization: Bearer " + b"\xff\xfe" * 100), {400}, "broken UTF-8"),
        (request(b"Authorization: Bearer " + b"A" * 60_000), {400, 431}, "longer than any credential"),
        (request(b"Authorization: Bearer " + b"." * 5_000), {400, 401}, "dots only"),
        (request(b"Authorization: Bearer e30.e30."), {401}, "an unsigned token"),
        (request(*[b"Authorization: Bearer x"] * 50), {400}, "the header repeated"),
        (request(*[b"X-Forwarded-For: " + b"1.2.3.4," * 500] * 5), {401}, "a long chain from a stranger"),
        (request(*[b"X-%d: y" % n for n in range(500)]), {400, 401, 431}, "many headers"),
        (request(target=b"/%ff%fe"), {400}, "a path that is no UTF-8"),
        (request(target=b"/%c0%af"), {400}, "an over-long encoding of a slash"),
        (request(target=b"/%"), {400}, "half an escape"),
        (request(target=b"/%zz"), {400}, "no escape at all"),
        (request(target=b"/a%00b"), {400}, "NUL in a path"),
        (request(target=b"/a/../b"), {400}, "dot segments"),
        (request(target=b"/" + b"a/" * 10_000), {400, 401, 414}, "a deep path"),
        (request(target=b"/v1/caf%C3%A9"), {401}, "a path in UTF-8 is fine"),
        (request(b"X-Request-Id: \x01\x02"), {400, 401}, "a request id that is none"),
    ],
)
def test_junk_gets_the_response_of_the_table(server: tuple[str, int], raw: bytes, statuses: set[int], why: str) -> None:
    answer = exchange(server, raw)
    assert int(answer.split(b" ", 2)[1]) in statuses, (why, answer[:200])


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from Linux's /proc")
async def test_a_hundred_thousand_junk_credentials_grow_memory_by_less_than_five_megabytes() -> None:
    looked_up = 0

    async with guarded(ok) as api:

        async def unknown(digests: Sequence[bytes]) -> Sequence[KeyRecord]:
            nonlocal looked_up
            looked_up += len(digests)
            return ()

        # Counts what reaches the store, and spares half a minute of queries for keys that it does not have.
        api.gateway.store.find_by_digests = unknown  # type: ignore[method-assign]

        async def present(number: int) -> None:
            # Every other one is well-formed and unknown; they come from 65,536 addresses.
            token = mint_secret("live", number.to_bytes(32, "big")) if number % 2 else f"sk_live_{number:032}"
            scope = {
                "type": "http",
                "method": "GET",
                "path": f"/v1/{number}",
                "headers": [(b"authorization", f"Bearer {token}".encode())],
                "client": (f"10.0.{number // 256 % 256}.{number % 256}", 1),
            }
            statuses: list[int] = []

            async def send(message: dict[str, object]) -> None:
                if message["type"] == "http.response.start":
                    statuses.append(int(str(message["status"])))

            await api.app(scope, None, send)  # type: ignore[arg-type]  # nothing is received, and any mapping will do
            assert statuses in ([401], [429])

        for number in range(2_000):
            await present(number)
        before = resident_bytes()
        for number in range(2_000, 102_000):
            await present(number)
        assert resident_bytes() - before < 5_000_000
        assert looked_up <= 51_000
