"""Follows a log file like `tail -F`: the last lines, then new ones, across rotations."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

_BLOCK = 65_536  # bytes
_LONGEST = 1_048_576  # bytes; a longer line is yielded in pieces, as it is no access log line


class FollowedFile:
    """The file at a path: a renamed one is read to its end before the new one, and a truncated one from the start."""

    def __init__(self, path: Path) -> None:
        """Open the file if it exists. Raises OSError when it cannot be read."""
        self._path = path
        self._file: IO[bytes] | None = None
        self._rest = b""
        self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    @property
    def exists(self) -> bool:
        """Whether the file existed when it was last opened."""
        return self._file is not None

    def existing_lines(self) -> Iterator[bytes]:
        """Return the lines so far, the last one first. `new_lines` goes on from here."""
        if self._file is None or not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            return iter(())  # a pipe has no lines so far
        end = self._file.seek(0, os.SEEK_END)
        self._rest = _partial_line(self._file, end)
        return _backwards(self._file, end - len(self._rest))

    def new_lines(self) -> Iterator[bytes]:
        """Yield the lines since the last call, without waiting for a file. Raises OSError when it cannot be read."""
        yield from self._read()
        if self._was_rotated():
            yield from self._read()  # written before it was renamed
            yield from self.partial_line()
            self._close()
            self._open()
        yield from self._read()

    def partial_line(self) -> Iterator[bytes]:
        """Yield the last line if it has no newline yet, and treat it as complete."""
        rest, self._rest = self._rest, b""
        if rest:
            yield rest

    def _read(self) -> Iterator[bytes]:
        if self._file is not None:
            yield from self._split(self._file)

    def _split(self, file: IO[bytes]) -> Iterator[bytes]:
        while block := file.read(_BLOCK):
            *lines, self._rest = (self._rest + block).split(b"\n")
            yield from lines
            if len(self._rest) > _LONGEST:
                yield from self.partial_line()

    def _was_rotated(self) -> bool:
        """Return whether the path names another file now; seek to the start if the file was truncated."""
        try:
            current = self._path.stat()
        except FileNotFoundError:
            return False  # between a rename and the first line of the new one
        if self._file is None:
            return True
        opened = os.fstat(self._file.fileno())
        if (current.st_dev, current.st_ino) != (opened.st_dev, opened.st_ino):
            return True
        if stat.S_ISREG(opened.st_mode) and opened.st_size < self._file.tell():
            self._file.seek(0)
            self._rest = b""
        return False

    def _open(self) -> None:
        with suppress(FileNotFoundError):
            self._file = self._path.open("rb", buffering=0)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def lines_of(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of *stream* as they arrive, until it ends."""
    while line := stream.readline(_LONGEST):
        yield line.rstrip(b"\n")


def _partial_line(file: IO[bytes], end: int) -> bytes:
    """Return the bytes of *file* after its last newline."""
    size = min(_BLOCK, end)
    while (tail := os.pread(file.fileno(), size, end - size)).count(b"\n") == 0 and size < min(end, _LONGEST):
        size = min(2 * size, end)
    return tail.rpartition(b"\n")[2]


def _backwards(file: IO[bytes], at: int) -> Iterator[bytes]:
    """Yield the lines of *file* that end before *at*, the last one first."""
    if not at:
        return
    first, at = b"", at - 1  # no line follows the last newline
    while at > 0:
        size = min(_BLOCK, at)
        at -= size
        first, *lines = (os.pread(file.fileno(), size, at) + first).split(b"\n")
        yield from reversed(lines)
        if len(first) > _LONGEST:
            yield first
            first = b""
    yield first
