"""Tiers, and the sliding window against an exact log of admissions over random histories."""

import copy
import math
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from limits import parse_many

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.limits.plan import tier_plan
from machpay_gateway.core.limits.rate import MAX_LIMIT, TIERS, Tier, parse_rate
from machpay_gateway.core.limits.window import CellWindow, cells_of


@pytest.mark.parametrize(
    "rate, limit, window_seconds, name",
    [
        ("100/minute", 100, 60, "minute"),
        ("1000/minute", 1000, 60, "minute"),
        ("10000 per minute", 10_000, 60, "minute"),
        ("5/second", 5, 1, "second"),
        ("5 per 2 hours", 5, 7200, "2-hours"),
        ("5/1 minute", 5, 60, "minute"),
        ("1/day", 1, 86_400, "day"),
        (" 10 / MINUTES ", 10, 60, "minute"),
        (f"{MAX_LIMIT}/month", MAX_LIMIT, 2_592_000, "month"),
    ],
)
def test_a_rate_is_parsed_in_the_notation_of_limits(rate: str, limit: int, window_seconds: int, name: str) -> None:
    assert parse_rate(rate) == (limit, window_seconds, name)
    tier = Tier(rate, 1)
    assert (tier.limit, tier.window_seconds, tier_plan(tier).policies[0].name) == (limit, window_seconds, name)


@given(
    number=st.from_regex(r"[0-9]{1,20}", fullmatch=True),
    window=st.from_regex(r"([1-9][0-9]{0,2} )?(minute|hour)s?", fullmatch=True),
)
@example("10", "minute")
@example("10", "hour")
@example("10", "9 hours")
@example("10", "99 minutes")
def test_a_rate_per_minute_is_parsed_as_by_limits(number: str, window: str) -> None:
    rate = f"{number}/{window}"
    (item,) = parse_many(rate)
    if 0 < item.amount <= MAX_LIMIT:
        unit = item.GRANULARITY.name
        name = unit if item.multiples == 1 else f"{item.multiples}-{unit}s"
        assert parse_rate(rate) == (item.amount, item.get_expiry(), name)
    else:
        with pytest.raises(ConfigurationError, match="is out of range"):
            parse_rate(rate)


@pytest.mark.parametrize(
    "rate",
    [
        "",
        "100",
        "100/",
        "/minute",
        "100/fortnight",
        "ten/minute",
        "-1/minute",
        "1.5/minute",
        "1e3/minute",
        "100/minute/5",
        "100/minute x",
        "0/minute",  # would admit nothing, ever
        "5/0 minutes",  # one minute to `limits`
        "5 per 00minutes",
        "5/33 years",  # of 360 days each; limiters store no longer windows
        "5/99999999999999999999 minutes",
        f"{MAX_LIMIT + 1}/minute",
        100,
        None,
    ],
)
def test_an_invalid_rate_is_refused(rate: str) -> None:
    with pytest.raises(ConfigurationError, match="Rate "):
        parse_rate(rate)
    with pytest.raises(ConfigurationError, match="Rate "):
        Tier(rate, 1)


@pytest.mark.parametrize("rates", ["100/minute; 5/second", "100/minute, 5/second", "100/minute|5/second"])
def test_several_rates_are_several_windows_of_a_tier_and_no_single_rate(rates: str) -> None:
    assert Tier(rates, 1).limits.rates == ((100, 60, "minute"), (5, 1, "second"))
    with pytest.raises(ConfigurationError, match=r"Rate .* is more than one rate: give one"):
        parse_rate(rates)


@pytest.mark.parametrize("concurrency", [0, -1, True, 1.0, "5", None])
def test_an_invalid_concurrency_is_refused(concurrency: int) -> None:
    with pytest.raises(ConfigurationError, match="is not a number of requests: use 1 to 1000000"):
        Tier("100/minute", concurrency)


def test_the_default_tiers_are_those_of_the_guide() -> None:
    tiers = {name: (tier.limit, tier.window_seconds, tier.concurrency) for name, tier in TIERS.items()}
    assert tiers == {"test": (100, 60, 5), "standard": (1000, 60, 50), "enterprise": (10_000, 60, 500)}


@pytest.mark.parametrize("max_keys", [None, 1, 1_000_000])
def test_a_tier_may_say_how_many_keys(max_keys: int | None) -> None:
    assert Tier("100/minute", 5, max_keys=max_keys).max_keys == max_keys
    assert Tier("100/minute", 5).max_keys is None


