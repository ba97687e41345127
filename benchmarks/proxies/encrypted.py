"""Proxies over TLS: HTTP/1.1, HTTP/2 and handshakes, each on one core. `python -m benchmarks.proxies.encrypted`.

A core's requests and handshakes are by the server's own processor time, whatever the load could make: it has one core,
too, and encrypts as well.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import click
from rich.console import Console
from rich.table import Table

from benchmarks.bare import PATH
from benchmarks.processes import LOAD_CORE, Server, check_machine, load, pinned_to
from benchmarks.proxies.entrants import ENCRYPTED_ENTRANTS, NGINX, Entrant
from benchmarks.proxies.idle import raise_file_limit
from benchmarks.proxies.programs import NGINX as NGINX_PROGRAM
from benchmarks.proxies.surroundings import Surroundings, serving_proxy, surroundings
from benchmarks.report import WIDTH, table_of

HTTP2_CONNECTIONS, HTTP2_STREAMS = 10, 100
_WARMING_SECONDS = 1


@dataclass(frozen=True)
class Rate:
    """How many a second there were, and how many there would be if the server had a core for itself."""

    per_second: float
    per_core: float


@dataclass(frozen=True)
class Turn:
    """What one process did: requests of HTTP/1.1 and of HTTP/2, and full handshakes."""

    http1: Rate
    http2: Rate
    handshakes: Rate


@click.command()
@click.option("--rounds", default=3, show_default=True, help="Rounds of load; each visits every proxy once.")
@click.option("--seconds", default=2, show_default=True, help="Length of each kind of load in a turn.")
@click.option("--connections", default=64, show_default=True, help="Connections of HTTP/1.1 kept open by the load.")
def main(rounds: int, seconds: int, connections: int) -> None:
    """Measure proxies over TLS."""
    check_machine()
    if (way_out := missing_load()) is not None:
        raise click.ClickException(f"{way_out}.")
    console = Console(width=WIDTH)
    for table in encrypted_tables(console, rounds, seconds, connections):
        console.print(table)


def missing_load() -> str | None:
    """Return how to come by what makes the load, None if all of it is there."""
    for program, package in (("h2load", "nghttp2-client"), ("openssl", "openssl")):
        if shutil.which(program) is None:
            return f"a part of the load is made by {program}: `apt-get install {package}`"
    return None


def encrypted_tables(console: Console, rounds: int, seconds: int, connections: int) -> Iterator[Table]:
    """Measure every proxy that is there, and yield the table; *console* shows the progress."""
    there = [entrant for entrant in ENCRYPTED_ENTRANTS if entrant.program.version_here() is not None]
    if NGINX not in {entrant.label for entrant in there}:
        raise click.ClickException(f"The upstream is an nginx: {NGINX_PROGRAM.way_out}.")
    raise_file_limit()
    turns: dict[str, list[Turn]] = {entrant.label: [] for entrant in there}
    with TemporaryDirectory() as folder, surroundings() as unencrypted:
        around = replace(unencrypted, values={**unencrypted.values, **_certificate(Path(folder))})
        for number in range(1, rounds + 1):
            console.print(f"TLS: round {number} of {rounds}", style="dim")
            for entrant in there if number % 2 else reversed(there):
                with serving_proxy(entrant, around) as server:
                    turns[entrant.label].append(_turn(server, around, seconds, connections))
    yield _table(there, turns, f"TLS: medians of {rounds} interleaved rounds of {seconds} s, a core each")


def _certificate(folder: Path) -> dict[str, str]:
    """Write a certificate for loopback, of an elliptic curve as today's are, and return where it and its key are."""
    written = {"certificate": str(folder / "certificate.pem"), "key": str(folder / "key.pem")}
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"),
            *("-out", written["certificate"], "-keyout", written["key"]),
        ],
        check=True,
        capture_output=True,
    )
    return written


def _turn(server: Server, around: Surroundings, seconds: int, connections: int) -> Turn:
    load(server, PATH, around.secrets, connections=connections, seconds=_WARMING_SECONDS, scheme="https")
    plain = load(server, PATH, around.secrets, connections=connections, seconds=seconds, scheme="https")
    return Turn(
        Rate(plain.requests_per_second, 1e6 / plain.cpu_microseconds),
        _http2(server, around.secrets.read_text().split()[0], seconds),
        _handshakes(server, seconds),
    )


def _http2(server: Server, secret: str, seconds: int) -> Rate:
    """Return the requests of HTTP/2 with many streams."""
    command = [
        "h2load", f"-c{HTTP2_CONNECTIONS}", f"-m{HTTP2_STREAMS}", f"-D{seconds}", f"--warm-up-time={_WARMING_SECONDS}",
        "-H", f"Authorization: Bearer {secret}", f"https://127.0.0.1:{server.port}{PATH}",
    ]  # fmt: skip
    if "--alpn-list" in _output(["h2load", "--help"]):  # as versions from 1.55 on call it
        command.insert(1, "--alpn-list=h2")
    else:
        command.insert(1, "--npn-list=h2")
    before = server.cpu_seconds()
    report = _output(command)
    used = server.cpu_seconds() - before
    statuses = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", report)
    if statuses is None or any(map(int, statuses.groups()[1:])) or not int(statuses[1]):
        sys.exit(f"{server.name} did not answer every request of HTTP/2 with 200:\n{report}")
    # The processor time is that of the warming, too, in which as many requests came a second.
    per_second = int(statuses[1]) / seconds
    return Rate(per_second, per_second * (seconds + _WARMING_SECONDS) / used)


def _handshakes(server: Server, seconds: int) -> Rate:
    """Return the full handshakes of TLS 1.3, without a request."""
    command = ["openssl", "s_time", "-connect", f"127.0.0.1:{server.port}", "-new", "-time", str(seconds)]
    before = server.cpu_seconds()
    report = _output(command)
    used = server.cpu_seconds() - before
    match = re.search(r"(\d+) connections in (\d+) real seconds", report)
    if match is None:
        sys.exit(f"{server.name} answered no handshake:\n{report}")
    return Rate(int(match[1]) / seconds, int(match[1]) / max(used, 1e-3))


def _output(command: Sequence[str]) -> str:
    with pinned_to(LOAD_CORE):
        run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    report, _ = run.communicate()
    return report


def _table(there: Sequence[Entrant], turns: Mapping[str, Sequence[Turn]], title: str) -> Table:
    headings = ("HTTP/1.1 /s", "a core", "HTTP/2 /s", "a core", "of nginx", "handshakes a core")
    table = table_of(title, "server", headings)
    nginx = _median(turns[NGINX], "http2").per_second
    for entrant in there:
        taken = turns[entrant.label]
        http1, http2, handshakes = (_median(taken, name) for name in ("http1", "http2", "handshakes"))
        table.add_row(
            f"{entrant.label} ({entrant.program.version_here()})",
            *(f"{figure:,.0f}" for rate in (http1, http2) for figure in (rate.per_second, rate.per_core)),
            f"{http2.per_second / nginx:.0%}",
            f"{handshakes.per_core:,.0f}",
        )
    return table


def _median(taken: Sequence[Turn], name: str) -> Rate:
    rates: list[Rate] = [getattr(turn, name) for turn in taken]
    return Rate(median(rate.per_second for rate in rates), median(rate.per_core for rate in rates))


if __name__ == "__main__":
    main()
