"""Divides the local share among the processes of this host, so that together they never admit more than one of them.

Each process has a file in a folder, locked for its life: the system releases the lock however the process ends. While
a process decides alone, its file says which part of every limit it has claimed; the claims in all files sum to at most
1. So one that comes later waits until others give up a part, or until one ends. A part that is left behind comes with
what was admitted from it: in the file after a graceful end, unknown after any other, and then the part counts as used
up for one window.

Files are written in place and under the folder's lock, which is never waited for long: a suspended process may hold it.
Times are those of the monotonic clock, which all processes share. After a reboot it is behind, which counts as now.
"""

import fcntl
import logging
import os
import stat
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple

import orjson

from machpay_gateway.core.limits.rate import Limits, Quota, Rate
from machpay_gateway.core.limits.window import cells_of

logger = logging.getLogger(__name__)

_EPSILON = 1e-9  # of sums of parts, such as three thirds
_UNSEEN_SECONDS = 5.0  # for which a process may have decided alone after it last said so
_DEFAULT_WINDOW = 60
_TRIES, _TRY_SECONDS = 20, 0.001  # for the folder's lock, at the start and once in an outage
_TOTAL = "total"
_INVALID = (ValueError, TypeError, KeyError, AttributeError)


StoredBatches = Mapping[str, Sequence[tuple[int, int]]]  # the numbers of batches and their units, by quotas' names


class Count(NamedTuple):
    """The *units* taken of one limit, of which some are *unreported*. They count for *seconds*."""

    units: int
    unreported: int
    seconds: float


class Spent(NamedTuple):
    """What was taken of one subject's *rates* and *quotas*, at *taken_at* or before: *counts*, by the limit's name.

    *version* and *concurrency* are those of its newest request, by which the server counts what is unreported. Of
    that, *batches* have stored some: their numbers and units, by the quota's name.
    """

    rates: tuple[Rate, ...]
    quotas: tuple[Quota, ...]
    concurrency: int | None
    version: int
    counts: Mapping[str, Count]
    taken_at: float
    batches: StoredBatches

    def counts_at(self, now: float) -> bool:
        """Return whether any of it still counts; of a quota, what is reported is in the stored counts too."""
        rates = {rate.name for rate in self.rates}
        return any(count.unreported or (count.units and name in rates) for name, count in self.living(now).items())

    def living(self, now: float) -> Mapping[str, Count]:
        """Return the counts that have not expired."""
        return {name: count for name, count in self.counts.items() if now < self.taken_at + count.seconds}

    def reported(self) -> "Spent":
        """Return it with nothing to report."""
        counts = {name: count._replace(unreported=0) for name, count in self.counts.items()}
        return self._replace(counts=counts, batches={})

    def living_batches(self, now: float) -> StoredBatches:
        """Return the batches of quotas whose counts have not expired."""
        living = self.living(now)
        return {name: batches for name, batches in self.batches.items() if name in living}


class Inherited(NamedTuple):
    """What was taken of one subject before this process had its part, *age* seconds ago or before.

    *rates* and *quotas* are the counts by name. When it *is_unknown*, any rate may be used up.
    """

    rates: Mapping[str, Count]
    quotas: Mapping[str, Count]
    age: float
    is_unknown: bool
    batches: StoredBatches

    def units(self, limit: Rate | Quota) -> int:
        """Return the units taken of *limit*: of a rate that is new, as many as of the fullest one."""
        if self.is_unknown and isinstance(limit, Rate):
            return limit.limit
        return self._count(limit).units

    def unreported(self, limit: Rate | Quota) -> int:
        """Return the units of *limit* that the server has to count."""
        return self._count(limit).unreported

    def _count(self, limit: Rate | Quota) -> Count:
        if isinstance(limit, Quota):
            return self.quotas.get(limit.name, _NONE)
        return self.rates.get(limit.name) or max(self.rates.values(), default=_NONE)


@dataclass(slots=True)
class _Record:
    """What the file of a process says. *alone_at* is when it last decided alone, if nobody knows what it admitted."""

    part: float = 0.0
    alone_at: float | None = None
    window_seconds: int = _DEFAULT_WINDOW  # the longest of its tiers
    spent: dict[bytes, Spent] = field(default_factory=dict)  # by the subjects' keys

    def counts_at(self, now: float) -> bool:
        """Return whether anything that was admitted from its part may still count."""
        is_unknown = self.alone_at is not None and now < self.alone_at + _UNSEEN_SECONDS + lasts(self.window_seconds)
        return is_unknown or any(spent.counts_at(now) for spent in self.spent.values())