@pytest.mark.parametrize("max_keys", [0, -1, 1_000_001, True, 1.5, "20", [20]])
def test_an_invalid_number_of_keys_is_refused(max_keys: int) -> None:
    with pytest.raises(ConfigurationError, match="is not a number of keys: use 1 to 1000000"):
        Tier("1/minute", 1, max_keys=max_keys)


@pytest.mark.parametrize(
    "tier, workers, share",
    [
        (Tier("100/minute", 50), 1, (100, 60, 50)),
        (Tier("100/minute", 50), 3, (33, 60, 16)),  # rounded down: all together stay within the limits
        (Tier("100 per 2 hours", 5), 4, (25, 7200, 1)),
        (Tier("2/minute", 3), 5, (1, 60, 1)),  # at least one of each, or a worker would refuse everything
    ],
)
def test_a_local_share_is_an_equal_part_and_at_least_one(tier: Tier, workers: int, share: tuple[int, int, int]) -> None:
    limits = tier.limits.local_share(workers)
    (rate,) = limits.rates
    assert (rate.limit, rate.window_seconds, limits.concurrency) == share
    plan = tier_plan(tier).local_share(workers)
    assert (plan.limit, plan.policies[0].window_seconds, plan.concurrency) == share
    assert tier_plan(tier).local_share(workers) is plan  # limiters compare plans by identity


@dataclass
class History:
    """A window and, beside it, the exact log of what it admitted. A clock that steps back stands still in both."""

    window_seconds: int
    now: float
    window: CellWindow = field(init=False)
    log: list[tuple[float, int]] = field(default_factory=list)
    latest: float = field(init=False)

    def __post_init__(self) -> None:
        self.window = CellWindow(self.window_seconds, self.now)
        self.latest = self.now

    @property
    def grain(self) -> float:
        """The error of float arithmetic here: a microsecond for seconds since the epoch, next to none otherwise."""
        return 4 * math.ulp(max(self.latest, abs(self.now)) + 2 * self.window_seconds)

    @property
    def cell_seconds(self) -> float:
        return self.window_seconds / cells_of(self.window_seconds)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.latest = max(self.latest, self.now)

    def ask(self, cost: int, limit: int) -> bool:
        admitted = self.window.try_take(self.now, cost, limit)
        if admitted:
            self.log.append((self.latest, cost))
        return admitted

    def admitted_in(self, seconds: float) -> int:
        return sum(cost for at, cost in self.log if at > self.latest - seconds)


@dataclass(frozen=True)
class Step:
    windows: float  # how much later, in windows
    cost: int
    limit: int


def steps(costs: st.SearchStrategy[int], limits: st.SearchStrategy[int]) -> st.SearchStrategy[list[Step]]:
    marked = [0.0, 1 / 60, 59 / 60, 1.0, 61 / 60, 62 / 60, 1.5, 50.0, 1e5, -1 / 60, -1.0, -100.0]
    marked += [1 / 12, 11 / 12, 13 / 12, 14 / 12, -1 / 12]  # the cells of a short window
    later = st.sampled_from(marked) | st.floats(0, 0.05) | st.floats(0, 1.2)
    return st.lists(st.builds(Step, later, costs, limits), min_size=1, max_size=40)


WINDOWS = st.sampled_from([1, 2, 7, 10, 60, 90, 3600, 86_400])
STARTS = st.sampled_from([0.0, 0.999, 12_345.678, 1_700_000_000.3])
COSTS, LIMITS = st.integers(0, 5), st.integers(1, 8)


@given(WINDOWS, STARTS, steps(COSTS, LIMITS))
@settings(max_examples=150)
def test_no_interval_of_a_window_however_cut_admits_more_than_the_limit(
    window_seconds: int, start: float, history: list[Step]
) -> None:
    run = History(window_seconds, start)
    for step in history:
        run.wait(step.windows * window_seconds)
        if run.ask(step.cost, step.limit) and step.cost:
            # Any interval that held more would end at an admission: so the ones that end here are all there are.
            assert run.admitted_in(window_seconds - run.grain) <= step.limit


@given(WINDOWS, STARTS, steps(COSTS, LIMITS))
@settings(max_examples=150)
def test_a_refusal_means_that_the_cells_hold_the_limit(window_seconds: int, start: float, history: list[Step]) -> None:
    run = History(window_seconds, start)
    for step in history:
        run.wait(step.windows * window_seconds)
        if not run.ask(step.cost, step.limit):
            assert run.admitted_in(window_seconds + run.cell_seconds + run.grain) + step.cost > step.limit


