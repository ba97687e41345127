"""What takes longer to make than most tests take: a new schema, a key to sign by, and the hash of a password."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Unpack

import pytest
from argon2 import PasswordHasher
from joserfc.jwk import RSAKey

from machpay_gateway.assembly import ConfiguredGateway
from machpay_gateway.core.jose.signing import SigningKey
from machpay_gateway.core.keys.audit import APPLICATION, Change
from machpay_gateway.gateway import Gateway
from machpay_gateway.keysets import signing
from machpay_gateway.keysets.signing import SigningKeys
from machpay_gateway.settings import Options
from machpay_gateway.stores.sql import SqlStore

SECRET_KEY = token_hex(32)
_filled: dict[Callable[[Gateway], Awaitable[None]], dict[str, bytes]] = {}


def new_sqlite(path: Path) -> str:
    """Make a database of the newest schema at *path*, as one that was made in this process, and return its URL."""
    path.write_bytes(_empty_database())
    return f"sqlite:///{path}"


async def filled_sqlite(path: Path, fill: Callable[[Gateway], Awaitable[None]], **options: Unpack[Options]) -> str:
    """Return the URL of a new database at *path* in which *fill* has been at work, once a process.

    The gateway that it fills by hashes passwords cheaply; each is judged for its strength then, which takes 20 ms.
    """
    files = _filled.get(fill)
    if files is None:
        with TemporaryDirectory() as folder, _unrepeated_signing_keys():
            url = new_sqlite(Path(folder) / "filled.db")
            there: Options = {"database": url}
            async with ConfiguredGateway(**(there | options)) as gateway:
                hash_cheaply(gateway)
                await fill(gateway)
            files = {each.name: each.read_bytes() for each in Path(folder).iterdir()}  # noqa: ASYNC240 - once
            _filled[fill] = files
    for name, content in files.items():
        path.with_name(name.replace("filled.db", path.name)).write_bytes(content)
    return f"sqlite:///{path}"


async def give_signing_key(gateway: Gateway) -> None:
    """Let *gateway*, whose secret key is `SECRET_KEY`, sign by the key that all tests have."""
    key = _signing_key()
    change = Change(key.created_at, APPLICATION, "signing_key.create", "system", key.kid, {}, {})
    await gateway.store.add_signing_key(key, change, instead_of=None)


def hash_cheaply(gateway: Gateway) -> None:
    """Let *gateway* hash passwords by what costs nothing; a hash says itself how it is checked."""
    gateway.users._passwords._hasher = PasswordHasher(1, 8, 1)  # noqa: SLF001 - the tests' way in


@cache
def _empty_database() -> bytes:
    with TemporaryDirectory() as folder, ThreadPoolExecutor() as beside:
        path = Path(folder) / "empty.db"
        beside.submit(asyncio.run, _opened_once(SqlStore(f"sqlite:///{path}"))).result()
        return path.read_bytes()


async def _opened_once(store: SqlStore) -> None:
    await store.open()
    await store.close()


@cache
def _signing_key() -> SigningKey:
    with ThreadPoolExecutor() as beside:
        return beside.submit(asyncio.run, _first_signing_key()).result()


async def _first_signing_key() -> SigningKey:
    store = SqlStore("memory://")
    with _unrepeated_signing_keys():
        await SigningKeys(store, secret_key=SECRET_KEY.encode, life_seconds=60.0, clock=time.time).ensure()
    (key,) = await store.signing_keys()
    await store.close()
    return key


@contextmanager
def _unrepeated_signing_keys() -> Iterator[None]:
    """Generate keys that `recycled_signing_keys` never returns: a test that rotates them must get another one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signing, "RSAKey", RSAKey)
        yield
