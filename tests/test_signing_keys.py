"""The gateway's signing keys across processes and time: created once, rotated with notice, encrypted in the store."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateNumbers, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc.jwk import RSAKey
from starlette.testclient import TestClient

from machpay_gateway import Gateway, MachPayAuth
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.jose.compact import CompactToken, parse_compact
from machpay_gateway.core.jose.signing import PUBLISH_BEFORE_SIGNING_SECONDS
from machpay_gateway.core.keys.audit import APPLICATION, Change
from machpay_gateway.keysets.signing import SigningKeys
from machpay_gateway.stores.sql import SqlStore
from tests.applications import ok
from tests.clocks import FixedClock
from tests.postgres.fixtures import empty_postgres_url, postgres_server, postgres_url

__all__ = ["empty_postgres_url", "postgres_server", "postgres_url"]

LIFE = 3660.0
SECRET = b"s" * 32


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(1_700_000_000.0)


@pytest.fixture
def store() -> SqlStore:
    return SqlStore("memory://")


@pytest.fixture
def worker(store: SqlStore, clock: FixedClock) -> Callable[..., SigningKeys]:
    def make(secret: bytes = SECRET) -> SigningKeys:
        return SigningKeys(store, secret_key=lambda: secret, life_seconds=LIFE, clock=clock)

    return make


async def signed(keys: SigningKeys) -> CompactToken:
    token = parse_compact((await keys.sign({"sub": "x"}, "at+jwt")).encode())
    assert not isinstance(token, str)
    return token


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/keys.db"
    return str(request.getfixturevalue("postgres_url"))


async def test_many_workers_that_start_at_once_make_one_key(url: str) -> None:
    stores = [SqlStore(url) for _ in range(8)]
    for store in stores:
        await store.open()
    workers = [
        SigningKeys(store, secret_key=lambda: SECRET, life_seconds=LIFE, clock=lambda: 1000.0) for store in stores
    ]
    tokens = await asyncio.gather(*(signed(worker) for worker in workers))
    assert len({token.kid for token in tokens}) == 1
    assert len(await stores[0].signing_keys()) == 1
    assert len(await stores[0].audit_rows(0)) == 1
    rotated = await workers[0].rotate(at_once=True)
    assert [key.kid for key in await workers[-1].all()] == [rotated.kid]
    (stored_key,) = await stores[-1].signing_keys()
    assert (stored_key.sealed, stored_key.public) == (rotated.sealed, rotated.public)
    assert b"PRIVATE" not in stored_key.sealed
    for store in stores:
        await store.close()


async def test_what_one_worker_signs_every_other_verifies(worker: Callable[..., SigningKeys]) -> None:
    token = await signed(worker())
    assert await worker().has_signed(token)


async def test_a_rotation_is_noticed_before_it_signs_and_the_old_key_serves_until_its_last_token(
    worker: Callable[..., SigningKeys], clock: FixedClock
) -> None:
    signer, verifier = worker(), worker()
    old = await signed(signer)
    assert await verifier.has_signed(old)
    new = await worker().rotate()  # by a process of its own
    clock.now += 61
    assert {key["kid"] for key in await verifier.jwks()} == {old.kid, new.kid}
    assert (await signed(signer)).kid == old.kid
    clock.now += PUBLISH_BEFORE_SIGNING_SECONDS
    latest = await signed(signer)
    assert latest.kid == new.kid
    assert await verifier.has_signed(latest)
    assert await verifier.has_signed(old)
    clock.now += LIFE
    assert {key["kid"] for key in await verifier.jwks()} == {new.kid}
    assert not await verifier.has_signed(old)
    dropped = await worker().rotate()
    assert {key.kid for key in await worker().all()} == {new.kid, dropped.kid}


async def test_at_once_ends_everything(worker: Callable[..., SigningKeys], clock: FixedClock) -> None:
    signer = worker()
    old = await signed(signer)
    await worker().rotate(at_once=True)
    clock.now += 61
    latest = await signed(signer)
    assert latest.kid != old.kid
    assert not await signer.has_signed(old)


async def test_made_up_key_ids_cost_a_question_a_second_and_no_more(
    worker: Callable[..., SigningKeys], clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = worker()
    token = await signed(keys)
    loads = 0
    store = keys._store  # noqa: SLF001 - to count what is asked of it
    original = store.signing_keys

    async def counted() -> Any:  # noqa: ANN401 - as the store's
        nonlocal loads
        loads += 1
        return await original()

    monkeypatch.setattr(store, "signing_keys", counted)
    clock.now += 2
    for number in range(100):
        other = CompactToken("RS256", f"k{number}", token.type, token.claims, token.signing_input, token.signature)
        assert not await keys.has_signed(other)
    assert loads == 1


async def test_another_secret_key_is_told_with_the_way_out(worker: Callable[..., SigningKeys]) -> None:
    await signed(worker())
    with pytest.raises(ConfigurationError, match=r"sealed by another secret key.*MACHPAY_SECRET_KEY.*--now"):
        await signed(worker(b"t" * 32))


async def test_a_secret_key_is_checked_against_the_keys_that_sign_now_or_next(
    worker: Callable[..., SigningKeys], clock: FixedClock
) -> None:
    await worker(b"t" * 32).check_secret_key()  # there is no key yet, and none is created
    assert await worker().all() == []
    await signed(worker())
    await worker().check_secret_key()
    with pytest.raises(ConfigurationError, match=r"sealed by another secret key.*MACHPAY_SECRET_KEY.*--now"):
        await worker(b"t" * 32).check_secret_key()
    await worker(b"t" * 32).rotate(at_once=True)
    await worker(b"t" * 32).check_secret_key()
    clock.now += 1
    await worker(b"t" * 32).rotate()
    with pytest.raises(ConfigurationError, match="sealed by another"):
        await worker().check_secret_key()


async def test_without_a_secret_key_there_is_nothing_to_check(
    worker: Callable[..., SigningKeys], store: SqlStore, clock: FixedClock
) -> None:
    def none() -> bytes:
        raise ConfigurationError("there is none")

    await signed(worker())
    await SigningKeys(store, secret_key=none, life_seconds=LIFE, clock=clock).check_secret_key()


async def test_a_start_with_another_secret_key_fails(url: str) -> None:
    if url.startswith("postgresql"):
        async with Gateway(database=url, secret_key="s" * 32) as gateway:
            await gateway.signing.ensure()
    else:
        async with Gateway(database=url) as gateway:
            await gateway.signing.ensure()
    started = TestClient(MachPayAuth(ok, database=url, secret_key="t" * 32))
    with pytest.raises(ConfigurationError, match=r"sealed by another secret key.*MACHPAY_SECRET_KEY"), started:
        pytest.fail("it started")
    async with Gateway(database=url, secret_key="t" * 32) as gateway:  # a command, which may be the way out
        assert len(await gateway.signing.all()) == 1


async def test_no_key_is_added_that_the_workers_could_not_open(
    worker: Callable[..., SigningKeys], clock: FixedClock
) -> None:
    serving = worker()
    old = await signed(serving)
    with pytest.raises(ConfigurationError, match="sealed by another secret key"):
        await worker(b"t" * 32).rotate()
    clock.now += PUBLISH_BEFORE_SIGNING_SECONDS + 61
    assert (await signed(serving)).kid == old.kid
    await worker(b"t" * 32).rotate(at_once=True)  # the way out, for whoever has lost the one of then
    assert (await signed(worker(b"t" * 32))).kid != old.kid


def test_the_secret_beside_a_database_is_one_for_all_processes(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from machpay_gateway.stores.sql.secret import secret_beside;"
        "print(secret_beside(Path(sys.argv[1])).hex())"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "keys.db")]

    def run(_: int) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(run, range(4)))) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["keys.db.secret"]
    assert (tmp_path / "keys.db.secret").stat().st_mode & 0o777 == 0o600


def test_a_secret_file_that_holds_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "keys.db.secret").write_text("short")
    store = SqlStore(f"sqlite:///{tmp_path}/keys.db")
    with pytest.raises(ConfigurationError, match="holds no secret key"):
        store.secret_key()


async def test_a_decrypted_private_key_is_parsed_once_and_not_validated(
    worker: Callable[..., SigningKeys], clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = generate_private_key(65537, 2048).private_numbers()
    odd = RSAPrivateNumbers(
        numbers.p, numbers.q, numbers.d, numbers.dmp1, numbers.dmq1, numbers.iqmp + 2, numbers.public_numbers
    ).private_key(unsafe_skip_rsa_key_validation=True)
    pem = odd.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(ValueError, match=r"."):
        RSAKey.import_key(pem)  # validation takes 40 ms, and refuses it
    keys, decrypted = worker(), []
    kid = (await signed(keys)).kid

    def unsealed(sealed: bytes, secret_key: bytes, name: str) -> bytes:
        decrypted.append((sealed, secret_key, name))
        return pem

    monkeypatch.setattr("machpay_gateway.keysets.signing.unseal", unsealed)
    other = worker()
    await other.ensure()
    clock.now += 3600  # the keys are loaded again
    await other.ensure()
    assert [name for _, _, name in decrypted] == [kid]


async def test_a_sealed_private_key_that_was_changed_or_swapped_is_refused(
    worker: Callable[..., SigningKeys], store: SqlStore, clock: FixedClock
) -> None:
    await signed(worker())
    clock.now += 1
    await worker().rotate()
    new, old = await store.signing_keys()
    for tampered in (
        bytes([old.sealed[0] ^ 1]) + old.sealed[1:],
        old.sealed[:-1] + bytes([old.sealed[-1] ^ 1]),
        new.sealed,
    ):
        change = Change(clock.now, APPLICATION, "signing_key.create", "system", old.kid, {}, {})
        await store.add_signing_key(replace(old, sealed=tampered), change, instead_of={old.kid})
        with pytest.raises(ConfigurationError, match="sealed by another secret key"):
            await signed(worker())
