"""Five thousand targets, with every escape in each place, through our proxy and others: the same bytes."""

from pathlib import Path

import pytest

from tests.forward_auth.proxies import KINDS
from tests.paths.forwarded_targets import compare
from tests.paths.sent_targets import REASONS, SAME, targets

_TARGETS = 5000

pytestmark = [pytest.mark.drill, pytest.mark.timeout(900)]


@pytest.mark.parametrize("kind", ["nginx", "envoy"])
async def test_the_bytes_of_thousands_of_targets_are_forwarded(kind: str, tmp_path: Path) -> None:
    if KINDS[kind].binary() is None:
        pytest.skip(f"there is no {kind}")
    reasons = await compare(kind, tmp_path, list(targets(_TARGETS)))
    assert set(reasons) == set(REASONS)
    print(f"{_TARGETS} targets beside {kind}:")
    for reason, count in sorted(reasons.items(), key=lambda item: -item[1]):
        print(f"{count:6} {'the same bytes' if reason == SAME else reason}")
