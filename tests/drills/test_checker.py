from math import inf

import pytest

from tests.drills.checker import (
    Call,
    Limit,
    Outcome,
    Request,
    Span,
    cell_seconds,
    most_at_once,
    overdue_seconds,
    read_limits,
    worst_window,
    wrongly_refused,
)

WINDOW = 60.0


def at(moment: float, outcome: Outcome = "admitted", *, cost: int = 1, took: float = 0.0) -> Request:
    return Request(moment, moment + took, outcome, cost)


@pytest.mark.parametrize(
    "spans, most",
    [
        ([], 0),
        ([Span(0, 1)], 1),
        ([Span(0, 1), Span(1, 2)], 1),  # one ends as the other begins: the slot was handed on
        ([Span(0, 2), Span(1, 3), Span(2, 4)], 2),
        ([Span(0, 9), Span(1, 2), Span(3, 4), Span(3, 4)], 3),
        ([Span(0, 2, 5), Span(1, 3, 7)], 12),
        ([Span(1, 1)], 0),  # of no length: it may never have been there
    ],
)
def test_spans_meet_when_they_share_time(spans: list[Span], most: int) -> None:
    assert most_at_once(spans) == most


@pytest.mark.parametrize(
    "requests, worst",
    [
        ([], 0),
        ([at(0), at(59.9)], 2),
        ([at(0), at(60)], 1),  # 60 seconds apart are not within 60 seconds
        ([*[at(59.5)] * 99, *[at(60.5)] * 99], 198),  # a burst on both sides of a minute
        ([at(0, cost=5), at(1, cost=7), at(61.5, cost=6)], 12),
        ([at(0), at(59, took=2)], 1),  # it may have been decided after the window
        ([at(-1, took=2), at(59.5)], 1),  # it may have been decided before the window
        ([at(0), at(1, "refused"), at(2, "unknown")], 1),
        ([at(0, took=70)], 0),  # it cannot surely lie within any window
    ],
)
def test_a_window_holds_what_surely_lies_in_it(requests: list[Request], worst: int) -> None:
    assert worst_window(requests, WINDOW) == worst


@pytest.mark.parametrize(
    "requests, overdue",
    [
        ([at(0), at(0), at(30, "refused")], 0.0),  # the limit of 2 is spent
        ([at(0), at(0), at(60.5, "refused")], 0.5),  # one cell late is promised
        ([at(0), at(0), at(65, "refused")], 5.0),
        ([at(0), at(3), at(65, "refused")], 5.0),  # both are needed to explain it, so the older one
        ([at(0), at(3), at(4), at(65, "refused")], 2.0),  # two of three are enough
        ([at(0), at(30, "refused")], inf),
        ([at(0), at(30, "refused", cost=2)], 0.0),  # 1 of 2 is left, and 2 were asked for
        ([at(0, cost=2), at(61.5, "refused", cost=1)], 1.5),
        ([at(0), at(0, "unknown"), at(30, "refused")], 0.0),  # it may have been admitted
        ([at(0), at(0), at(59, "refused", took=9)], 0.0),  # it may have been decided at once
        ([at(0), at(30, took=2), at(31, "refused", took=2)], 0.0),  # the two may have come in either order
        ([at(0), at(29, "refused"), at(30)], inf),  # what came after explains nothing
    ],
)
def test_a_refusal_is_explained_by_what_may_have_been_admitted_before_it(
    requests: list[Request], overdue: float
) -> None:
    assert overdue_seconds(requests, limit=2, window_seconds=WINDOW) == [overdue]


def test_a_refusal_may_come_one_cell_late_and_no_later() -> None:
    taken = [at(0), at(0)]
    assert wrongly_refused([*taken, at(61.0, "refused")], limit=2, window_seconds=WINDOW) == 0
    assert wrongly_refused([*taken, at(61.1, "refused")], limit=2, window_seconds=WINDOW) == 1


@pytest.mark.parametrize(
    "window, cell", [(1, 1 / 12), (3, 0.25), (12, 1), (30, 1), (60, 1), (3600, 60), (2 * 3600, 120)]
)
def test_a_cell_is_a_second_of_short_windows_and_a_60th_of_long_ones(window: float, cell: float) -> None:
    assert cell_seconds(window) == cell


