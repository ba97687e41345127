"""`make bench`: what the gateway costs an application, as a ratio of medians over interleaved rounds."""

import json
import os
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median

import click
from rich.console import Console
from rich.table import Table

from benchmarks.applications import PATH, SECRET_VARIABLE
from benchmarks.processes import Sample, Server, check_machine, load, serving
from machpay_gateway.core.key import mint_secret

PAIRS = {"raw ASGI": ("raw", "raw_guarded"), "Starlette": ("starlette_bare", "starlette_guarded")}
_WIDTH = 110  # columns, whatever the terminal's: a folded table of figures cannot be read
GOAL = (0.75, 0.88)  # of the bare application's requests per second


@click.command()
@click.option("--rounds", default=7, show_default=True, help="Rounds of load; each visits every server once.")
@click.option("--seconds", default=3, show_default=True, help="Length of one server's turn in a round.")
@click.option("--connections", default=64, show_default=True, help="Connections kept open by the load.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write every sample to this file.")
def main(rounds: int, seconds: int, connections: int, json_file: Path | None) -> None:
    """Measure the guarded application against the bare one."""
    check_machine()
    console = Console(width=_WIDTH)
    secret = mint_secret("live", os.urandom(32))
    samples: dict[str, list[Sample]] = {}
    with ExitStack() as stack:
        names = [name for pair in PAIRS.values() for name in pair]
        servers = [stack.enter_context(serving(name, {SECRET_VARIABLE: secret})) for name in names]
        for server in servers:
            load(server, PATH, secret, connections=connections, seconds=1)  # warm
        for number in range(1, rounds + 1):
            console.print(f"round {number} of {rounds}", style="dim")
            _one_round(servers, samples, secret, connections, seconds)
    console.print(_table(samples, rounds, seconds, connections))
    console.print("What is asked of raw ASGI + MachPayAuth: at least {:.0%} of bare; hoped for: {:.0%}.".format(*GOAL))
    if json_file is not None:
        json_file.write_text(json.dumps({name: [asdict(s) for s in taken] for name, taken in samples.items()}))


def _one_round(
    servers: list[Server], samples: dict[str, list[Sample]], secret: str, connections: int, seconds: int
) -> None:
    for server in servers:
        sample = load(server, PATH, secret, connections=connections, seconds=seconds)
        samples.setdefault(server.name, []).append(sample)


def _table(samples: dict[str, list[Sample]], rounds: int, seconds: int, connections: int) -> Table:
    title = f"medians of {rounds} interleaved rounds of {seconds} s, {connections} connections"
    table = Table(title=title)
    for heading in ("application", "requests/s", "CPU µs/request", "p50 ms", "p99 ms", "of bare", "added CPU µs"):
        table.add_column(heading, justify="left" if heading == "application" else "right", no_wrap=True)
    for label, (bare, guarded) in PAIRS.items():
        of_bare = _median(samples[guarded], "requests_per_second") / _median(samples[bare], "requests_per_second")
        added = _median(samples[guarded], "cpu_microseconds") - _median(samples[bare], "cpu_microseconds")
        table.add_row(label, *_cells(samples[bare]), "", "")
        table.add_row(f"{label} + MachPayAuth", *_cells(samples[guarded]), f"{of_bare:.0%}", f"{added:.1f}")
    return table


def _cells(taken: list[Sample]) -> list[str]:
    return [
        f"{_median(taken, 'requests_per_second'):,.0f}",
        f"{_median(taken, 'cpu_microseconds'):.1f}",
        f"{_median(taken, 'p50_milliseconds'):.2f}",
        f"{_median(taken, 'p99_milliseconds'):.2f}",
    ]


def _median(taken: list[Sample], field: str) -> float:
    return median(float(getattr(sample, field)) for sample in taken)


if __name__ == "__main__":
    main()
