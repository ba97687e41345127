"""What the key store does in a second, and whether a million keys in it slow a request down: on SQLite and PostgreSQL.

`python -m benchmarks.store`, and a part of `make bench`. A request is a decision of the gate: cached, when its key was
asked for lately, or cold, when it is read from the database. Both are asked of a store with few keys and of one with a
million, in turns.
"""

import asyncio
import gc
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import click
from rich.console import Console
from rich.table import Table

from benchmarks.processes import alone
from benchmarks.report import WIDTH
from machpay_gateway import Gateway, Route, Tier
from machpay_gateway.core.decision.decision import Allowed
from machpay_gateway.core.decision.request_facts import RequestFacts
from tests.postgres.servers import Server, running_server  # one way to run PostgreSQL from its wheel

MANY, LISTED, PAGE = 1_000_000, 10_000, 100
_FILLED_AT_ONCE = 100_000
_COLD, _CACHED = 500, 50_000
_TIER = Tier("900000000/minute", 1_000_000)
_ROUTE = Route("GET /v1/skills", scopes="skills:list")
# `{id}` and `{digest}` are what each database makes of a number: in an order that has nothing to do with time.
_FILL_KEYS = """
INSERT INTO keys (id, account_id, name, environment, scopes, allowed_ips, metadata, version, created_at, changed_at)
WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last})
SELECT 'key_' || {id}, '{account}', 'filler', 'live', '["skills:list"]', '[]', '{{}}', 1, i, i FROM n"""
_FILL_SECRETS = """
INSERT INTO key_secrets (digest, key_id, position, masked, created_at)
SELECT {digest}, id, 0, 'sk_live_0000', created_at FROM keys
WHERE created_at BETWEEN {first} AND {last} AND name = 'filler' AND account_id = '{account}'"""
_SPELT = {
    "SQLite": {"id": "hex(randomblob(11))", "digest": "randomblob(32)"},
    "PostgreSQL": {"id": "substr(md5(i::text), 1, 22)", "digest": "sha256(id::bytea)"},
}
Execute = Callable[[str], object]


@dataclass(frozen=True)
class Place:
    """A database with *count* keys in it, and what was measured there: seconds each, by what was done."""

    kind: str
    count: int
    url: str
    execute: Execute
    taken: dict[str, list[float]] = field(default_factory=dict)

    def note(self, name: str, seconds: float, times: int) -> None:
        """Note that *name* was done so many *times* in *seconds*."""
        self.taken.setdefault(name, []).append(seconds / times)

    def each(self, name: str) -> float:
        """Return the seconds that one took, the median of all rounds."""
        return median(self.taken[name])


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Rounds; each visits every database once.")
@click.option("--keys", default=MANY, show_default=True, help="How many keys there are in the large stores.")
def main(rounds: int, keys: int) -> None:
    """Measure the key store."""
    console = Console(width=WIDTH)
    console.print(store_table(console, rounds, keys))


def store_table(console: Console, rounds: int, keys: int = MANY) -> Table:
    """Return what was measured of stores with few and with *keys* keys; *console* is told how far it is."""
    with TemporaryDirectory() as folder, running_server() as server:
        places = list(_places(Path(folder), server, keys))
        for place in places:
            console.print(f"filling {place.kind} with {place.count:,} keys", style="dim")
            asyncio.run(_fill(place))
        for number in range(1, rounds + 1):
            console.print(f"round {number} of {rounds}", style="dim")
            for place in places if number % 2 else reversed(places):  # what comes first is not always the same
                asyncio.run(_measure(place))
        return _table(places, rounds)


def _places(folder: Path, server: Server, keys: int) -> Iterator[Place]:
    for count in (LISTED, keys):
        path = folder / f"{count}.db"
        yield Place("SQLite", count, f"sqlite:///{path}", partial(_executed, path))
        name = f"keys{count}"
        yield Place("PostgreSQL", count, server.make_database(name), partial(server.execute, database=name))


