"""The tables that a run ends with."""

from collections.abc import Mapping, Sequence
from statistics import median

from rich.table import Table

from benchmarks.entrants import Entrant
from benchmarks.processes import Sample

Figures = Mapping[str, Sequence[Sample]]  # by the entrant's label


def speed_table(entrants: Sequence[Entrant], figures: Figures, title: str) -> Table:
    """Return what each entrant did, and what part that is of the bare application in the same rounds."""
    table = Table(title=title)
    for heading in ("application", "requests/s", "CPU µs/request", "p50 ms", "p99 ms", "of bare", "added CPU µs"):
        table.add_column(heading, justify="left" if heading == "application" else "right", no_wrap=True)
    for entrant in entrants:
        table.add_row(entrant.label, *_cells(figures[entrant.label]), *_against(entrant, figures))
    return table


def lone_table(samples: Mapping[str, Sample], round_trip_milliseconds: float) -> Table:
    """Return what one connection at a time waits for, beside a round trip to Redis."""
    table = Table(title="one connection")
    for heading in ("application", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="left" if heading == "application" else "right", no_wrap=True)
    for label, sample in samples.items():
        table.add_row(label, f"{sample.p50_milliseconds:.3f}", f"{sample.p99_milliseconds:.3f}")
    table.add_row("a round trip to Redis (PING)", f"{round_trip_milliseconds:.3f}", "")
    return table


def costs_table(costs: Mapping[str, str]) -> Table:
    """Return what Redis itself spends."""
    table = Table(title="what Redis spends")
    table.add_column("on", no_wrap=True)
    table.add_column("figure", justify="right", no_wrap=True)
    for name, figure in costs.items():
        table.add_row(name, figure)
    return table


def ratio(figures: Figures, label: str, other: str) -> float:
    """Return how many times the requests per second of *other* those of *label* are."""
    return _median(figures[label], "requests_per_second") / _median(figures[other], "requests_per_second")


def _against(entrant: Entrant, figures: Figures) -> tuple[str, str]:
    if not entrant.compared_with:
        return "", ""
    bare = figures[entrant.compared_with]
    added = _median(figures[entrant.label], "cpu_microseconds") - _median(bare, "cpu_microseconds")
    return f"{ratio(figures, entrant.label, entrant.compared_with):.0%}", f"{added:.1f}"


def _cells(taken: Sequence[Sample]) -> list[str]:
    return [
        f"{_median(taken, 'requests_per_second'):,.0f}",
        f"{_median(taken, 'cpu_microseconds'):.1f}",
        f"{_median(taken, 'p50_milliseconds'):.2f}",
        f"{_median(taken, 'p99_milliseconds'):.2f}",
    ]


def _median(taken: Sequence[Sample], field: str) -> float:
    return median(float(getattr(sample, field)) for sample in taken)
