"""How many tokens the authorization server gives in a second on one core, and what a token costs the gateway to check.

`python -m benchmarks.oauth`, and a part of `make bench`. Keycloak's published sizing is what one core has to do at
least: 120 refreshes, or 120 client-credential grants, each second.
"""

import asyncio
import gc
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from tempfile import TemporaryDirectory

import click
import httptools
import orjson
from rich.console import Console
from rich.table import Table
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from benchmarks.processes import LOAD_CORE, Server, alone, serving
from benchmarks.report import WIDTH, table_of
from machpay_gateway import Route, Tier
from machpay_gateway.core.decision.decision import Allowed
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.gateway import Gateway
from machpay_gateway.server import create_app
from tests.oauth.harness import REDIRECT, VERIFIER, Rig, basic, serving_oauth
from tests.postgres.servers import running_server

DATABASE_VARIABLE = "BENCHMARK_DATABASE"
_ISSUER = "http://localhost"  # another host than the benchmark asks the API at
_TIER = Tier("900000000/minute", 1_000_000)
_LEAST = 120  # a second
_CHECKS = 100_000


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("")(scope, receive, send)


def oauth() -> ASGIApp:
    """Return the authorization server on the run's database."""
    return create_app(
        _nothing,
        database=os.environ[DATABASE_VARIABLE],
        secret_key="benchmark" * 4,
        oauth=OAuthSettings(_ISSUER),
        failure_limit="900000000/minute",
    )


@dataclass(frozen=True)
class Prepared:
    """A client, and refresh tokens of as many sign-ins as there are connections."""

    client_id: str
    secret: str
    refresh_tokens: list[str]


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Rounds; each visits every database once.")
@click.option("--seconds", default=3, show_default=True, help="Length of one measurement.")
@click.option("--connections", default=32, show_default=True, help="Connections, each with a chain of its own.")
def main(rounds: int, seconds: int, connections: int) -> None:
    """Measure the authorization server."""
    console = Console(width=WIDTH)
    for table in oauth_tables(console, rounds, seconds, connections):
        console.print(table)


def oauth_tables(console: Console, rounds: int, seconds: int, connections: int) -> list[Table]:
    """Return what was measured; *console* is told how far it is."""
    taken: dict[tuple[str, str], list[float]] = {}
    with TemporaryDirectory() as folder, running_server() as postgres, ExitStack() as stack:
        urls = {"SQLite": f"sqlite:///{folder}/oauth.db", "PostgreSQL": postgres.make_database("oauth")}
        places = {}
        for kind, url in urls.items():
            with alone():
                prepared = asyncio.run(_prepared(url, connections))
            environment = {DATABASE_VARIABLE: url}
            places[kind] = stack.enter_context(serving("oauth", environment, module="oauth_served")), prepared
        for number in range(1, rounds + 1):
            console.print(f"round {number} of {rounds}", style="dim")
            for kind, (server, prepared) in places.items():
                for what, measure in (("refresh", _refreshes), ("client credentials", _grants)):
                    done = asyncio.run(_loaded(server, prepared, measure, seconds))
                    taken.setdefault((kind, what), []).append(done / seconds)
    checks = asyncio.run(_checks(rounds))
    return [_given_table(taken, rounds, seconds, connections), _checks_table(checks, rounds)]


async def _prepared(url: str, connections: int) -> Prepared:
    tiers = {"standard": _TIER}
    async with serving_oauth(
        authority=OAuthSettings(_ISSUER),
        database=url,
        tiers=tiers,
        secret_key="benchmark" * 4,
    ) as rig:
        browser = rig.http()
        tokens = []
        for _ in range(connections):
            answer = await rig.exchanged(await rig.code(browser))
            tokens.append(answer.json()["refresh_token"])
        return Prepared(rig.client.id, rig.secret, tokens)


class _Answer:
    """One answer of HTTP/1.1, as httptools tells of it."""

    def __init__(self) -> None:
        self.body = b""
        self.is_whole = False

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_whole = True


