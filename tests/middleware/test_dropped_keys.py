"""`signing-keys rotate --now` at workers that serve nothing but tokens that they have verified before."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from machpay_gateway import Gateway, MachPayAuth
from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.jose.session import TYPE, session_claims
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.keysets import signing
from tests.applications import ok
from tests.gateways import ROUTES, Guarded
from tests.redises.servers import Server, running_server
from tests.waiting import until


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture(params=["one without Redis", "two with Redis"])
async def workers(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[Guarded]]:
    """Return workers that serve from one database."""
    monkeypatch.setattr(signing, "POLL_SECONDS", 0.02)
    redis = request.getfixturevalue("server").url if request.param.startswith("two") else None
    async with AsyncExitStack() as stack:
        served = []
        for _ in range(1 if redis is None else 2):
            gateway = Gateway(database=f"sqlite:///{tmp_path}/keys.db", redis=redis, routes=ROUTES)
            await stack.enter_async_context(gateway)
            await gateway.lifecycle.serve()
            served.append(Guarded(MachPayAuth(ok, gateway=gateway), gateway))
        yield served


async def session_token(worker: Guarded) -> str:
    """Return a session of a new key."""
    _, secret = await worker.key()
    answer = await worker.client(secret).get("/v1/skills")
    assert answer.status_code == 200
    principal = worker.gateway.key_cache.cached(_digest(secret), time.time())
    assert isinstance(principal, Principal)
    scopes = Scopes(frozenset({"skills:list"}))
    claims = session_claims(principal, scopes, seconds=900, token_id="session_1", now=time.time())
    return await worker.gateway.signing.sign(claims, TYPE)


def _digest(secret: str) -> bytes:
    return sha256(secret.encode()).digest()


def _lacks(worker: Guarded, token: str) -> bool:
    return not worker.gateway.key_cache.holds(_digest(token))


async def test_every_worker_refuses_sessions_of_a_dropped_key(workers: list[Guarded], tmp_path: Path) -> None:
    token = await session_token(workers[0])
    for worker in workers:
        assert (await worker.client(token).get("/v1/skills")).status_code == 200
    async with Gateway(database=f"sqlite:///{tmp_path}/keys.db", routes=ROUTES) as command:
        await command.signing.rotate()
        for worker in workers:
            assert (await worker.client(token).get("/v1/skills")).status_code == 200
        await command.signing.rotate(at_once=True)
    for worker in workers:
        await until(partial(_lacks, worker, token))
        answer = await worker.client(token).get("/v1/skills")
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_credentials")


async def test_a_mounted_application_without_a_lifespan_polls_from_its_first_request_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "POLL_SECONDS", 0.02)
    database = f"sqlite:///{tmp_path}/keys.db"
    gateway = Gateway(database=database, routes=ROUTES)
    mounted = Guarded(MachPayAuth(ok, gateway=gateway), gateway)
    try:
        async with Gateway(database=database, routes=ROUTES) as command:
            _, secret = await Guarded(mounted.app, command).key()
            assert (await mounted.client(secret).get("/v1/skills")).status_code == 200
            new = await command.signing.rotate(at_once=True)
            await until(lambda: gateway.signing.verifies(new.kid))
    finally:
        await gateway.lifecycle.close()