_NONE = Count(0, 0, 0.0)


class _OtherFile(NamedTuple):
    path: Path
    record: _Record
    lives: bool


class ShareRegistry:
    """The part of this process. Without a *folder* there are no others that it knows of.

    *workers* is how many there are on this host in any case; with 0 of them, this process admits nothing and has no
    part. *expected* is how many there are on all hosts in any case.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        workers: int = 1,
        expected: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.admits = workers > 0
        self.divisor = max(1, workers, expected)  # of the limits, in each decision that is made alone
        self.window_seconds = _DEFAULT_WINDOW  # the longest of the limits that this process decides by
        self.spent: dict[bytes, Spent] = {}  # by the process before, from the part that is this one's now
        self._folder = folder
        self._workers = max(1, workers)
        self._expected = expected
        self._clock = clock
        self._record = _Record()
        self._path: Path | None = None
        self._file = -1
        self._written = b""
        self._has_left = False
        self._unknown_at: float | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether this process has no part yet, or none any more, and so may admit nothing alone."""
        return self._has_left or (self._file >= 0 and not self._record.part)

    @property
    def unknown_age(self) -> float | None:
        """How long ago an unknown number of units was last taken from this part, None if that counts no more."""
        if self._unknown_at is None:
            return None
        age = self._clock() - self._unknown_at
        return age if age < lasts(self._record.window_seconds) else None

    @property
    def is_joined(self) -> bool:
        """Whether other processes of this host can take over what this one leaves."""
        return self._file >= 0

    def inherit(self, key: bytes) -> Inherited | None:
        """Return what was taken before of the subject of *key*; from now on this process reports it. None: nothing."""
        unknown_age, spent, now = self.unknown_age, self.spent.get(key), self._clock()
        if spent is None:
            return None if unknown_age is None else Inherited({}, {}, unknown_age, is_unknown=True, batches={})
        self.spent[key] = spent.reported()
        living, age = spent.living(now), now - spent.taken_at
        return Inherited(
            {rate.name: living[rate.name] for rate in spent.rates if rate.name in living},
            {quota.name: living[quota.name] for quota in spent.quotas if quota.name in living},
            age if unknown_age is None else min(age, unknown_age),
            unknown_age is not None,
            spent.living_batches(now),
        )

    def unreported(self, spent: Spent) -> tuple[Mapping[str, int], StoredBatches]:
        """Return the units of *spent* to report, by the limit's name, and the batches that have stored some of them."""
        now = self._clock()
        living = spent.living(now)
        return {name: living.get(name, _NONE).unreported for name in spent.counts}, spent.living_batches(now)

    def new_spent(self, limits: Limits, version: int, counts: Mapping[str, Count], batches: StoredBatches) -> Spent:
        """Return what was taken until now of a subject that has *limits*."""
        return Spent(limits.rates, limits.quotas, limits.concurrency, version, counts, self._clock(), batches)

    def open(self) -> None:
        """Join the processes of this host."""
        self._abandon()
        self._record, self.spent, self._unknown_at, self._has_left = _Record(), {}, None, False
        self._written = b""
        self.divisor = max(self._workers, self._expected)
        if self._folder is None:
            return
        try:
            _make_private(self._folder)
            self._path = self._folder / token_hex(8)
            with _locked(self._folder, _TRIES) as is_locked:
                if not is_locked:
                    raise TimeoutError("another process holds its lock")
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._write()
        except OSError as exc:
            warning = "Workers of this host cannot share %s: while Redis is away, they may admit too much. %s"
            logger.warning(warning, self._folder, exc)
            self._folder = None
        self.refresh(None, lambda _: True, is_alone=False)

    def refresh(self, total: int | None, fits: Callable[[int], bool], *, is_alone: bool) -> None:
        """Claim the part that is due now, if it is free, or give up what is too much. Raises OSError.

        *total* is the number of workers on all hosts as Redis last told it, None when it never did. *fits* returns
        whether all that this process has admitted alone fits into the limits divided by a number. *is_alone* is whether
        it decides so now: else it needs no part.
        """
        if self._has_left:
            return
        if self._folder is None or self._file < 0:
            self.divisor = max(self._workers, self._expected, total or self.divisor)
            return
        is_first = is_alone and not self._record.part
        with _locked(self._folder, _TRIES if is_first else 1) as is_locked:
            if is_locked:
                self._divide(self._folder, total, fits, is_alone=is_alone)

    def take_left_behind(self, is_reportable: Callable[[bytes], bool] = lambda _: True) -> Mapping[bytes, Spent]:
        """Return what ended processes have left to report to Redis, and what this one has inherited, by subjects' keys.

        What is not *reportable* now stays. Raises OSError.
        """
        spent = {key: it for key, it in self.spent.items() if is_reportable(key)}
        self.spent = {key: it for key, it in self.spent.items() if key not in spent}
        self._record.spent = self.spent
        if self._folder is None or self._file < 0:
            return spent
        with _locked(self._folder, _TRIES) as is_locked:
            for path, left, lives in self._read_others(self._folder, self._clock()) if is_locked else ():
                if not lives:
                    taken = {key: it for key, it in left.spent.items() if is_reportable(key)}
                    _merge(spent, taken)
                    # The file stays: who does not reach Redis yet must not take that part for unused.
                    left.spent |= {key: it.reported() for key, it in taken.items()}
                    path.write_bytes(_encode(left))
        return spent

    def leave(self, spent: Mapping[bytes, Spent]) -> None:
        """Give the part up, with what was *spent* of it: another process may take it. Raises OSError."""
        self._has_left = True
        if self._file < 0:
            return
        now = self._clock()
        self._record.spent = {key: it for key, it in {**self.spent, **spent}.items() if it.counts_at(now)}
        self._record.alone_at = self._unknown_at
        if not self._record.counts_at(now):
            self._abandon()
            return
        self._write()
        os.close(self._file)
        self._file = -1

    def _divide(self, folder: Path, total: int | None, fits: Callable[[int], bool], *, is_alone: bool) -> None:
        now, record = self._clock(), self._record
        others = self._read_others(folder, now)
        seen = _total_of(folder, total, is_alone=is_alone)
        here = max(self._workers, 1 + sum(it.lives for it in others))
        wanted = max(here, seen, self._expected)
        # The rest is for other hosts: who restarts here must not have a part of theirs each time.
        due, free = 1 / wanted, here / wanted - sum(it.record.part for it in others)
        if not is_alone:
            record.part = 0.0
        elif free + _EPSILON >= due > record.part:
            record.part = due
        elif not record.part:
            self._inherit([it for it in others if not it.lives], due)
        elif record.part > due and fits(wanted) and self._inherited_fits(wanted, now):
            record.part = due
        self.divisor = max(wanted, ceil(1 / record.part - _EPSILON)) if record.part else wanted
        if record.part:  # from now on nobody else knows what is admitted, until this process leaves
            record.alone_at, record.spent = now, {}
            record.window_seconds = max(record.window_seconds, self.window_seconds)
        self._write()

    def _inherited_fits(self, workers: int, now: float) -> bool:
        if self.unknown_age is not None:
            return False
        return all(
            count.units * workers <= rate.limit
            for spent in self.spent.values()
            for rate in spent.rates
            if (count := spent.living(now).get(rate.name)) is not None
        )

    def _inherit(self, left_behind: list[_OtherFile], due: float) -> None:
        """Take parts that ended processes have *left behind*, until there is enough, with what was spent of them."""
        record = self._record
        for path, left, _ in left_behind:
            if record.part + _EPSILON >= due:
                return
            record.part += left.part
            record.window_seconds = max(record.window_seconds, left.window_seconds)
            record.alone_at = self._clock()
            self._write()  # before the other file goes
            path.unlink(missing_ok=True)
            _merge(self.spent, left.spent)
            if left.alone_at is not None:
                ended_at = min(self._clock(), left.alone_at + _UNSEEN_SECONDS)
                self._unknown_at = max(ended_at, self._unknown_at or 0.0)

    def _read_others(self, folder: Path, now: float) -> list[_OtherFile]:
        """Return the files of the others, and remove those of which nothing counts any more."""
        others = []
        for path in sorted(folder.iterdir()):
            if path == self._path or path.name in {_TOTAL, "lock"}:
                continue
            file = os.open(path, os.O_RDWR)
            try:
                record = _parse(os.pread(file, os.fstat(file).st_size, 0), now)
                lives = not _takes_lock(file)
            finally:
                os.close(file)
            if lives or (record.part and record.counts_at(now)):
                others.append(_OtherFile(path, record, lives))
            else:
                path.unlink(missing_ok=True)
        return others

    def _write(self) -> None:
        line = _encode(self._record)
        if line != self._written:
            # Whatever is behind the first line is of an earlier, longer one.
            os.pwrite(self._file, line, 0)
            self._written = line

    def _abandon(self) -> None:
        """Leave as a killed process does, but for a part of which nothing counts."""
        if self._file < 0:
            return
        if not self._record.counts_at(self._clock()) and self._path is not None:
            self._path.unlink(missing_ok=True)
        os.close(self._file)
        self._file = -1


