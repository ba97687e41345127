"""The right to be the only process that counts, where it cannot even be asked for."""

from pathlib import Path

import pytest

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.limiters.process_lock import ProcessLock


async def test_a_lock_that_cannot_be_opened_stops_the_start_and_is_named(tmp_path: Path) -> None:
    # As one that another user of the host made first: to open a directory fails likewise, and for root, too.
    with pytest.raises(ConfigurationError, match=f"{tmp_path} cannot be locked .*: remove it, or set redis"):
        await ProcessLock(tmp_path).take()
