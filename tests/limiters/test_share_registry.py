"""How the processes of a host divide the local share. Each registry here stands for a process."""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count, takewhile
from pathlib import Path

import pytest

from machpay_gateway.core.limits.rate import Limits, Tier
from machpay_gateway.core.limits.window import CellWindow
from machpay_gateway.limiters.redis.share_registry import Count, ShareRegistry, lasts
from tests.clocks import FixedClock

TIER = Tier("20/minute", 4)
KEY = b"machpay:subject"


@dataclass
class Process:
    """A process that decides alone, as the limiter does, about one subject."""

    registry: ShareRegistry
    clock: FixedClock
    admitted_at: list[float]
    window: CellWindow = field(init=False)
    is_alone: bool = False
    has_begun: bool = False  # with a part

    def __post_init__(self) -> None:
        self.window = CellWindow(60, self.clock.now)
        self.registry.open()

    def admit(self) -> bool:
        if not self.is_alone:
            self.is_alone = True
            self.tick()
        if self.registry.is_waiting:
            return False
        if not self.has_begun:
            self.has_begun = True
            self._continue()
        limit = share_limit(self.registry.divisor)
        if not self.window.try_take(self.clock.now, 1, limit):
            return False
        self.admitted_at.append(self.clock.now)
        return True

    def use_up(self) -> int:
        return sum(1 for _ in takewhile(bool, (self.admit() for _ in count())))

    def tick(self) -> None:
        self.registry.refresh(None, self._fits, is_alone=self.is_alone)

    def leave(self) -> None:
        self.window.advance(self.clock.now)
        taken = self.window.taken
        counts = {"minute": Count(taken, taken, lasts(60))}
        spent = {KEY: self.registry.new_spent(TIER.limits, 1, counts, {})} if self.has_begun else {}
        self.registry.leave(spent)

    def kill(self) -> None:
        os.close(self.registry._file)  # noqa: SLF001 - as the system does

    def _fits(self, workers: int) -> bool:
        self.window.advance(self.clock.now)
        return self.window.taken <= share_limit(workers)

    def _continue(self) -> None:
        if (inherited := self.registry.inherit(KEY)) is not None:
            at, (rate,) = self.clock.now - inherited.age, TIER.limits.rates
            self.window = CellWindow(60, at)
            self.window.take(at, inherited.units(rate))


def share_limit(workers: int) -> int:
    return TIER.limits.local_share(workers).rates[0].limit


@dataclass
class Host:
    """The processes of a host, the clock that they share, and when each unit was admitted."""

    folder: Path
    clock: FixedClock = field(default_factory=lambda: FixedClock(1000.0))
    admitted_at: list[float] = field(default_factory=list)

    def start(self, workers: int = 1, expected: int = 1) -> Process:
        registry = ShareRegistry(self.folder, workers=workers, expected=expected, clock=self.clock)
        return Process(registry, self.clock, self.admitted_at)

    def settle(self, *processes: Process) -> None:
        """Let everybody look twice: to give up a part, and to take it."""
        for process in (*processes, *processes):
            process.tick()

    def most_in_a_minute(self) -> int:
        return max((sum(at <= other < at + 60 for other in self.admitted_at) for at in self.admitted_at), default=0)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "workers")


def decide(*processes: Process) -> None:
    """Let each find out that Redis is away."""
    for process in processes:
        process.is_alone = True
        process.tick()


def divisors(*processes: Process) -> list[int | None]:
    return [None if it.registry.is_waiting else it.registry.divisor for it in processes]


def test_workers_whose_number_is_known_have_their_parts_at_once(host: Host) -> None:
    processes = [host.start(workers=4) for _ in range(4)]
    decide(*processes)
    assert divisors(*processes) == [4, 4, 4, 4]
    assert [process.use_up() for process in processes] == [5, 5, 5, 5]


def test_workers_that_are_there_before_the_outage_have_their_parts_at_once(host: Host) -> None:
    assert [process.use_up() for process in [host.start() for _ in range(3)]] == [6, 6, 6]


