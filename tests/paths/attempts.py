"""Every caller asks for every spelling of a path, by a real proxy in front of a real server: which handler has run?"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from machpay_gateway import Tier
from machpay_gateway.core.decision.policy import Unlisted
from machpay_gateway.core.network.proxy_settings import PathChoice
from tests.paths.handlers import BY_NAME, HANDLERS, HELD
from tests.paths.sending import answers_to
from tests.paths.spellings import spellings
from tests.proxy.harness import Rig, Upstream, proxied

if TYPE_CHECKING:
    from machpay_gateway.settings import Options

SEED = 20261129
_AT_ONCE = 16
_SECONDS = 600
_GENEROUS = Tier(rate="100000000/minute", concurrency=1000)

Callers = Mapping[frozenset[str], str]


class Ran(NamedTuple):
    """A handler that has run for a caller who holds these scopes."""

    path: str
    held: frozenset[str]
    handler: str

    @property
    def is_held(self) -> bool:
        """Whether the caller holds what the handler needs."""
        return BY_NAME[self.handler].scopes <= self.held


async def handlers_that_ran(
    upstream: Upstream, unlisted: Unlisted, count: int, choice: PathChoice = "refuse"
) -> Sequence[Ran]:
    """Return what ran for *count* spellings, and for the paths as they are listed, with and without an escape.

    *choice* is what becomes of encoded and repeated slashes, and of escapes that are not UTF-8.
    """
    routes = [handler.route for handler in HANDLERS]
    settings: Options = {
        "routes": routes,
        "unlisted_routes": unlisted,
        "tiers": {"standard": _GENEROUS},
        "proxy": {"encoded_slash": choice, "double_slash": choice, "non_utf8_escapes": choice},
    }
    async with proxied(upstream, **settings) as rig:
        callers = {held: await rig.secret(scopes=sorted(held)) if held else "" for held in HELD}
        listed = [handler.sample for handler in HANDLERS]
        escaped = [f"{path[:-1]}%{ord(path[-1]):02x}" for path in listed]  # which every server undoes
        return await _run_all(rig, callers, [*listed, *escaped, *spellings(SEED, count)])


async def _run_all(rig: Rig, callers: Callers, paths: Sequence[str]) -> Sequence[Ran]:
    attempts = [(path, held) for path in dict.fromkeys(paths) for held in callers]
    requests = (((path, held), _request(path, callers[held])) for path, held in attempts)
    return [
        Ran(path, held, handler)
        for (path, held), status, body in await answers_to(rig.port, requests, at_once=_AT_ONCE, seconds=_SECONDS)
        if status == HTTPStatus.OK and (handler := body.decode()) in BY_NAME
    ]


def _request(path: str, secret: str) -> str:
    return f"{path}\r\nAuthorization: Bearer {secret}\r\n" if secret else path