KEY, ACCOUNT, SLOTS = (
    Limit("minute", "key", 2, 60),
    Limit("account-minute", "account", 3, 60),
    Limit("at-once", "account", 2, None),
)


def call(moment: float, key: str, *violated: str, took: float = 0.0, account: str = "acct") -> Call:
    request = Request(moment, moment, "refused" if violated else "admitted")
    held = Span(moment, moment if violated else moment + took)
    return Call(request, held, held.end, {"key": key, "account": account}, violated)


@pytest.mark.parametrize(
    "calls, highest, over",
    [
        ([], (0, 0, 0), (0, 0, 0)),
        ([call(0, "a"), call(1, "a"), call(2, "b")], (2, 3, 0), (0, 0, 0)),
        ([call(0, "a"), call(1, "a"), call(2, "a")], (3, 3, 0), (1, 0, 0)),  # the key alone is over
        ([call(0, "a"), call(1, "a"), call(2, "b"), call(3, "b")], (2, 4, 0), (0, 1, 0)),  # the account alone is over
        ([call(0, "a"), call(1, "a"), call(2, "b"), call(3, "b", account="other")], (2, 3, 0), (0, 0, 0)),
        ([call(0, "a", took=5), call(1, "b", took=5), call(6, "c", took=5)], (1, 3, 2), (0, 0, 0)),
        ([call(0, "a", took=9), call(1, "b", took=9), call(2, "c", took=9)], (1, 3, 3), (0, 0, 1)),  # three at once
    ],
)
def test_each_limit_is_read_over_all_that_count_against_its_subject(
    calls: list[Call], highest: tuple[int, ...], over: tuple[int, ...]
) -> None:
    readings, _ = read_limits(calls, [KEY, ACCOUNT, SLOTS])
    assert tuple(reading.highest for reading in readings) == highest
    assert tuple(reading.over for reading in readings) == over


@pytest.mark.parametrize(
    "calls, unexplained, wrong",
    [
        ([call(0, "a"), call(1, "a"), call(2, "a", "minute")], (0, 0, 0), 0),
        ([call(0, "a"), call(1, "b"), call(2, "a", "minute")], (1, 0, 0), 1),  # the key has one left
        ([call(0, "a"), call(1, "a"), call(2, "b"), call(3, "b", "account-minute")], (0, 0, 0), 0),
        ([call(0, "a"), call(1, "a"), call(2, "b", "account-minute")], (0, 1, 0), 1),  # the account has one left
        ([call(0, "a"), call(1, "a"), call(2, "a", "minute", "account-minute")], (0, 1, 0), 0),  # one of two is right
        ([call(0, "a"), call(1, "a"), call(2, "c"), call(3, "b", "minute")], (1, 0, 0), 1),  # it names the wrong limit
        ([call(0, "a"), call(1, "a"), call(63, "a", "minute")], (1, 0, 0), 1),  # more than a cell late
        ([call(0, "a"), call(1, "a"), call(60.9, "a", "minute")], (0, 0, 0), 0),
        ([call(0, "a", took=9), call(1, "b", took=9), call(2, "c", "at-once")], (0, 0, 0), 0),
        ([call(0, "a", took=9), call(2, "c", "at-once")], (0, 0, 1), 1),
        ([call(0, "a", took=9), call(1, "b", took=9, account="other"), call(2, "c", "at-once")], (0, 0, 1), 1),
        (
            [call(0, "a", took=2), call(1, "b", took=9), call(2.2, "c", "at-once")],
            (0, 0, 0),
            0,
        ),  # the release may be on its way
        ([call(0, "a", took=2), call(1, "b", took=9), call(2.3, "c", "at-once")], (0, 0, 1), 1),
        ([call(0, "a"), call(1, "a", "unheard-of")], (0, 0, 0), 1),
    ],
)
def test_a_refusal_is_explained_by_one_of_the_limits_that_it_names(
    calls: list[Call], unexplained: tuple[int, ...], wrong: int
) -> None:
    readings, wrongly = read_limits(calls, [KEY, ACCOUNT, SLOTS])
    assert tuple(reading.unexplained for reading in readings) == unexplained
    assert wrongly == wrong
