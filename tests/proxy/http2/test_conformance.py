"""The requests that gunicorn is tested with, as streams: one well-formed request upstream for each that is served."""

import asyncio

import pytest

from machpay_gateway import Route
from tests.proxy.cases import all_cases
from tests.proxy.harness import Rig, Upstream, proxied
from tests.proxy.http2.harness import Fields, Http2Client, Result, http2
from tests.proxy.strict import Strict

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # how bytes are read is no matter of the loop

_PUBLIC = (Route("* /{rest:path}", public=True),)
_OF_HTTP1 = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "host"})


def as_blocks(raw: bytes) -> list[tuple[Fields, bytes]]:
    """Return the first request in *raw* as header blocks with content: what is left of it, and all that it has."""
    head, _, body = raw.decode("latin-1").partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    method, _, rest = first.partition(" ")
    target = rest.rpartition(" ")[0] if " " in rest else rest
    pseudo = [(":method", method), (":scheme", "http"), (":authority", "api.test"), (":path", target)]
    fields = [(name.lower(), value) for name, _, value in (line.partition(":") for line in lines)]
    mild = [(name, value.strip()) for name, value in fields if name not in _OF_HTTP1]
    return [([*pseudo, *mild], body[:64].encode("latin-1")), ([*pseudo, *fields], body[:64].encode("latin-1"))]


async def attempt(rig: Rig, fields: Fields, body: bytes) -> Result:
    """Send one request over a connection of its own."""
    async with http2(rig) as client:
        return await client.result(_send(client, fields, body))


def _send(client: Http2Client, fields: Fields, body: bytes) -> int:
    stream = client.raw_request(fields, is_last=not body)
    if body:
        client.data(stream, body, is_last=True)
    return stream


async def test_each_request_that_is_served_reaches_the_upstream_once_and_well_formed() -> None:
    if not (cases := all_cases()):
        pytest.skip("the cases are not beside this checkout (../shared/conformance/http1)")
    strict, served = Strict(), 0
    async with Upstream(strict) as upstream, proxied(upstream, routes=_PUBLIC) as rig:
        for case in cases:
            for fields, body in as_blocks(case.raw):
                before = len(strict.requests)
                result = await attempt(rig, fields, body)
                new = strict.requests[before:]
                if result.status == 200:
                    served += 1
                    [request] = new
                    assert (request.method.decode(), request.body) == (fields[0][1], body), case.name
                    assert request.target.decode() == fields[3][1], case.name
                    assert result.body == (b"" if request.method == b"HEAD" else request.target), case.name
                else:
                    assert new == [], case.name
                    assert result.reset is not None or 400 <= result.status < 500 or result.status == 501, case.name
        await asyncio.sleep(0)
        assert strict.faults == []
    assert served > len(cases) / 2
