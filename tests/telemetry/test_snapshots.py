"""What workers write down is read by the others whole or not at all, and never twice."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from machpay_gateway.telemetry.metrics import Counts, Series
from machpay_gateway.telemetry.snapshots import Snapshots
from tests.clocks import FixedClock

LOST: Series = ("machpay_access_log_lost_total", ())
OPEN: Series = ("machpay_connections", ())
NOW = 1_700_000_000.0


def counts(lost: float, connections: float = 0) -> Counts:
    return {LOST: [lost], OPEN: [connections]}


@pytest.fixture(scope="module")
def gone() -> int:
    """Return the number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_ended_workers_keep_their_counts_and_lose_their_gauges(tmp_path: Path, gone: int) -> None:
    mine, theirs, last = Snapshots(tmp_path), Snapshots(tmp_path), Snapshots(tmp_path)
    mine.write(counts(1, 10))
    theirs.write(counts(2, 20))
    last.write(counts(3, 30), is_last=True)  # its process still runs, but not for long
    Snapshots(tmp_path, process=gone).write(counts(4, 40))  # killed
    reading = mine.read()
    assert reading.counts == {LOST: [10.0], OPEN: [30.0]}
    assert (reading.living, reading.unreadable) == (2, 0)


def test_a_worker_without_recent_writes_loses_its_gauges(tmp_path: Path) -> None:
    clock = FixedClock(NOW)
    hung, mine = Snapshots(tmp_path, clock=clock), Snapshots(tmp_path, clock=clock)
    hung.write(counts(1, 10))
    for path in tmp_path.glob("*.json"):
        os.utime(path, (NOW - 11, NOW - 11))
    mine.write(counts(2, 20))
    for path in tmp_path.glob("*.json"):
        if path.stat().st_mtime > NOW:
            os.utime(path, (NOW - 9, NOW - 9))
    reading = mine.read()
    assert reading.counts == {LOST: [3.0], OPEN: [20.0]}
    assert reading.living == 1


def test_unchanged_counts_only_update_the_modification_time(tmp_path: Path) -> None:
    mine = Snapshots(tmp_path)
    mine.write(counts(1))
    (path,) = tmp_path.glob("*.json")
    os.utime(path, (NOW, NOW))
    before = path.stat()
    mine.write(counts(1))
    assert path.stat().st_ino == before.st_ino
    assert path.stat().st_mtime > before.st_mtime
    mine.write(counts(2))
    assert path.stat().st_ino != before.st_ino


def test_files_of_ended_workers_are_merged(tmp_path: Path, gone: int) -> None:
    mine = Snapshots(tmp_path)
    mine.write(counts(1))
    for number in range(5):
        Snapshots(tmp_path, process=gone).write(counts(10 * number))
        assert mine.read().counts[LOST] == [1.0 + sum(10.0 * n for n in range(number + 1))]
    assert mine.read().counts[LOST] == [101.0]
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ["", ".json", ".json"]


def test_an_unfinished_file_of_an_ended_worker_is_removed(tmp_path: Path, gone: int) -> None:
    Snapshots(tmp_path, process=gone).write(counts(10))
    (written,) = tmp_path.glob("*.json")
    written.with_suffix(".new").write_bytes(b"{")  # the worker was killed while it wrote its next snapshot
    assert Snapshots(tmp_path).read().counts[LOST] == [10.0]
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".new"] == []


def test_a_crash_between_merging_and_removing_counts_nothing_twice(
    tmp_path: Path, gone: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Snapshots(tmp_path)
    mine.write(counts(1))
    Snapshots(tmp_path, process=gone).write(counts(10))

    def killed(self: Path, *, missing_ok: bool = False) -> None:
        raise KeyboardInterrupt(self, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            mine.read()
    assert len(list(tmp_path.glob("*.json"))) == 3
    for _ in range(2):
        assert mine.read().counts[LOST] == [11.0]
    Snapshots(tmp_path, process=gone).write(counts(100))
    assert mine.read().counts[LOST] == [111.0]
    assert mine.read().counts[LOST] == [111.0]
    assert len(list(tmp_path.glob("*.json"))) == 2


def test_workers_that_are_merged_during_a_read_are_counted_once(tmp_path: Path, gone: int) -> None:
    theirs, moves = Snapshots(tmp_path), [1]

    class Slow(Snapshots):
        def _load_file(self, name: str) -> Any:  # noqa: ANN401 - of a type of that module's own
            it = super()._load_file(name)
            if name != "ended" and moves:  # it has what the first worker counted
                moves.pop()
                theirs.read()  # adds up the first
                Snapshots(tmp_path, process=gone).write(counts(100))
                theirs.read()  # adds up the second, and forgets whose counts were added before
            return it

    Snapshots(tmp_path, process=gone).write(counts(10))
    mine = Slow(tmp_path)
    assert [mine.read().counts[LOST] for _ in range(2)] == [[110.0], [110.0]]
    assert not moves


def test_only_one_worker_merges_at_a_time(tmp_path: Path, gone: int) -> None:
    mine = Snapshots(tmp_path)
    mine.write(counts(1))
    Snapshots(tmp_path, process=gone).write(counts(10))
    holder = (
        "import fcntl, sys; file = open(sys.argv[1], 'ab'); fcntl.flock(file, fcntl.LOCK_EX); "
        "print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", holder, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert mine.read().counts[LOST] == [11.0]
        assert not (tmp_path / "ended.json").exists()
        process.communicate()
    assert mine.read().counts[LOST] == [11.0]
    assert (tmp_path / "ended.json").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"format":1,"process":1,"is_last":fa',
        b'{"format":2,"process":1,"is_last":false,"folded":[],"counts":[]}',
        b'{"format":1}',
        b"[]",
        b'{"format":1,"process":1,"is_last":false,"folded":[],"counts":[["machpay_connections",[],["many"]]]}',
        b'{"format":1,"process":1,"is_last":false,"folded":[],"counts":[7]}',
    ],
)
def test_an_unreadable_file_is_left_out_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    mine = Snapshots(tmp_path)
    mine.write(counts(1, 2))
    (tmp_path / "1-torn.json").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            reading = mine.read()
            assert (reading.counts, reading.living, reading.unreadable) == ({LOST: [1.0], OPEN: [2.0]}, 1, 1)
    assert [record.getMessage() for record in caplog.records] == [
        "A snapshot of a worker cannot be read: 1-torn is left out of the metrics."
    ]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Snapshots(tmp_path)
    mine.write(counts(1))

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device", self, len(data))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            mine.write(counts(2))
    assert mine.read().counts[LOST] == [1.0]
    mine.write(counts(2))
    assert mine.read().counts[LOST] == [2.0]


def test_a_full_disk_does_not_prevent_reading(
    tmp_path: Path, gone: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mine = Snapshots(tmp_path)
    mine.write(counts(1))
    Snapshots(tmp_path, process=gone).write(counts(10))

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device", self, len(data))

    monkeypatch.setattr(Path, "write_bytes", full)
    for _ in range(2):
        assert mine.read().counts[LOST] == [11.0]
    assert len(caplog.records) == 1
    assert "cannot be merged into one file: [Errno 28] No space left on device" in caplog.text
