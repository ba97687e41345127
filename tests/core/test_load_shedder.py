"""Who is refused while a worker is overloaded: an account that floods it, and never one among its like."""

from collections import Counter
from collections.abc import Mapping

import pytest

from machpay_gateway.core.limits.load_shedder import LoadShedder

SERVED = 1000  # requests between two probes that the worker serves in time


class Worker:
    """A worker that is as late as it is loaded; a refusal costs a quarter of a request."""

    def __init__(self) -> None:
        self.shedder = LoadShedder()
        self.served: Counter[str] = Counter()
        self.wanted: Counter[str] = Counter()

    def run(self, wanted: Mapping[str, int], probes: int = 50) -> float:
        """Let accounts send as many requests as *wanted* between probes; return how late the last probe was."""
        late = 0.0
        for _ in range(probes):
            work = 0.0
            self.served, self.wanted = Counter(), Counter(wanted)
            for account, count in wanted.items():
                served = sum(not self.shedder.is_shedding or self.shedder.admits(account) for _ in range(count))
                self.served[account] = served
                work += served + (count - served) / 4
            late = max(0.0, work / SERVED - 1) * 0.5
            self.shedder.probe(late)
        return late


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_nobody_is_refused_while_the_worker_keeps_up(worker: Worker) -> None:
    assert worker.run({"flood": 900, "other": 50}) == 0
    assert worker.served == worker.wanted
    assert worker.shedder.count == 0
    assert not worker.shedder.is_shedding


@pytest.mark.parametrize("late", [0.05, 0.3, 5.0])
def test_a_pause_of_the_whole_machine_is_nobodys_flood(worker: Worker, late: float) -> None:
    worker.run({"flood": 900, "other": 10})
    worker.shedder.probe(late)
    worker.run({"flood": 900, "other": 10}, probes=60)
    assert worker.shedder.count == 0
    assert not worker.shedder.is_shedding


@pytest.mark.parametrize("others", [1, 5, 40])
def test_an_account_that_floods_is_refused_and_the_others_are_served(worker: Worker, others: int) -> None:
    wanted = {"flood": 3000, **{f"other_{number}": 10 for number in range(others)}}
    late = worker.run(wanted)
    assert late < 0.1
    assert all(worker.served[account] == 10 for account in wanted if account != "flood")
    assert 0 < worker.served["flood"] < 1000
    assert worker.shedder.count > 0


@pytest.mark.parametrize("wanted", [{"one": 5000}, {"one": 3000, "two": 2500}, {"one": 900, "two": 800, "three": 850}])
def test_accounts_among_their_like_are_never_refused_however_slow_the_machine_is(
    worker: Worker, wanted: Mapping[str, int]
) -> None:
    worker.run(wanted)
    assert worker.served == worker.wanted
    assert worker.shedder.count == 0


def test_all_are_served_again_once_the_flood_is_over(worker: Worker) -> None:
    worker.run({"flood": 3000, "other": 10})
    worker.run({"flood": 100, "other": 10})
    assert not worker.shedder.is_shedding
    assert worker.served == {"flood": 100, "other": 10}


def test_a_flood_that_the_worker_can_take_is_taken_again(worker: Worker) -> None:
    worker.run({"flood": 3000, "other": 10})
    worker.run({"flood": 900, "other": 10}, probes=200)
    assert worker.served == {"flood": 900, "other": 10}
