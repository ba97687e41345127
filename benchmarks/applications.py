"""What the load test serves: an application bare, and the same guarded with everything on, in memory or in Redis.

A guarded one checks the key, its scopes, its allowlist, the window and the concurrency, and adds its headers.
"""

import os
import time
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route as Endpoint
from starlette.types import ASGIApp

from benchmarks.bare import PATH, raw
from machpay_gateway import Gateway, MachPayAuth, Route, Tier
from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.keys.audit import APPLICATION, Change
from machpay_gateway.core.keys.key import KeyRecord, SecretRecord, mask_secret, secret_digest
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.core.store import Store

SECRETS_VARIABLE = "BENCHMARK_SECRETS"  # names a file with one secret a line, made anew for each run
REDIS_VARIABLE = "BENCHMARK_REDIS"
LIMIT_VARIABLE = "BENCHMARK_LIMIT"  # a minute; by default what no load exhausts
_SEEDED = Change(0.0, APPLICATION, "benchmark.seed", "acct_load", "acct_load", {}, {})
_LIMIT = int(os.environ.get(LIMIT_VARIABLE, "9000000"))


async def _execute(_request: Request) -> JSONResponse:
    return JSONResponse({"ok": True})


def _starlette() -> Starlette:
    return Starlette(routes=[Endpoint(PATH, _execute)])


def _seed_at_opening(store: Store) -> None:
    """Have *store* hold the run's keys as soon as it is open."""
    open_store = store.open

    async def open_and_seed(*, upgrade: bool = False) -> None:
        await open_store(upgrade=upgrade)
        secrets = Path(os.environ[SECRETS_VARIABLE]).read_text().split()  # noqa: ASYNC240 - before anything is served
        if await store.add_account(Account("acct_load", "load", "enterprise", time.time()), _SEEDED):
            for number, secret in enumerate(secrets):
                await store.add_key(_key(number, secret), _SEEDED)

    store.open = open_and_seed  # type: ignore[method-assign]  # of this one store


def _key(number: int, secret: str) -> KeyRecord:
    now = time.time()
    return KeyRecord(
        id=f"key_load{number}",
        account_id="acct_load",
        name="load",
        environment="live",
        tier="enterprise",
        account_tier="enterprise",
        scopes=Scopes(frozenset({"skills:execute", "skills:list"})),
        allowed_ips=("127.0.0.0/8", "::1"),
        created_at=now,
        secrets=(SecretRecord(secret_digest(secret.encode()), mask_secret(secret), now),),
    )


def _guard(app: ASGIApp, redis: str | None = None) -> MachPayAuth:
    """Guard *app* for keys that the load never exhausts: refusals are cheaper than answers."""
    gateway = Gateway(
        database="memory://",
        redis=redis,
        routes=[
            Route(f"GET {PATH}", scopes="skills:execute"),
            Route("GET /v1/skills/{id}", scopes="skills:list"),
            Route("GET /healthz", public=True),
        ],
        # As close to a real tier as one can be that this load does not exhaust in a minute.
        tiers={"enterprise": Tier(f"{_LIMIT}/minute", concurrency=500)},
    )
    _seed_at_opening(gateway.store)
    return MachPayAuth(app, gateway=gateway)


raw_guarded = _guard(raw)
if REDIS_VARIABLE in os.environ:
    raw_redis = _guard(raw, os.environ[REDIS_VARIABLE])
starlette_bare = _starlette()
starlette_guarded = _guard(_starlette())