@given(WINDOWS, STARTS, steps(COSTS, st.just(6)))
@settings(max_examples=150)
def test_a_refused_cost_is_admitted_after_its_wait_and_not_before(
    window_seconds: int, start: float, history: list[Step]
) -> None:
    run, limit = History(window_seconds, start), 6
    for step in history:
        run.wait(step.windows * window_seconds)
        if run.ask(step.cost, limit):
            continue
        window, now = run.window, run.now
        wait = window.frees_in(now, window.taken + step.cost - limit)
        assert wait > -run.grain
        early, late = copy.deepcopy(window), copy.deepcopy(window)
        assert not early.try_take(now + wait - window_seconds / 6000 - run.grain, step.cost, limit)
        assert late.try_take(now + wait + run.grain, step.cost, limit)


@given(WINDOWS, STARTS, steps(st.integers(0, 3), st.just(20)))
@settings(max_examples=150)
def test_the_next_unit_frees_after_its_wait_and_not_before(
    window_seconds: int, start: float, history: list[Step]
) -> None:
    run = History(window_seconds, start)
    for step in history:
        run.wait(step.windows * window_seconds)
        run.ask(step.cost, 20)
        run.window.advance(run.now)
        taken, wait = run.window.taken, run.window.frees_in(run.now)
        assert wait > -run.grain if taken else wait == 0.0
        assert wait == run.window.frees_in(run.now, 1)
        if taken:
            early, late = copy.deepcopy(run.window), copy.deepcopy(run.window)
            early.advance(run.now + wait - window_seconds / 6000 - run.grain)
            late.advance(run.now + wait + run.grain)
            assert early.taken == taken > late.taken


@given(WINDOWS, STARTS, steps(COSTS, LIMITS))
@settings(max_examples=150)
def test_units_taken_are_never_negative_and_expire_with_the_last_cell(
    window_seconds: int, start: float, history: list[Step]
) -> None:
    run = History(window_seconds, start)
    for step in history:
        run.wait(step.windows * window_seconds)
        run.ask(step.cost, step.limit)
        assert run.window.taken >= 0
        assert run.window.taken >= run.admitted_in(window_seconds - run.grain)
    run.window.advance(run.latest + window_seconds + 2 * run.cell_seconds + run.grain)
    assert run.window.taken == 0
    assert run.window.frees_in(run.latest) == 0.0


@pytest.mark.parametrize(
    "window_seconds, cells",
    [(1, 12), (10, 12), (12, 12), (13, 13), (59, 59), (60, 60), (61, 60), (3600, 60), (2_592_000, 60)],
)
def test_a_window_has_60_cells_or_one_a_second_but_at_least_12(window_seconds: int, cells: int) -> None:
    assert cells_of(window_seconds) == cells


def test_bursts_on_both_sides_of_a_minute_boundary_share_one_limit() -> None:
    # What a two-cell estimate lets through: 199 of 100.
    run = History(60, 959.0)
    assert [run.ask(1, 100) for _ in range(100)] == [True] * 100
    run.wait(2)  # into the next minute
    assert not run.ask(1, 100)
    run.wait(57.999)
    assert not run.ask(1, 100)
    run.wait(1.001)
    assert run.ask(100, 100)


def test_a_refusal_counts_nothing() -> None:
    run = History(60, 0.0)
    assert run.ask(3, 4)
    for _ in range(10):
        assert not run.ask(2, 4)
    assert run.window.taken == 3
    assert run.ask(1, 4)


@pytest.mark.parametrize(
    "units, wait",
    [
        (0, 56.5),  # none need expire: the wait for the next one
        (1, 56.5),  # the cell of second 0 ends to count at 61; it is 4.5
        (2, 56.5),
        (3, 59.5),  # the cell of second 3
        (5, 60.5),  # the cell of second 4
        (6, 0.0),  # more than is taken
    ],
)
def test_units_expire_with_their_cells(units: int, wait: float) -> None:
    run = History(60, 0.0)
    run.ask(2, 5)
    run.wait(3.2)
    run.ask(2, 5)
    run.wait(1.3)
    run.ask(1, 5)
    assert run.window.frees_in(run.now, units) == pytest.approx(wait)


def test_a_clock_that_stands_still_admits_the_limit_once() -> None:
    run = History(60, 1000.0)
    assert sum(run.ask(1, 10) for _ in range(1000)) == 10


def test_a_clock_that_steps_back_frees_nothing_and_keeps_counting() -> None:
    run = History(60, 1000.0)
    run.ask(5, 10)
    run.wait(-500)
    assert run.ask(5, 10)
    assert not run.ask(1, 10)
    run.wait(500)
    assert not run.ask(1, 10)
    run.wait(61)
    assert run.ask(10, 10)
