"""Every target is sent through our proxy and through another one, to an upstream that records it: the same bytes?"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path

from machpay_gateway import Route
from tests.paths.forwarding_proxies import running
from tests.paths.sent_targets import expected
from tests.proxy.harness import Client, Upstream, proxied
from tests.proxy.strict import Strict

_AT_ONCE = 8
_SECONDS = 300
_ALL = {"encoded_slash": "allow", "double_slash": "allow", "non_utf8_escapes": "allow"}


async def compare(kind: str, folder: Path, targets: Sequence[str]) -> Mapping[str, int]:
    """Send *targets* through both, and check what is forwarded. Return how many have each reason to differ."""
    strict = Strict()
    routes = [Route("GET /{rest:path}", public=True)]
    async with Upstream(strict) as upstream, proxied(upstream, routes=routes, proxy=_ALL) as rig:
        ours = await _forwarded(rig.port, targets)
        with running(kind, folder, upstream.port) as port:
            theirs = await _forwarded(port, targets)
    assert strict.faults == []
    wrong = [(target, ours[target]) for target in targets if ours[target] != expected(target).forwarded]
    assert wrong == []
    # The other one shows that these are the bytes that came; it refuses others than we do.
    assert [target for target in targets if theirs[target] not in {None, target}] == []
    return Counter(expected(target).reason for target in targets)


async def _forwarded(port: int, targets: Sequence[str]) -> Mapping[str, str | None]:
    """Return what the upstream got for each of *targets* at *port*; None if it got nothing."""
    left = iter(targets)
    forwarded: dict[str, str | None] = {}

    async def send() -> None:
        client: Client | None = None
        for target in left:
            client = client or Client(*await asyncio.open_connection("127.0.0.1", port))
            await client.send(f"GET {target} HTTP/1.1\r\nHost: api.test\r\n\r\n".encode())
            status, head, body = await client.answer()
            forwarded[target] = body.decode() if status == HTTPStatus.OK else None
            if b"connection: close" in head.lower():
                client.writer.close()
                client = None
        if client is not None:
            client.writer.close()

    async with asyncio.timeout(_SECONDS):
        await asyncio.gather(*(send() for _ in range(_AT_ONCE)))
    return forwarded
