"""Snapshot files with the counts of each worker, so that any worker can expose the metrics of all.

A file is written under another name and renamed, so that readers get the old or the new one, never a part. Files of
ended workers are merged into one; otherwise there would be one for each worker that was ever started.
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
_ENDED = "ended"  # the file with the counts of ended workers
_ALIVE_SECONDS = 10.0  # since the last write of a worker; afterwards it hangs
_INVALID = ValueError, TypeError, KeyError, AttributeError  # raised for a file that is no snapshot


class _SnapshotFile(NamedTuple):
    counts: Mapping[Series, list[float]]
    process: int
    is_last: bool
    folded: frozenset[str]  # names of files whose counts are included
    written_at: float


class WorkerTotals(NamedTuple):
    """The counts of all workers, the number of living ones, and the number of unreadable files."""

    counts: Counts
    living: int
    unreadable: int


class Snapshots:
    """The snapshot of one worker, in a *folder* that all workers share. Not thread-safe."""

    def __init__(self, folder: Path, *, process: int | None = None, clock: Callable[[], float] = time.time) -> None:
        """Write for *process*, by default this one. *clock* is in seconds since the epoch, like modification times."""
        self._folder = folder
        self._process = os.getpid() if process is None else process
        self._clock = clock
        self._name = f"{self._process}-{token_hex(4)}"
        self._written = b""
        self._logged: set[str] = set()

    def write(self, counts: Mapping[Series, list[float]], *, is_last: bool = False) -> None:
        """Write *counts*; if they have not changed, only update the modification time. Raises OSError."""
        data = _data(counts, self._process, is_last=is_last)
        if data == self._written:
            os.utime(self._path(self._name))
            return
        self._replace(self._name, data)
        self._written = data

    def read(self) -> WorkerTotals:
        """Return the totals over all workers. Raises OSError when the folder cannot be read."""
        files, unreadable = self._load_all()
        left = {name for name, it in files.items() if name != _ENDED and not _is_running(it.process)}
        if left:
            try:
                self._fold(left)
            except OSError as exc:  # for example a full disk: then they are merged at each read
                self._warn_once(f"The counts of ended workers cannot be merged into one file: {exc}")
        snapshots = {name: Snapshot(it.counts, self._lives(it)) for name, it in files.items()}
        living = sum(snapshot.lives for snapshot in snapshots.values())
        return WorkerTotals(merge_snapshots(snapshots.values()), living, unreadable)

    def _lives(self, it: _SnapshotFile) -> bool:
        is_recent = self._clock() - it.written_at < _ALIVE_SECONDS
        return is_recent and not it.is_last and _is_running(it.process)

    def _load_all(self) -> tuple[dict[str, _SnapshotFile], int]:
        """Return the files by name, so that each count occurs once, and the number of unreadable ones."""
        before, _ = self._load([_ENDED])
        while True:
            names = sorted(path.stem for path in self._folder.glob("*.json") if path.stem != _ENDED)
            # In this order: a file that is folded in between is missing from the first ones, but included in the last.
            files, unreadable = self._load([*names, _ENDED])
            # A second fold in between drops the names of the first from `folded`; their counts would occur twice.
            if files.get(_ENDED) == before.get(_ENDED):
                break
            before = files
        folded = files[_ENDED].folded if _ENDED in files else frozenset()
        return {name: it for name, it in files.items() if name not in folded}, unreadable

    def _load(self, names: Iterable[str]) -> tuple[dict[str, _SnapshotFile], int]:
        """Return those of the files *names* that exist, and the number of unreadable ones."""
        files, unreadable = {}, 0
        for name in names:
            try:
                files[name] = self._load_file(name)
            except FileNotFoundError:
                continue
            except (OSError, *_INVALID):
                unreadable += 1
                self._warn_once(f"A snapshot of a worker cannot be read: {name} is left out of the metrics.")
        return files, unreadable

    def _load_file(self, name: str) -> _SnapshotFile:
        with self._path(name).open("rb") as file:
            written_at = os.fstat(file.fileno()).st_mtime
            it: dict[str, Any] = orjson.loads(file.read())
        if it["format"] != _FORMAT:
            raise ValueError(it["format"])
        counts = {(metric, tuple(labels)): list(map(float, values)) for metric, labels, values in it["counts"]}
        return _SnapshotFile(counts, int(it["process"]), bool(it["is_last"]), frozenset(it["folded"]), written_at)

    def _warn_once(self, warning: str) -> None:
        """Log *warning* the first time only, not at each scrape."""
        if warning not in self._logged:
            self._logged.add(warning)
            logger.warning("%s", warning)

    def _fold(self, names: Collection[str]) -> None:
        """Merge the files *names* into that of ended workers, and remove them."""
        with self._lock() as is_locked:
            if not is_locked:
                return
            files, _ = self._load_all()
            left = [files[name] for name in names if name in files]
            before = files.get(_ENDED)
            was_folded = before.folded if before is not None else frozenset()
            # A file is listed as folded as long as it exists. Otherwise a concurrent reader, or one after a crash
            # before the removal, would count it twice.
            folded = [name for name in {*was_folded, *names} if self._path(name).exists()]
            sums = merge_snapshots(Snapshot(it.counts, lives=False) for it in (*left, *([before] if before else [])))
            self._replace(_ENDED, _data(sums, 0, is_last=True, folded=folded))
            for name in folded:
                self._path(name).unlink(missing_ok=True)
                self._path(name, "new").unlink(missing_ok=True)

    @contextmanager
    def _lock(self) -> Iterator[bool]:
        """Hold the lock for folding; False when another worker has it."""
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
    except (ProcessLookupError, PermissionError):  # another user's process has reused the id
        return False
    return True
