"""However a path is spelled, the handler that runs is one whose scopes the caller holds: on servers as they are."""

import pytest

from machpay_gateway.core.decision.policy import Unlisted
from machpay_gateway.core.network.proxy_settings import PathChoice
from tests.paths.attempts import handlers_that_ran
from tests.paths.handlers import BY_NAME, HANDLERS
from tests.proxy.harness import Upstream

_SPELLINGS = 250  # a drill tries 5,000


@pytest.mark.parametrize("unlisted, choice", [("authenticated", "refuse"), ("deny", "refuse"), ("deny", "allow")])
async def test_no_spelling_reaches_a_handler_without_its_scopes(
    upstream: Upstream, unlisted: Unlisted, choice: PathChoice
) -> None:
    ran = await handlers_that_ran(upstream, unlisted, _SPELLINGS, choice)
    assert [each for each in ran if not each.is_held] == []
    # Or nothing was tried: each handler has run, and some by other spellings than theirs.
    assert {each.handler for each in ran} == set(BY_NAME)
    assert {each.path for each in ran} > {handler.sample for handler in HANDLERS}
