"""What is forwarded is what came, byte for byte, or the table of reasons says why not."""

from pathlib import Path

import pytest

from tests.forward_auth.proxies import KINDS
from tests.paths.forwarded_targets import compare
from tests.paths.sent_targets import REASONS, targets

_TARGETS = 300  # a drill sends 5,000


@pytest.mark.skipif(KINDS["nginx"].binary() is None, reason="there is no nginx")
async def test_the_bytes_of_a_target_are_forwarded_as_nginx_forwards_them(tmp_path: Path) -> None:
    reasons = await compare("nginx", tmp_path, list(targets(_TARGETS)))
    assert set(reasons) == set(REASONS)
