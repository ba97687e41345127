"""What a head says by which the request is found, and that the upstream reads the same in it as the gate did."""

from tests.proxy.harness import Upstream, proxied
from tests.proxy.strict import Strict


async def test_a_request_without_a_host_has_an_empty_one() -> None:
    """RFC 9112 §3.2: Host is in every request of HTTP/1.1, and empty where there is no authority."""
    strict = Strict()
    async with Upstream(strict) as upstream, proxied(upstream) as rig:
        assert (await rig.exchange(b"GET /public/x HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert strict.requests[0].values(b"host") == [b""]