def test_workers_that_come_during_the_outage_wait_for_their_parts(host: Host) -> None:
    first = host.start()
    decide(first)
    second, third = host.start(), host.start()
    decide(second, third)
    assert divisors(first, second, third) == [1, None, None]
    host.settle(first, second, third)
    assert divisors(first, second, third) == [3, 3, 3]
    assert [process.use_up() for process in (first, second, third)] == [6, 6, 6]


def test_a_worker_that_comes_when_all_is_used_up_waits_for_the_window(host: Host) -> None:
    first = host.start()
    assert first.use_up() == 20
    second = host.start()
    decide(second)
    host.settle(first, second)
    assert second.use_up() == 0
    host.clock.advance(61)
    host.settle(first, second)
    assert (first.use_up(), second.use_up()) == (10, 10)


def test_who_comes_after_a_graceful_end_goes_on_with_the_same_part(host: Host) -> None:
    first, second = host.start(workers=2), host.start(workers=2)
    decide(second)
    assert sum(first.admit() for _ in range(7)) == 7
    first.leave()
    third = host.start(workers=2)
    assert (third.use_up(), second.use_up()) == (3, 10)


def test_who_replaces_a_worker_waits_until_that_gives_way(host: Host) -> None:
    first, second = host.start(workers=2), host.start(workers=2)
    assert (first.use_up(), second.use_up()) == (10, 10)
    third = host.start(workers=2)
    assert third.use_up() == 0
    host.settle(second, third)
    assert third.use_up() == 0
    first.leave()
    host.settle(second, third)
    assert not first.admit()
    assert divisors(second, third) == [2, 2]
    assert third.use_up() == 0
    host.clock.advance(61)
    assert (second.use_up(), third.use_up()) == (10, 10)


def test_the_part_of_a_killed_worker_counts_as_used_up_for_a_window(host: Host) -> None:
    first, second = host.start(workers=2), host.start(workers=2)
    decide(second)
    assert first.admit()
    first.kill()
    third = host.start(workers=2)
    assert third.use_up() == 0
    assert second.use_up() == 10
    host.clock.advance(61)
    host.settle(second, third)
    assert third.use_up() == 10


def test_the_part_of_a_worker_that_was_killed_while_redis_decided_is_free(host: Host) -> None:
    first, second = host.start(workers=2), host.start(workers=2)
    first.kill()
    third = host.start(workers=2)
    assert (second.use_up(), third.use_up()) == (10, 10)
    assert len([path for path in host.folder.iterdir() if path.name not in {"lock", "total"}]) == 2


def test_a_crash_loop_gives_nothing_out_twice(host: Host) -> None:
    second = host.start(workers=2)
    for _ in range(10):
        crashing = host.start(workers=2)
        crashing.use_up()
        crashing.kill()
        host.clock.advance(1)
        second.tick()
        second.use_up()
    assert host.most_in_a_minute() <= 20


def test_all_processes_stopped_and_started_go_on_where_they_were(host: Host) -> None:
    for process in [host.start(workers=2) for _ in range(2)]:
        process.use_up()
        process.leave()
    assert [process.use_up() for process in [host.start(workers=2) for _ in range(2)]] == [0, 0]


@pytest.mark.parametrize("workers, expected, most", [(1, 1, 20), (1, 4, 5), (2, 4, 10), (4, 2, 20)])
def test_who_starts_again_and_again_has_the_part_of_this_host_and_no_other(
    host: Host, workers: int, expected: int, most: int
) -> None:
    for number in range(12):
        process = host.start(workers, expected)
        process.use_up()
        process.kill() if number % 2 else process.leave()
    assert host.most_in_a_minute() == most


def test_the_number_of_workers_on_all_hosts_outlives_a_restart(host: Host) -> None:
    first = host.start()
    first.registry.refresh(4, lambda _: True, is_alone=False)
    first.leave()
    second = host.start()
    decide(second)
    assert second.registry.divisor == 4