def lasts(window_seconds: int) -> float:
    """Return for how long units count in a window: until its oldest cell has expired."""
    return window_seconds * (1 + 1 / cells_of(window_seconds))


def _takes_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make_private(folder: Path) -> None:
    """Create *folder*, or check that nobody else can write there. Raises OSError."""
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise PermissionError(f"{folder} is not a folder of this user")


def _encode(record: _Record) -> bytes:
    spent = {b64encode(key).decode(): it for key, it in record.spent.items()}
    values = {name: getattr(record, name) for name in ("part", "alone_at", "window_seconds")}
    return orjson.dumps(values | {"spent": spent}, default=tuple) + b"\n"


def _parse(data: bytes, now: float) -> _Record:
    """Return the record in *data*; what cannot be read may be the whole limit, used up until *now*."""
    try:
        it = orjson.loads(data.partition(b"\n")[0])
        spent = {b64decode(key): _parse_spent(values, now) for key, values in it["spent"].items()}
        at = it["alone_at"]
        return _Record(float(it["part"]), None if at is None else min(at, now), int(it["window_seconds"]), spent)
    except _INVALID:
        return _Record(1.0, now)


def _parse_spent(values: Sequence[Any], now: float) -> Spent:
    rates, quotas, concurrency, version, counts, at, batches = values
    taken_at = min(at, now)
    return Spent(
        tuple(Rate(*rate) for rate in rates),
        tuple(Quota(*quota) for quota in quotas),
        concurrency,
        version,
        {name: Count(*count) if now < taken_at + count[2] else _NONE for name, count in counts.items()},
        taken_at,
        {name: [(int(number), int(units)) for number, units in stored] for name, stored in batches.items()},
    )


