"""What a run says of the proxies, and whether ours does what we want of it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from rich.table import Table

from benchmarks.proxies.entrants import (
    ENTRANTS,
    ENVOY_GUARDED,
    MEMORY,
    MEMORY_INTERPRETED,
    NGINX,
    REDIS,
    REDIS_INTERPRETED,
    TRAEFIK_REDIS,
    UPSTREAM,
    Entrant,
)
from benchmarks.proxies.rounds import Figures, Shape
from benchmarks.report import median_cells, median_of, table_of

_MEBIBYTE = 1024 * 1024
_BUSY = 0.9  # of its core: below, something else than the proxy set the pace


@dataclass(frozen=True)
class Target:
    """What we want of *label*: at least, or at most, *wanted* of what *read* reads, and *goal* if we can.

    *other* is whose speed that is compared with: a target of speed is one only where both had their core.
    """

    label: str
    what: str
    read: Callable[[Figures, str], float]
    spelt: str  # how a figure is written
    wanted: float
    goal: float | None = None
    other: str = ""
    at_most: bool = False

    def verdict(self, figures: Figures) -> str:
        """Return whether it is met."""
        if self.other and min(core_busy(figures, label) for label in (self.label, self.other)) < _BUSY:
            return "disturbed"
        figure = self.read(figures, self.label)
        if self._reaches(figure, self.wanted):
            return "goal met" if self.goal is not None and self._reaches(figure, self.goal) else "met"
        return "missed"

    def _reaches(self, figure: float, mark: float) -> bool:
        return figure <= mark if self.at_most else figure >= mark


def _times(other: str) -> Callable[[Figures, str], float]:
    return lambda figures, label: ratio(figures, label, other)


def ratio(figures: Figures, label: str, other: str) -> float:
    """Return how many times the requests per second of *other* those of *label* are: the median of all rounds'."""
    rounds = zip(figures.turns[label], figures.turns[other], strict=True)
    return median(one.loaded.requests_per_second / two.loaded.requests_per_second for one, two in rounds)


def core_busy(figures: Figures, label: str) -> float:
    """Return what part of its core *label* had under load, the median of all rounds."""
    taken = (turn.loaded for turn in figures.turns[label])
    return median(sample.requests_per_second * sample.cpu_microseconds / 1e6 for sample in taken)


def added_milliseconds(figures: Figures, label: str) -> float:
    """Return by how much the median answer to a lone connection is later than the upstream's own."""
    rounds = zip(figures.turns[label], figures.turns[UPSTREAM.label], strict=True)
    return median(one.lone.p50_milliseconds - two.lone.p50_milliseconds for one, two in rounds)


def _targets(memory: str, redis: str) -> tuple[Target, ...]:
    return (
        Target(memory, "of nginx", _times(NGINX), "{:.0%}", 0.45, 0.75, NGINX),
        Target(redis, f"times {ENVOY_GUARDED}", _times(ENVOY_GUARDED), "{:.2f}×", 1.0, 1.25, ENVOY_GUARDED),
        Target(redis, f"times {TRAEFIK_REDIS}", _times(TRAEFIK_REDIS), "{:.2f}×", 1.7, None, TRAEFIK_REDIS),
        Target(memory, "added p50, one connection", added_milliseconds, "{:.3f} ms", 0.4, at_most=True),
        Target(redis, "added p50, one connection", added_milliseconds, "{:.3f} ms", 0.4, at_most=True),
    )


TARGETS = (*_targets(MEMORY, REDIS), *_targets(MEMORY_INTERPRETED, REDIS_INTERPRETED))


def proxy_tables(figures: Figures, shape: Shape) -> Iterator[Table]:
    """Yield the tables of a run."""
    there = [entrant for entrant in ENTRANTS if entrant.label in figures.versions]
    yield _speed_table(there, figures, shape)
    yield _quiet_table(there, figures)
    yield _targets_table(figures)


def _speed_table(entrants: Sequence[Entrant], figures: Figures, shape: Shape) -> Table:
    title = (
        f"proxies: medians of {shape.rounds} interleaved rounds of {shape.seconds} s, {shape.connections} connections"
    )
    headings = ("requests/s", "CPU µs each", "p50 ms", "p99 ms", "of nginx", "core busy", "logs")
    table = table_of(title, "proxy", headings)
    for entrant in (UPSTREAM, *entrants):
        loaded = [turn.loaded for turn in figures.turns[entrant.label]]
        of_nginx, busy = ratio(figures, entrant.label, NGINX), core_busy(figures, entrant.label)
        logs = "yes" if entrant.logs_access else "no"
        table.add_row(_named(entrant, figures), *median_cells(loaded), f"{of_nginx:.0%}", f"{busy:.0%}", logs)
    return table


def _quiet_table(entrants: Sequence[Entrant], figures: Figures) -> Table:
    headings = ("p50 ms", "p99 ms", "added p50 ms", "MiB per 1,000 idle connections")
    table = table_of("one connection, and idle ones", "proxy", headings)
    for entrant in (UPSTREAM, *entrants):
        lone = [turn.lone for turn in figures.turns[entrant.label]]
        p50, p99 = (f"{median_of(lone, f'{name}_milliseconds'):.3f}" for name in ("p50", "p99"))
        if entrant is UPSTREAM:
            table.add_row(_named(entrant, figures), p50, p99, "", "")
            continue
        idle = figures.idle_bytes[entrant.label] * 1000 / _MEBIBYTE
        added = f"{added_milliseconds(figures, entrant.label):.3f}"
        table.add_row(_named(entrant, figures), p50, p99, added, f"{idle:.1f}")
    return table


def _targets_table(figures: Figures) -> Table:
    table = table_of("what we want of the gateway", "what", ("measured", "wanted", "goal", ""))
    table.caption = (
        f"disturbed: one of the two was busy on less than {_BUSY:.0%} of its core, so that the ratio says little"
    )
    for target in TARGETS:
        if {target.label, target.other or target.label} <= figures.versions.keys():
            table.add_row(f"{target.label}: {target.what}", *_marks(target, figures), target.verdict(figures))
    return table


def _marks(target: Target, figures: Figures) -> tuple[str, str, str]:
    measured = target.spelt.format(target.read(figures, target.label))
    wanted = f"at {'most' if target.at_most else 'least'} {target.spelt.format(target.wanted)}"
    return measured, wanted, "" if target.goal is None else target.spelt.format(target.goal)


def _named(entrant: Entrant, figures: Figures) -> str:
    return entrant.label if entrant is UPSTREAM else f"{entrant.label} ({figures.versions[entrant.label]})"