def test_what_was_left_behind_is_reported_once_and_keeps_its_part(host: Host) -> None:
    first, second = host.start(workers=2), host.start(workers=2)
    assert first.use_up() == 10
    first.leave()
    (spent,) = second.registry.take_left_behind().values()
    assert spent.counts == {"minute": Count(10, 10, lasts(60))}
    assert (spent.rates, spent.concurrency) == (TIER.limits.rates, 4)
    third = host.start(workers=2)
    assert [it.counts["minute"].unreported for it in third.registry.take_left_behind().values()] == [0]
    assert (third.use_up(), second.use_up()) == (10, 0)


def test_a_file_that_cannot_be_read_counts_as_the_whole_limit(host: Host) -> None:
    first = host.start(workers=2)
    first.kill()
    (host.folder / "0123").write_bytes(b"{")
    second = host.start(workers=2)
    assert second.use_up() == 0


def test_a_folder_that_cannot_be_used_is_told_and_leaves_the_known_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = ShareRegistry(tmp_path / "missing" / "workers", workers=2)
    registry.open()
    registry.refresh(3, lambda _: True, is_alone=True)
    assert (registry.divisor, registry.is_waiting) == (3, False)
    assert "cannot share" in caplog.text


def test_files_are_readable_by_their_user_alone(host: Host) -> None:
    host.start()
    assert host.folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in host.folder.iterdir()} <= {0, 0o044}


def test_what_was_spent_of_a_rate_counts_until_its_oldest_cell_has_expired(host: Host) -> None:
    registry = host.start().registry
    limits = Limits.parse(["5/second", "20/minute"])
    spent = registry.new_spent(limits, 1, {"second": Count(2, 0, lasts(1)), "minute": Count(2, 0, lasts(60))}, {})
    assert [spent.living(1000 + age).keys() for age in (1.0, 1.1, 60.9, 61.1)] == [
        {"second", "minute"},
        {"minute"},
        {"minute"},
        set(),
    ]
    assert spent.counts_at(1060.9)
    assert not spent.counts_at(1061.1)


def test_what_was_spent_of_a_quota_counts_until_it_is_reported(host: Host) -> None:
    registry = host.start().registry
    spent = registry.new_spent(Limits.parse(quota="100/day"), 1, {"day": Count(30, 5, 3600)}, {})
    assert spent.counts_at(4599)
    assert not spent.counts_at(4601)
    assert not spent.reported().counts_at(1001)


@dataclass
class Chaos:
    """Lets processes start, end and decide, in an order that depends on a seed."""

    host: Host
    chance: random.Random
    workers: int  # the number that each is told
    processes: list[Process] = field(default_factory=list)
    looked_at: float = 0.0

    def start(self) -> None:
        if len(self.processes) < 6:
            self.processes.append(self.host.start(self.workers))

    def end(self, how: Callable[[Process], None]) -> None:
        if self.processes:
            how(self.processes.pop(self.chance.randrange(len(self.processes))))

    def tick(self) -> None:
        self.looked_at = self.host.clock.now
        for process in self.processes:
            process.tick()

    def use_up(self) -> None:
        if self.processes:
            self.chance.choice(self.processes).use_up()

    def step(self) -> None:
        self.host.clock.advance(self.chance.choice([0, 0.1, 0.5, 0.5, 3, 20]))
        if self.host.clock.now - self.looked_at > 2:  # nobody is blocked for longer
            self.tick()
        steps: list[Callable[[], None]] = [
            self.start,
            lambda: self.end(Process.leave),
            lambda: self.end(Process.kill),
            self.tick,
            self.use_up,
        ]
        self.chance.choices(steps, [3, 1, 1, 4, 6])[0]()


@pytest.mark.parametrize("seed", range(40))
def test_no_minute_holds_more_than_the_limit_whatever_happens(host: Host, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    chaos = Chaos(host, chance, chance.choice([1, 1, 2, 4]))
    for _ in range(400):
        chaos.step()
    assert 20 >= host.most_in_a_minute() > 0