def _merge(spent: dict[bytes, Spent], more: Mapping[bytes, Spent]) -> None:
    """Add *more* to what was *spent*."""
    for key, other in more.items():
        if (one := spent.get(key)) is None:
            spent[key] = other
            continue
        newer = max(one, other, key=lambda it: (it.version, it.taken_at))
        older = other if newer is one else one
        counts = {name: _sum(count, older.counts.get(name, _NONE)) for name, count in newer.counts.items()}
        batches = {name: [*newer.batches.get(name, ()), *older.batches.get(name, ())] for name in counts}
        spent[key] = newer._replace(counts=counts, taken_at=max(one.taken_at, other.taken_at), batches=batches)


def _sum(one: Count, other: Count) -> Count:
    return Count(one.units + other.units, one.unreported + other.unreported, one.seconds)


def _total_of(folder: Path, total: int | None, *, is_alone: bool) -> int:
    """Return the number of workers on all hosts as Redis last said to any process of this host."""
    path = folder / _TOTAL
    try:
        stored = int(path.read_text())
    except (FileNotFoundError, ValueError):
        stored = 1
    if total is None or is_alone:
        return max(stored, total or 1)
    if total != stored:
        path.write_text(str(total))
    return total


@contextmanager
def _locked(folder: Path, tries: int) -> Iterator[bool]:
    """Hold the lock of *folder*; False when another process has it at each of some *tries*."""
    file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        is_locked = _takes_lock(file)
        while not is_locked and (tries := tries - 1) > 0:
            time.sleep(_TRY_SECONDS)
            is_locked = _takes_lock(file)
        yield is_locked
    finally:
        os.close(file)
