"""The lock of the only process that counts, on a file that cannot be locked."""

from pathlib import Path

import pytest

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.limiters.process_lock import ProcessLock


async def test_a_lock_file_that_cannot_be_opened_stops_the_start_and_is_named(tmp_path: Path) -> None:
    # As a file of another user of the host: opening a directory fails in the same way, for root as well.
    with pytest.raises(ConfigurationError, match=f"{tmp_path} cannot be locked .*: remove it, or set redis"):
        await ProcessLock(tmp_path).acquire()
