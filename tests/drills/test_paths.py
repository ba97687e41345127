"""Five thousand spellings of listed paths on four servers: no handler runs for a caller who lacks its scopes."""

from collections import Counter

import pytest

from machpay_gateway.core.decision.policy import Unlisted
from machpay_gateway.core.network.proxy_settings import PathChoice
from tests.paths.attempts import handlers_that_ran
from tests.paths.fixtures import upstream
from tests.paths.handlers import BY_NAME, HELD
from tests.proxy.harness import Upstream

__all__ = ["upstream"]

_SPELLINGS = 5000

pytestmark = [pytest.mark.drill, pytest.mark.timeout(900)]


@pytest.mark.parametrize("choice", ["refuse", "allow"])
@pytest.mark.parametrize("unlisted", ["authenticated", "deny"])
async def test_no_spelling_of_thousands_reaches_a_handler_without_its_scopes(
    upstream: Upstream,
    unlisted: Unlisted,
    choice: PathChoice,
) -> None:
    ran = await handlers_that_ran(upstream, unlisted, _SPELLINGS, choice)
    wrong = [each for each in ran if not each.is_held]
    handlers = dict(Counter(each.handler for each in ran))
    tried = f"{_SPELLINGS} spellings, {len(HELD)} callers, unlisted {unlisted}, slashes {choice}"
    print(f"{tried}: {len(wrong)} wrong; ran: {handlers}")
    assert wrong == []
    assert set(handlers) == set(BY_NAME)
