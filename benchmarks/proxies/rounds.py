"""Rounds of load over every proxy, each time in a fresh process, and what their idle connections cost."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console

from benchmarks.bare import PATH
from benchmarks.processes import Sample, Server, load
from benchmarks.proxies.entrants import ENTRANTS, NGINX, UPSTREAM, Entrant
from benchmarks.proxies.idle import bytes_per_idle_connection, raise_file_limit
from benchmarks.proxies.surroundings import Surroundings, serving_proxy, surroundings

_WARMING_SECONDS, _LONE_SECONDS = 1, 1


@dataclass(frozen=True)
class Shape:
    """How much load there is."""

    rounds: int
    seconds: int
    connections: int


@dataclass(frozen=True)
class Turn:
    """What one process did: under the whole load, and for one connection."""

    loaded: Sample
    lone: Sample


@dataclass(frozen=True)
class Figures:
    """What a run measured, by the entrant's label. The upstream's own turns are among *turns*."""

    versions: Mapping[str, str]
    turns: Mapping[str, Sequence[Turn]]
    idle_bytes: Mapping[str, float]  # of a connection


def measured(console: Console, shape: Shape, *, peers: bool) -> Figures | None:
    """Measure every proxy that is there; *console* is told who is not, and how far it is.

    None without nginx, which is the upstream and what everybody is compared with.
    """
    wanted = [entrant for entrant in ENTRANTS if peers or not entrant.is_peer]
    versions = _versions(console, wanted)
    if NGINX not in versions:
        console.print("No proxy is measured, for the upstream is an nginx too.")
        return None
    there = [entrant for entrant in wanted if entrant.label in versions]
    raise_file_limit()
    with surroundings() as around:
        turns = _turns(console, there, around, shape)
        secret = around.secrets.read_text().split()[0]
        idle = {}
        for entrant in there:
            console.print(f"idle connections of {entrant.label}", style="dim")
            with serving_proxy(entrant, around) as server:
                idle[entrant.label] = bytes_per_idle_connection(server, secret, files=entrant.files)
    return Figures(versions, turns, idle)


def _versions(console: Console, entrants: Iterable[Entrant]) -> dict[str, str]:
    versions = {}
    for entrant in entrants:
        if (version := entrant.program.version_here()) is not None:
            versions[entrant.label] = version
        else:
            console.print(f"{entrant.label} is left out, as it does not run here: {entrant.program.way_out}.")
    return versions


def _turns(
    console: Console, entrants: Sequence[Entrant], around: Surroundings, shape: Shape
) -> Mapping[str, Sequence[Turn]]:
    turns: dict[str, list[Turn]] = {entrant.label: [] for entrant in (UPSTREAM, *entrants)}
    for number in range(1, shape.rounds + 1):
        console.print(f"round {number} of {shape.rounds}", style="dim")
        turns[UPSTREAM.label].append(_turn(around.upstream, around, shape))
        for entrant in entrants if number % 2 else reversed(entrants):  # what comes first is not always the same
            with serving_proxy(entrant, around) as server:
                turns[entrant.label].append(_turn(server, around, shape))
    return turns


def _turn(server: Server, around: Surroundings, shape: Shape) -> Turn:
    load(server, PATH, around.secrets, connections=shape.connections, seconds=_WARMING_SECONDS)
    loaded = load(server, PATH, around.secrets, connections=shape.connections, seconds=shape.seconds)
    return Turn(loaded, load(server, PATH, around.secrets, connections=1, seconds=_LONE_SECONDS))