class _Connection:
    """Sends token requests one after the other, far cheaper than any client: the load is not what is measured."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, prepared: Prepared) -> None:
        self._reader = reader
        self._writer = writer
        authorization = basic(prepared.client_id, prepared.secret)["Authorization"]
        self._head = (
            f"POST /oauth/token HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {authorization}\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: "
        ).encode()

    async def ask(self, body: bytes) -> dict[str, str]:
        self._writer.write(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))
        answer = _Answer()
        parser = httptools.HttpResponseParser(answer)
        while not answer.is_whole:
            parser.feed_data(await self._reader.read(65536))
        document: dict[str, str] = orjson.loads(answer.body)
        assert "access_token" in document, document
        return document


async def _refreshes(connection: _Connection, prepared: Prepared, number: int, until: float) -> int:
    done = 0
    while time.perf_counter() < until:
        body = f"grant_type=refresh_token&refresh_token={prepared.refresh_tokens[number]}".encode()
        prepared.refresh_tokens[number] = (await connection.ask(body))["refresh_token"]
        done += 1
    return done


async def _grants(connection: _Connection, _prepared: Prepared, _number: int, until: float) -> int:
    done = 0
    while time.perf_counter() < until:
        await connection.ask(b"grant_type=client_credentials")
        done += 1
    return done


async def _loaded(
    server: Server,
    prepared: Prepared,
    measure: Callable[[_Connection, Prepared, int, float], Awaitable[int]],
    seconds: int,
) -> int:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {LOAD_CORE})
    try:
        streams = [await asyncio.open_connection("127.0.0.1", server.port) for _ in prepared.refresh_tokens]
        until = time.perf_counter() + seconds
        each = [measure(_Connection(*stream, prepared), prepared, n, until) for n, stream in enumerate(streams)]
        done = sum(await asyncio.gather(*each))
        for _, writer in streams:
            writer.close()
    finally:
        os.sched_setaffinity(0, allowed)
    return done


async def _checks(rounds: int) -> dict[str, list[float]]:
    """Return the seconds of a decision for a key and for tokens that were seen before, one after the other in turns."""
    async with serving_oauth(routes=[Route("GET /who", scopes="account:read")], tiers={"standard": _TIER}) as rig:
        credentials = await _credentials(rig)
        taken: dict[str, list[float]] = {name: [] for name in credentials}
        for _ in range(rounds):
            for name, credential in credentials.items():
                taken[name].append(await _decided(rig.gateway, credential) / _CHECKS)
        return taken


async def _credentials(rig: Rig) -> dict[str, str]:
    _, secret = await rig.gateway.keys.create(
        rig.user.account_id, name="bench", scopes=["account:read"], environment="live"
    )
    session = await rig.http().post("/v1/sessions", headers={"Authorization": f"Bearer {secret}"}, json={})
    answer = await rig.exchanged(await rig.code(), redirect_uri=REDIRECT, code_verifier=VERIFIER)
    return {"API key": secret, "session": session.json()["token"], "access token": answer.json()["access_token"]}


async def _decided(gateway: Gateway, credential: str) -> float:
    facts = RequestFacts("GET", "/who", (f"Bearer {credential}".encode(),), 1, b"r")
    decide, clock = gateway.gate.decide, time.perf_counter
    assert isinstance(await decide(facts), Allowed)
    gc.collect()
    began = clock()
    for _ in range(_CHECKS):
        decision = await decide(facts)
        assert isinstance(decision, Allowed)
        assert decision.admission is not None
        decision.admission.lease.release()
    return clock() - began


def _given_table(taken: dict[tuple[str, str], list[float]], rounds: int, seconds: int, connections: int) -> Table:
    title = f"tokens a second on one core: medians of {rounds} rounds of {seconds} s, {connections} connections"
    table = table_of(title, "database", ("grant", "a second", f"of {_LEAST}"))
    for (kind, what), figures in taken.items():
        table.add_row(kind, what, f"{median(figures):,.0f}", f"{median(figures) / _LEAST:.1f}×")
    return table


def _checks_table(taken: dict[str, list[float]], rounds: int) -> Table:
    table = table_of(
        f"deciding by what was seen before: medians of {rounds} rounds", "credential", ("µs", "more than a key")
    )
    key = median(taken["API key"])
    for name, figures in taken.items():
        table.add_row(name, f"{median(figures) * 1e6:.2f}", f"{(median(figures) - key) * 1e6:+.2f}")
    return table


if __name__ == "__main__":
    main()
