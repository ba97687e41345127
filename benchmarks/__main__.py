"""`make bench`: what the gateway costs an application, beside what peers cost, as ratios within one run."""

import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from redis import Redis
from rich.console import Console

from benchmarks.applications import LIMIT_VARIABLE, REDIS_VARIABLE, SECRETS_VARIABLE
from benchmarks.bare import PATH
from benchmarks.entrants import ENTRANTS, Entrant
from benchmarks.oauth import oauth_tables
from benchmarks.plans import plans_tables
from benchmarks.processes import Sample, Server, check_machine, load, redis_server, serving
from benchmarks.proxies.encrypted import encrypted_tables, missing_load
from benchmarks.proxies.rounds import Shape, measured
from benchmarks.proxies.tables import proxy_tables
from benchmarks.redis_cost import bytes_of_full_windows, microseconds_per_decision, round_trip_milliseconds
from benchmarks.report import WIDTH, costs_table, lone_table, speed_table
from benchmarks.store import store_table
from benchmarks.written import written_table
from machpay_gateway.core.keys.key import mint_secret
from machpay_gateway.core.limits.plan import tier_plan
from machpay_gateway.core.limits.rate import TIERS

PEERS_PYTHON = Path(".venv-peers/bin/python")
_SPENT_SECONDS = 10


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Rounds of load; each visits every server once.")
@click.option("--seconds", default=2, show_default=True, help="Length of one server's turn in a round.")
@click.option("--connections", default=64, show_default=True, help="Connections kept open by the load.")
@click.option("--peers/--no-peers", default=True, show_default=True, help="Measure other limiters beside ours.")
@click.option("--store/--no-store", default=True, show_default=True, help="Measure the key store too.")
@click.option("--oauth/--no-oauth", default=True, show_default=True, help="Measure the authorization server too.")
@click.option("--proxy/--no-proxy", default=True, show_default=True, help="Measure the proxy too.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write every sample to this file.")
def main(
    rounds: int,
    seconds: int,
    connections: int,
    json_file: Path | None,
    *,
    peers: bool,
    store: bool,
    oauth: bool,
    proxy: bool,
) -> None:
    """Measure the guarded application against the bare one, and peers beside it."""
    check_machine()
    if peers and not PEERS_PYTHON.exists():
        raise click.ClickException("The peers are not installed: `make bench` does that; --no-peers leaves them out.")
    console = Console(width=WIDTH)
    entrants = [entrant for entrant in ENTRANTS if peers or not entrant.is_peer]
    with TemporaryDirectory() as folder, ExitStack() as stack:
        secrets = {count: _secrets(Path(folder), count) for count in (1, 64)}
        url, client = stack.enter_context(redis_server())
        environment = {SECRETS_VARIABLE: str(secrets[64]), REDIS_VARIABLE: url}
        figures = _figures(console, entrants, environment, secrets, (rounds, seconds, connections))
        title = f"medians of {rounds} interleaved rounds of {seconds} s, {connections} connections"
        console.print(speed_table(entrants, figures, title))
        lone = {name: _lone(name, environment, secrets[1]) for name in ("raw", "raw_redis")}
        console.print(lone_table(lone, round_trip_milliseconds(client)))
        spent = stack.enter_context(serving("raw_redis", environment | {LIMIT_VARIABLE: "1000"}))
        console.print(costs_table(_costs(client, spent, secrets[1], connections)))
    for table in plans_tables(console, rounds):
        console.print(table)
    if store:
        console.print(store_table(console, rounds))
    if oauth:
        for table in oauth_tables(console, rounds, seconds, connections // 2):
            console.print(table)
    console.print(written_table(rounds))
    proxies = _proxies(console, Shape(rounds, seconds, connections), peers=peers) if proxy else None
    if proxies is not None:
        if (way_out := missing_load()) is not None:
            console.print(f"TLS and HTTP/2 are left out: {way_out}.")
        else:
            for table in encrypted_tables(console, rounds, seconds, connections):
                console.print(table)
    if json_file is not None:
        middleware = {name: [asdict(sample) for sample in taken] for name, taken in figures.items()}
        json_file.write_text(json.dumps({"middleware": middleware, "proxies": proxies}))


def _proxies(console: Console, shape: Shape, *, peers: bool) -> dict[str, object] | None:
    figures = measured(console, shape, peers=peers)
    if figures is None:
        return None
    for table in proxy_tables(figures, shape):
        console.print(table)
    return asdict(figures)


def _secrets(folder: Path, count: int) -> Path:
    """Write *count* secrets to a file, the same ones for every file of a run, and return its path."""
    file = folder / f"{count}"
    file.write_text("\n".join(mint_secret("live", bytes([number]) + _ENTROPY) for number in range(count)))
    return file


_ENTROPY = os.urandom(31)


def _figures(
    console: Console,
    entrants: Sequence[Entrant],
    environment: dict[str, str],
    secrets: dict[int, Path],
    shape: tuple[int, int, int],
) -> dict[str, list[Sample]]:
    """Measure each entrant in a process of its own, alone, and in another one each round.

    How a process lies in memory is luck, lasts as long as the process, and is worth up to 2 %.
    """
    rounds, seconds, connections = shape
    figures: dict[str, list[Sample]] = {entrant.label: [] for entrant in entrants}
    for number in range(1, rounds + 1):
        console.print(f"round {number} of {rounds}", style="dim")
        for entrant in entrants:
            module, python = ("peers", str(PEERS_PYTHON)) if entrant.is_peer else ("applications", sys.executable)
            file = secrets[entrant.keys]
            with serving(entrant.application, environment, module=module, python=python) as server:
                load(server, PATH, file, connections=connections, seconds=1)  # warm
                figures[entrant.label].append(load(server, PATH, file, connections=connections, seconds=seconds))
    return figures


def _lone(name: str, environment: dict[str, str], secrets: Path) -> Sample:
    with serving(name, environment) as server:
        load(server, PATH, secrets, connections=1, seconds=1)  # warm
        return load(server, PATH, secrets, connections=1, seconds=3)


def _costs(client: Redis, spent: Server, secrets: Path, connections: int) -> dict[str, str]:
    load(spent, PATH, secrets, connections=connections, seconds=1, refused=True)
    client.config_resetstat()
    sample = load(spent, PATH, secrets, connections=connections, seconds=_SPENT_SECONDS, refused=True)
    calls = client.info("commandstats")["cmdstat_evalsha"]["calls"] / _SPENT_SECONDS
    plan = tier_plan(TIERS["enterprise"])
    return {
        "CPU of a decision, one in a call": f"{microseconds_per_decision(client, plan, 1):.1f} µs",
        "CPU of a decision, 20 in a call": f"{microseconds_per_decision(client, plan, 20):.1f} µs",
        "memory of a full enterprise window, 4 workers": f"{bytes_of_full_windows(client, plan)} bytes",
        f"a spent key hammered, {sample.requests_per_second:,.0f} requests/s": f"{calls:.1f} commands/s",
    }


if __name__ == "__main__":
    main()
