"""Whether files have changed, such as certificates that are renewed."""

from collections.abc import Sequence
from pathlib import Path

_State = tuple[int, int, int] | None


class FileWatch:
    """Tells when files have changed, once they have stopped changing."""

    def __init__(self, paths: Sequence[str]) -> None:
        """Watch the files at *paths*, by their times, sizes and inodes."""
        self._paths = paths
        self._used = self._latest = self._states()

    def have_changed(self) -> bool:
        """Return whether they have changed since this was last true, and are as they were at the last call."""
        states = self._states()
        # A certificate and its key are two files: between the two writes they do not match.
        is_stable, self._latest = states == self._latest, states
        if states == self._used or not is_stable:
            return False
        self._used = states
        return True

    def _states(self) -> Sequence[_State]:
        return [_state(path) for path in self._paths]


def _state(path: str) -> _State:
    try:
        state = Path(path).stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino
