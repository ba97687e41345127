"""`python -m benchmarks.proxies`, and a part of `make bench`: what the gateway's proxy does beside others."""

import json
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from benchmarks.processes import check_machine
from benchmarks.proxies.programs import NGINX
from benchmarks.proxies.rounds import Shape, measured
from benchmarks.proxies.tables import proxy_tables
from benchmarks.report import WIDTH


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Rounds of load; each visits every proxy once.")
@click.option("--seconds", default=2, show_default=True, help="Length of one proxy's turn in a round.")
@click.option("--connections", default=64, show_default=True, help="Connections kept open by the load.")
@click.option("--peers/--no-peers", default=True, show_default=True, help="Measure others than nginx beside ours.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write every sample to this file.")
def main(rounds: int, seconds: int, connections: int, json_file: Path | None, *, peers: bool) -> None:
    """Measure the gateway's proxy, and others beside it."""
    check_machine()
    console, shape = Console(width=WIDTH), Shape(rounds, seconds, connections)
    figures = measured(console, shape, peers=peers)
    if figures is None:
        raise click.ClickException(f"The upstream is an nginx: {NGINX.way_out}.")
    for table in proxy_tables(figures, shape):
        console.print(table)
    if json_file is not None:
        json_file.write_text(json.dumps(asdict(figures)))


if __name__ == "__main__":
    main()
