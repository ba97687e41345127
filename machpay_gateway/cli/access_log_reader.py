"""Lines of a file that others write: the last ones that are there, and then those that come, however it is rotated."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

_BLOCK = 65_536  # bytes
_LONGEST = 1_048_576  # bytes of a line; what goes on beyond them is handed out in pieces, and is no line of ours


class Followed:
    """The file of that name, as `tail -F` reads it: a renamed one to its end, then the new one, and a cut one anew."""

    def __init__(self, path: Path) -> None:
        """Open it, if it is there. Raises OSError when it cannot be read."""
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
    def is_there(self) -> bool:
        """Whether there is such a file, or was when it was looked for last."""
        return self._file is not None

    def before(self) -> Iterator[bytes]:
        """Return the lines that are there, the last one first. What comes from now on is for `arrived`."""
        if self._file is None or not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            return iter(())  # a pipe has nothing yet
        end = self._file.seek(0, os.SEEK_END)
        self._rest = _unfinished(self._file, end)
        return _backwards(self._file, end - len(self._rest))

    def arrived(self) -> Iterator[bytes]:
        """Yield the lines that have come since; it waits for none of a file. Raises OSError when it cannot be read."""
        yield from self._read()
        if self._is_another():
            yield from self._read()  # what came before it was renamed
            yield from self.unfinished()
            self._close()
            self._open()
        yield from self._read()

    def unfinished(self) -> Iterator[bytes]:
        """Yield what is there of a line that has no end, and take it for one."""
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
                yield from self.unfinished()

    def _is_another(self) -> bool:
        """Tell whether the name is another file's now; start anew where it is the same and was cut."""
        try:
            named = self._path.stat()
        except FileNotFoundError:
            return False  # between a rename and the first line of the new one
        if self._file is None:
            return True
        opened = os.fstat(self._file.fileno())
        if (named.st_dev, named.st_ino) != (opened.st_dev, opened.st_ino):
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
    """Yield the lines of *stream* as they come, until it ends."""
    while line := stream.readline(_LONGEST):
        yield line.rstrip(b"\n")


def _unfinished(file: IO[bytes], end: int) -> bytes:
    """Return what stands behind the last line of *file* that has an end."""
    size = min(_BLOCK, end)
    while (found := os.pread(file.fileno(), size, end - size)).count(b"\n") == 0 and size < min(end, _LONGEST):
        size = min(2 * size, end)
    return found.rpartition(b"\n")[2]


def _backwards(file: IO[bytes], at: int) -> Iterator[bytes]:
    """Yield the lines of *file* that end before *at*, the last one first."""
    if not at:
        return
    first, at = b"", at - 1  # the end of the last one begins none
    while at > 0:
        size = min(_BLOCK, at)
        at -= size
        first, *lines = (os.pread(file.fileno(), size, at) + first).split(b"\n")
        yield from reversed(lines)
        if len(first) > _LONGEST:
            yield first
            first = b""
    yield first
