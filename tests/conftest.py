"""What holds for every test: temporary files live in memory where there is room for them."""

import os
import shutil
import tempfile
from pathlib import Path

_TMPFS = Path("/dev/shm")  # noqa: S108 - temporary files are what it is for
# A whole run leaves less than half of this behind at any time. Containers get 64 MB by default, which is too little.
_ROOM_BYTES = 2 * 1024**3


def _keep_temporary_files_in_memory() -> None:
    """Point TMPDIR at a tmpfs: databases wait for fsync otherwise, which doubles the time of the stores' tests."""
    if "TMPDIR" in os.environ or not os.access(_TMPFS, os.W_OK) or shutil.disk_usage(_TMPFS).free < _ROOM_BYTES:
        return
    os.environ["TMPDIR"] = tempfile.tempdir = str(_TMPFS)  # processes that tests start inherit it


_keep_temporary_files_in_memory()
