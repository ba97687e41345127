"""What operators are told of each part that is not well."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from httpx2 import ASGITransport, AsyncClient

from machpay_gateway.assembly import ConfiguredGateway
from machpay_gateway.core.decision.credential import ApiKey, credential_of
from machpay_gateway.core.decision.principal import ANONYMOUS
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.core.jose.issuer import Issuer
from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.gateway import Gateway
from machpay_gateway.keysets.signing import SigningKeys
from machpay_gateway.serving.management import management_app
from machpay_gateway.serving.metrics import Metrics
from machpay_gateway.stores.sql.health_checks import database_findings
from tests.redises.cluster import running_cluster
from tests.redises.servers import running_server

PASSWORD = secrets.token_hex(8)


class FakeWorker:
    """A worker, as far as operators see it."""

    def __init__(self, gateway: Gateway, folder: Path) -> None:
        self.gateway = gateway
        self.metrics = Metrics(folder, dict)
        self.is_draining = False


Ask = Callable[[], Any]


@asynccontextmanager
async def worker(folder: Path, **options: Any) -> AsyncIterator[tuple[FakeWorker, Ask]]:  # noqa: ANN401 - settings
    """Yield a worker, and what asks it: for the status, and the checks."""
    async with ConfiguredGateway(**({"database": "memory://"} | options)) as gateway:
        it = FakeWorker(gateway, folder)
        transport = ASGITransport(app=management_app(it.gateway, it.metrics, lambda: it.is_draining))

        async def ask() -> tuple[int, Mapping[str, str]]:
            async with AsyncClient(transport=transport, base_url="http://operators.test") as client:
                answer = await client.get("/readyz")
            checks, status = answer.json()["checks"], answer.json()["status"]
            if answer.status_code == 503:
                assert status == "not ready"
            else:
                assert status == ("ready" if set(checks.values()) == {"ok"} else "degraded")
            return answer.status_code, checks

        yield it, ask


def failing(error: Exception) -> Callable[..., Any]:
    async def fail(*_: object, **__: object) -> None:
        raise StoreUnavailable("audit log") from error

    return fail


async def test_whatever_is_well_is_told_as_ok(tmp_path: Path) -> None:
    async with worker(tmp_path) as (_, ask):
        assert await ask() == (200, dict.fromkeys(["serving", "key store", "limiter", "usage"], "ok"))
    async with worker(tmp_path, database="sqlite://", oauth=OAuthSettings("https://id.example.org")) as (_, ask):
        assert (await ask())[1]["signing keys"] == "ok"


async def test_a_key_store_that_is_away_is_told_with_the_reason_and_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with worker(tmp_path) as (it, ask):
        error = OSError(f"cannot connect to postgresql://machpay:{PASSWORD}@db.example.com/machpay\nand more")
        monkeypatch.setattr(it.gateway.store, "audit_head", failing(error))
        status, checks = await ask()
        assert (status, checks["serving"]) == (503, "ok")
        assert checks["key store"] == (
            "away: The database did not answer (audit log, cannot connect to postgresql://…@db.example.com/machpay): "
            "see that it runs and that `database` names it. "
            "Requests with a key get 503."
        )


@pytest.mark.parametrize(
    "cause, masked",
    [
        ("no postgresql://u:{}@db/x", "no postgresql://…@db/x"),
        ("no postgresql://{}@db/x", "no postgresql://…@db/x"),
        ("no postgresql://u:a/{}@db/x", "no postgresql://…@db/x"),  # a password that was not escaped
        ("no postgresql://u:a {}@db/x", "no postgresql://…@db/x"),
        ("no postgresql://u:a@{}@db/x", "no postgresql://…@db/x"),
        ("no postgresql://u:a?#{}@db/x", "no postgresql://…@db/x"),
        ("no postgresql://db/x?user=u&password={} there", "no postgresql://db/x?user=u&password=… there"),
        ("no host=db password={} user=u", "no host=db password=… user=u"),
        ("no host=db PassWord = {}&a user=u", "no host=db PassWord = … user=u"),
        (r"no password='a \' {} b' user=u", "no password=… user=u"),
        ("no password='a {}\nb'", "no password=…"),  # of which the first line is told
        ('password authentication failed for user "u"', 'password authentication failed for user "u"'),
    ],
)
async def test_no_password_is_told_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: str, masked: str
) -> None:
    async with worker(tmp_path) as (it, ask):
        monkeypatch.setattr(it.gateway.store, "audit_head", failing(OSError(cause.format(PASSWORD))))
        check = (await ask())[1]["key store"]
    assert PASSWORD not in check
    assert f"(audit log, {masked}" in check


async def test_keys_in_the_cache_keep_it_ready_and_degraded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with worker(tmp_path, trust_seconds=60) as (it, ask):
        account = await it.gateway.accounts.create("acme", "standard")
        _, secret = await it.gateway.keys.create(account.id, name="k", scopes=[], environment="live")
        credential = credential_of(secret.encode())
        assert isinstance(credential, ApiKey)
        assert await it.gateway.key_cache.find(credential) is not None
        monkeypatch.setattr(it.gateway.store, "audit_head", failing(OSError("gone")))
        status, checks = await ask()
        assert status == 200
        assert checks["key store"].startswith("degraded: The database did not answer (audit log, gone)")
        assert checks["key store"].endswith("Keys in the cache are served for 60 s longer; all others get 503.")


@pytest.mark.parametrize("table", ["accounts", "keys", "key_secrets"])
async def test_a_locked_table_of_look_ups_is_told_by_readiness_and_by_doctor(
    tmp_path: Path, postgres_url: str, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("machpay_gateway.stores.sql.health_checks._ANSWER_SECONDS", 0.5)
    lock = await asyncpg.connect(postgres_url)
    async with worker(tmp_path, database=postgres_url) as (_, ask):
        assert (await ask())[0] == 200
        async with lock.transaction():
            await lock.execute(f"LOCK TABLE {table}")
            status, checks = await ask()
            with pytest.raises(StoreUnavailable, match=r"no answer within 0\.5 s"):
                await database_findings(postgres_url, ["standard"])
        assert await ask() == (200, dict.fromkeys(checks, "ok"))
    await lock.close()
    assert status == 503
    assert checks["key store"].startswith("away: The database did not answer (key lookup: no answer within 1.0 s): ")


@pytest.mark.parametrize(
    "options",
    [
        {"routes": [Route("GET /status", public=True)]},
        {"issuers": [Issuer("https://id.example.com", "api", "https://id.example.com/jwks")]},
    ],
)
async def test_what_needs_no_record_keeps_it_ready_and_degraded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    async with worker(tmp_path, **options) as (it, ask):
        monkeypatch.setattr(it.gateway.store, "audit_head", failing(OSError("gone")))
        status, checks = await ask()
        assert status == 200
        assert checks["key store"].endswith(
            "Requests with a key get 503; public routes and tokens of issuers are served."
        )


async def test_draining_makes_it_not_ready(tmp_path: Path) -> None:
    async with worker(tmp_path) as (it, ask):
        it.is_draining = True
        status, checks = await ask()
        assert (status, checks["key store"]) == (503, "ok")
        assert checks["serving"].startswith("draining: ")


@pytest.mark.parametrize(
    "mode, meanwhile",
    [
        ("local", "each worker counts by itself, up to its share of the limits"),
        ("deny", "requests with a key or token are refused with 503"),
        ("allow", "requests are admitted whatever the limits"),
    ],
)
async def test_a_limiter_without_redis_says_since_when_and_what_holds_meanwhile(
    tmp_path: Path, mode: str, meanwhile: str
) -> None:
    with running_server() as redis:
        async with worker(tmp_path, redis=redis.url, on_limiter_failure=mode) as (it, ask):
            await it.gateway.lifecycle.serve()
            assert (await ask())[1]["limiter"] == "ok"
            redis.kill()
            async with asyncio.timeout(10):
                while not it.gateway.limiter.is_degraded:  # noqa: ASYNC110 - what is waited for knows of no event
                    await asyncio.sleep(0.01)
            status, checks = await ask()
            assert status == 200  # it goes on
            assert checks["limiter"].startswith("degraded: Redis has not answered for 0 s (")
            assert f'Meanwhile {meanwhile} (on_limiter_failure = "{mode}")' in checks["limiter"]


async def test_a_limiter_without_a_shard_of_a_cluster_says_which_of_how_many(tmp_path: Path) -> None:
    with running_cluster("--cluster-require-full-coverage", "no") as cluster:
        async with worker(tmp_path, redis=cluster.url) as (it, ask):
            await it.gateway.lifecycle.serve()
            assert (await ask())[1]["limiter"] == "ok"
            dead = cluster.servers[1]
            dead.kill()
            async with asyncio.timeout(10):
                while not it.gateway.limiter.is_degraded:  # noqa: ASYNC110 - what is waited for knows of no event
                    await asyncio.sleep(0.01)
            status, checks = await ask()
            assert status == 200
            said = f"degraded: 1 of 3 shards (127.0.0.1:{dead.port}) of Redis have not answered for 0 s ("
            assert checks["limiter"].startswith(said)


async def test_usage_that_cannot_be_stored_is_told_with_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with worker(tmp_path) as (it, ask):
        recorder = it.gateway.recorder
        with monkeypatch.context() as patch:
            patch.setattr(it.gateway.store, "add_usage", failing(OSError("no space left")))
            for _ in range(3):
                recorder.record(ANONYMOUS, Route("GET /", public=True), "allowed", 200, time.perf_counter())
            await recorder.close()
            status, checks = await ask()
        assert status == 200
        assert checks["usage"] == (
            "unstored: 3 requests of the last 0 s are counted in memory alone, and stored once that works again. "
            "The database did not answer (audit log, no space left): see that it runs and that `database` names it."
        )
        await recorder.close()
        assert (await ask())[1]["usage"] == "ok"


async def test_a_database_that_takes_no_writes_is_told_and_keys_are_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with worker(tmp_path) as (it, ask):
        await it.gateway.lifecycle.serve()
        assert "database" not in (await ask())[1]
        monkeypatch.setattr(it.gateway.store._database, "is_read_only", True)  # type: ignore[attr-defined]  # noqa: SLF001
        status, checks = await ask()
        assert status == 200
        assert checks["database"].startswith("read-only: keys are verified, and nothing can be changed or counted")


async def test_missing_signing_keys_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with worker(tmp_path, database="sqlite://", oauth=OAuthSettings("https://id.example.org")) as (it, ask):

        async def none() -> list[Any]:
            return []

        monkeypatch.setattr(it.gateway.signing, "jwks", none)
        status, checks = await ask()
        assert status == 200
        assert checks["signing keys"].startswith("missing: ")
        monkeypatch.setattr(it.gateway.signing, "jwks", failing(OSError()))
        assert (await ask())[1]["signing keys"].startswith("away: ")


async def test_another_secret_key_than_that_of_the_signing_keys_is_told(tmp_path: Path) -> None:
    async with worker(tmp_path, secret_key=secrets.token_hex(32)) as (it, ask):
        other = SigningKeys(it.gateway.store, secret_key=lambda: b"t" * 32, life_seconds=60, clock=time.time)
        await other.rotate()
        await it.gateway.signing.all()  # as it does every 20 s
        status, checks = await ask()

    assert status == 200
    assert checks["signing keys"].startswith("wrong secret_key: sessions and tokens get 503")
    assert "MACHPAY_SECRET_KEY" in checks["signing keys"]
