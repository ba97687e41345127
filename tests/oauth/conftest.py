"""An authorization server on SQLite that the tests of a module share, each with an account, a user and an app."""

from collections.abc import AsyncIterator
from functools import partial

import pytest

from machpay_gateway.core.oauth.settings import OAuthSettings
from tests.gateways import Shared
from tests.oauth.harness import Rig, serving_oauth


@pytest.fixture
def authority() -> OAuthSettings | None:
    """The settings of the authorization server, which a module may have of its own."""
    return None


@pytest.fixture
async def rig(
    request: pytest.FixtureRequest, authority: OAuthSettings | None, shared: Shared[Rig]
) -> AsyncIterator[Rig]:
    serve = partial(serving_oauth, authority=authority)
    if request.node.get_closest_marker("own_gateway") is not None:
        async with serve() as own:
            yield own
        return
    rig = await (await shared.part("rig", serve)).share()
    yield rig
    await rig.close()
