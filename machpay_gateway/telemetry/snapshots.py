"""Files in which each worker keeps what it has counted, so that any of them can tell what all have.

A file is written beside its place and renamed into it: whoever reads has the old one or the new one. What workers that
have ended leave behind is added up into one file, or there would be one more for each that was ever started.
"""

import fcntl
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple

import orjson

from machpay_gateway.telemetry.metrics import Counts, Series, Snapshot, merge_snapshots

logger = logging.getLogger(__name__)

_FORMAT = 1
_ENDED = "ended"  # the file that has what is left of workers that have ended
_LIVES_SECONDS = 10.0  # since a worker was last heard of: one that hangs does nothing now
_OTHER = ValueError, TypeError, KeyError, AttributeError  # what a file is not that is no snapshot


class _Read(NamedTuple):
    counts: Mapping[Series, list[float]]
    process: int
    is_last: bool
    folded: frozenset[str]  # files whose counts are among these
    heard_at: float


class WorkerTotals(NamedTuple):
    """What all workers have counted, how many of them live, and how many files could not be read."""

    counts: Counts
    living: int
    unreadable: int


class Snapshots:
    """One worker's snapshots in a *folder* that it shares with the others. Not for several threads at once."""

    def __init__(self, folder: Path, *, process: int | None = None, clock: Callable[[], float] = time.time) -> None:
        """Write as *process*, this one if it is None. *clock* is in seconds since the epoch, as the files' times."""
        self._folder = folder
        self._process = os.getpid() if process is None else process
        self._clock = clock
        self._name = f"{self._process}-{token_hex(4)}"
        self._written = b""
        self._told: set[str] = set()

    def write(self, counts: Mapping[Series, list[float]], *, is_last: bool = False) -> None:
        """Write *counts*, or when they are the same as before, only that this worker lives. Raises OSError."""
        data = _data(counts, self._process, is_last=is_last)
        if data == self._written:
            os.utime(self._path(self._name))
            return
        self._replace(self._name, data)
        self._written = data

    def read(self) -> WorkerTotals:
        """Return what all have counted. Raises OSError when the folder cannot be read."""
        found, unreadable = self._found()
        left = {name for name, it in found.items() if name != _ENDED and not _is_running(it.process)}
        if left:
            try:
                self._fold(left)
            except OSError as exc:  # a full disk: then they are added up anew each time
                self._tell(f"What ended workers have counted cannot be written down as one: {exc}")
        snapshots = {name: Snapshot(it.counts, self._lives(it)) for name, it in found.items()}
        living = sum(snapshot.lives for snapshot in snapshots.values())
        return WorkerTotals(merge_snapshots(snapshots.values()), living, unreadable)

    def _lives(self, it: _Read) -> bool:
        is_heard = self._clock() - it.heard_at < _LIVES_SECONDS
        return is_heard and not it.is_last and _is_running(it.process)

    def _found(self) -> tuple[dict[str, _Read], int]:
        """Return what is in the files, by their names, each count once, and how many files could not be read."""
        before, _ = self._readable([_ENDED])
        while True:
            names = sorted(path.stem for path in self._folder.glob("*.json") if path.stem != _ENDED)
            # In this order: what is folded between the two is missing among the first, and so is found in the last.
            found, unreadable = self._readable([*names, _ENDED])
            # A second fold meanwhile forgets what the first one folded, which then would be found in both.
            if found.get(_ENDED) == before.get(_ENDED):
                break
            before = found
        folded = found[_ENDED].folded if _ENDED in found else frozenset()
        return {name: it for name, it in found.items() if name not in folded}, unreadable

    def _readable(self, names: Iterable[str]) -> tuple[dict[str, _Read], int]:
        """Return what is in the files of these *names* that are there, and how many of them could not be read."""
        found, unreadable = {}, 0
        for name in names:
            try:
                found[name] = self._loaded(name)
            except FileNotFoundError:
                continue
            except (OSError, *_OTHER):
                unreadable += 1
                self._tell(f"What a worker has counted cannot be read: {name} is left out of the metrics.")
        return found, unreadable

    def _loaded(self, name: str) -> _Read:
        with self._path(name).open("rb") as file:
            heard_at = os.fstat(file.fileno()).st_mtime
            it: dict[str, Any] = orjson.loads(file.read())
        if it["format"] != _FORMAT:
            raise ValueError(it["format"])
        counts = {(metric, tuple(labels)): list(map(float, values)) for metric, labels, values in it["counts"]}
        return _Read(counts, int(it["process"]), bool(it["is_last"]), frozenset(it["folded"]), heard_at)

    def _tell(self, warning: str) -> None:
        """Log *warning* once: it would be told at each scrape."""
        if warning not in self._told:
            self._told.add(warning)
            logger.warning("%s", warning)

    def _fold(self, names: Collection[str]) -> None:
        """Add what is in the files of these *names* to what others have left, and remove them."""
        with self._alone() as is_alone:
            if not is_alone:
                return
            found, _ = self._found()
            left = [found[name] for name in names if name in found]
            before = found.get(_ENDED)
            was_folded = before.folded if before is not None else frozenset()
            # As long as a file is there it is said to be in the sum: whoever reads meanwhile, or finds it after a
            # crash between the two steps, would have it twice.
            folded = [name for name in {*was_folded, *names} if self._path(name).exists()]
            sums = merge_snapshots(Snapshot(it.counts, lives=False) for it in (*left, *([before] if before else [])))
            self._replace(_ENDED, _data(sums, 0, is_last=True, folded=folded))
            for name in folded:
                self._path(name).unlink(missing_ok=True)
                self._path(name, "new").unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Tell whether nobody else folds, and let nobody else begin."""
        with (self._folder / "lock").open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def _replace(self, name: str, data: bytes) -> None:
        new = self._path(name, "new")
        new.write_bytes(data)
        new.replace(self._path(name))

    def _path(self, name: str, kind: str = "json") -> Path:
        return self._folder / f"{name}.{kind}"


def _data(counts: Mapping[Series, list[float]], process: int, *, is_last: bool, folded: Collection[str] = ()) -> bytes:
    series = [(metric, labels, values) for (metric, labels), values in counts.items()]
    return orjson.dumps(
        {"format": _FORMAT, "process": process, "is_last": is_last, "folded": list(folded), "counts": series}
    )


def _is_running(process: int) -> bool:
    if process <= 0:
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, PermissionError):  # another user's is not one of ours: its number was used again
        return False
    return True
