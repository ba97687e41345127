"""The tables that a run ends with."""

from collections.abc import Mapping, Sequence
from statistics import median

from rich.table import Table

from benchmarks.entrants import Entrant
from benchmarks.processes import Sample

WIDTH = 120  # columns, whatever the terminal's: a folded table of figures cannot be read
Figures = Mapping[str, Sequence[Sample]]  # by the entrant's label


def speed_table(entrants: Sequence[Entrant], figures: Figures, title: str) -> Table:
    """Return what each entrant did, and what part that is of the bare application in the same rounds."""
    headings = ("requests/s", "CPU µs/request", "p50 ms", "p99 ms", "of bare", "added CPU µs")
    table = table_of(title, "application", headings)
    for entrant in entrants:
        table.add_row(entrant.label, *median_cells(figures[entrant.label]), *_against(entrant, figures))
    return table


def lone_table(samples: Mapping[str, Sample], round_trip_milliseconds: float) -> Table:
    """Return what one connection at a time waits for, beside a round trip to Redis."""
    table = table_of("one connection", "application", ("p50 ms", "p99 ms"))
    for label, sample in samples.items():
        table.add_row(label, f"{sample.p50_milliseconds:.3f}", f"{sample.p99_milliseconds:.3f}")
    table.add_row("a round trip to Redis (PING)", f"{round_trip_milliseconds:.3f}", "")
    return table


def costs_table(costs: Mapping[str, str]) -> Table:
    """Return what Redis itself spends."""
    table = table_of("what Redis spends", "on", ("figure",))
    for name, figure in costs.items():
        table.add_row(name, figure)
    return table


def ratio(figures: Figures, label: str, other: str) -> float:
    """Return how many times the requests per second of *other* those of *label* are."""
    return median_of(figures[label], "requests_per_second") / median_of(figures[other], "requests_per_second")


def _against(entrant: Entrant, figures: Figures) -> tuple[str, str]:
    if not entrant.compared_with:
        return "", ""
    bare = figures[entrant.compared_with]
    added = median_of(figures[entrant.label], "cpu_microseconds") - median_of(bare, "cpu_microseconds")
    return f"{ratio(figures, entrant.label, entrant.compared_with):.0%}", f"{added:.1f}"


def table_of(title: str, first: str, headings: Sequence[str]) -> Table:
    """Return a table with no rows yet: names in a column headed *first*, and figures beside them."""
    table = Table(title=title)
    table.add_column(first, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def median_cells(taken: Sequence[Sample]) -> list[str]:
    """Return the cells for requests/s, CPU µs/request, p50 ms and p99 ms."""
    return [
        f"{median_of(taken, 'requests_per_second'):,.0f}",
        f"{median_of(taken, 'cpu_microseconds'):.1f}",
        f"{median_of(taken, 'p50_milliseconds'):.2f}",
        f"{median_of(taken, 'p99_milliseconds'):.2f}",
    ]


def median_of(taken: Sequence[Sample], field: str) -> float:
    """Return the median of a *field* of all samples."""
    return median(float(getattr(sample, field)) for sample in taken)