def _executed(path: Path, sql: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(sql)
    connection.close()


def _gateway(place: Place) -> Gateway:
    with alone():
        return Gateway(database=place.url, routes=[_ROUTE], tiers={"standard": _TIER}, failure_limit="900000000/minute")


async def _fill(place: Place) -> None:
    """Make the schema, an account for each thing that is measured, and keys that nobody uses."""
    gateway = _gateway(place)
    await gateway.lifecycle.open(upgrade=True)
    listed = (await gateway.accounts.create("listed", "standard")).id
    others = (await gateway.accounts.create("others", "standard")).id
    await gateway.accounts.create("used", "standard")
    await gateway.lifecycle.close()
    for account, first, last in _runs(listed, others, place.count):
        told = {"account": account, "first": first, "last": last, **_SPELT[place.kind]}
        await asyncio.to_thread(place.execute, _FILL_KEYS.format(**told))
        await asyncio.to_thread(place.execute, _FILL_SECRETS.format(**told))
    await asyncio.to_thread(place.execute, "ANALYZE")


def _runs(listed: str, others: str, count: int) -> Iterator[tuple[str, int, int]]:
    yield listed, 1, LISTED
    for first in range(LISTED + 1, count + 1, _FILLED_AT_ONCE):
        yield others, first, min(first + _FILLED_AT_ONCE - 1, count)


async def _measure(place: Place) -> None:
    """Do everything once, with nothing cached at first."""
    gateway = _gateway(place)
    await gateway.lifecycle.serve()
    account = await gateway.accounts.find("used")
    listed = await gateway.accounts.find("listed")
    assert account is not None
    assert listed is not None
    began = time.perf_counter()
    made = [
        await gateway.keys.create(account.id, name="bench", scopes=["skills:list"], environment="live")
        for _ in range(_COLD)
    ]
    place.note("create a key", time.perf_counter() - began, len(made))
    began = time.perf_counter()
    assert await _pages(gateway, listed.id) == LISTED
    place.note(f"list, a key, by pages of {PAGE}", time.perf_counter() - began, LISTED)
    secrets = [secret for _, secret in made]
    place.note("decide, cold", await _decided(gateway, secrets[:_COLD]), _COLD)
    place.note("decide, cached", await _decided(gateway, secrets[:10] * (_CACHED // 10)), _CACHED)
    await gateway.lifecycle.close()


async def _pages(gateway: Gateway, account_id: str) -> int:
    seen, after = 0, None
    while page := await gateway.keys.list(account_id, after=after, limit=PAGE):
        seen, after = seen + len(page), page[-1].id
    return seen


async def _decided(gateway: Gateway, secrets: Sequence[str]) -> float:
    """Return the seconds that a decision for each of *secrets* takes, one after the other."""
    asked = [RequestFacts("GET", "/v1/skills", (f"Bearer {secret}".encode(),), 1, b"r") for secret in secrets]
    decide: Callable[[RequestFacts], Awaitable[object]] = gateway.gate.decide
    gc.collect()  # what was made before is not this one's to clean up
    began = time.perf_counter()
    for facts in asked:
        decision = await decide(facts)
        assert isinstance(decision, Allowed)
        assert decision.admission is not None
        decision.admission.lease.release()
    return time.perf_counter() - began


def _table(places: Sequence[Place], rounds: int) -> Table:
    table = Table(title=f"key store: medians of {rounds} interleaved rounds, one after the other on one connection")
    for heading in ("database", "what", f"{places[0].count:,} keys", f"{places[-1].count:,} keys", "slower by"):
        table.add_column(heading, justify="left" if heading in {"database", "what"} else "right", no_wrap=True)
    for few in places:
        for many in places:
            if few.kind == many.kind and few.count < many.count:
                for name in few.taken:
                    times = many.each(name) / few.each(name)
                    table.add_row(few.kind, name, _speed(few.each(name)), _speed(many.each(name)), f"{times:.2f}×")
    return table


def _speed(seconds: float) -> str:
    return f"{1 / seconds:,.0f}/s ({seconds * 1e6:,.1f} µs)"


if __name__ == "__main__":
    main()
