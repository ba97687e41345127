"""Every target is sent through our proxy and through another one, to an upstream that records it: the same bytes?"""

from collections import Counter
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path

from machpay_gateway import Route
from tests.paths.forwarding_proxies import running
from tests.paths.sending import answers_to
from tests.paths.sent_targets import expected
from tests.proxy.harness import Upstream, proxied
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
    answers = await answers_to(port, ((target, target) for target in targets), at_once=_AT_ONCE, seconds=_SECONDS)
    return {target: body.decode() if status == HTTPStatus.OK else None for target, status, body in answers}
