"""What holds for every test: what takes long to make is made once a process, and temporary files are in memory."""

import gc
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Generator, Iterator
from itertools import count
from pathlib import Path
from ssl import SSLContext
from typing import Any

import pytest
from joserfc.jwk import RSAKey
from xdist.scheduler import LoadGroupScheduling

from tests.bytecode import cache_share

_TMPFS = Path("/dev/shm")  # noqa: S108 - temporary files are what it is for
# A whole run leaves less than half of this behind at any time. Containers get 64 MB by default, which is too little.
_ROOM_BYTES = 2 * 1024**3
# More than 10 s each. They are started first, so that no process is left alone with one of them at the end.
_LONGEST = (
    "tests/console/chromium",
    "tests/oauth/browser",
    "tests/oauth/test_at_once.py",
    "tests/serving",
    "tests/cli/test_demo.py",
    "tests/middleware/test_frameworks.py",
)
_SIGNING_KEYS = 8  # more than any test rotates through
_STATEMENTS = 5000  # more than the stores have


class ModuleScheduling(LoadGroupScheduling):  # type: ignore[misc]  # untyped
    """Runs the tests of a module, or of the modules of one `xdist_group`, in one process.

    Each process that runs some of them makes what they share. Besides, xdist takes 1 ms more for each test if every
    test may run anywhere.
    """

    def _split_scope(self, nodeid: str) -> str:
        group: str = super()._split_scope(nodeid)
        return group.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ModuleScheduling:  # noqa: ANN401 - xdist's own
    """Schedule by module, in the order of `pytest_collection_modifyitems`."""
    config.option.loadscopereorder = False
    return ModuleScheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, Any, Any]:
    """Hide the objects of the collected tests from the garbage collector: it never frees them.

    A process has half a million of them. Traversing them takes a fifth of the time of collecting the tests.
    """
    gc.disable()
    try:
        cache_share(session.config)
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest modules first, then those with the most tests."""
    sizes = Counter(item.nodeid.partition("::")[0] for item in items)
    ranks = {module: _rank(module, size) for module, size in sizes.items()}
    items.sort(key=lambda item: ranks[item.nodeid.partition("::")[0]])


def _rank(module: str, size: int) -> tuple[int, int, str]:
    place = next((place for place, prefix in enumerate(_LONGEST) if module.startswith(prefix)), len(_LONGEST))
    return place, -size, module


def _keep_temporary_files_in_memory() -> None:
    """Point TMPDIR at a tmpfs: databases wait for fsync otherwise, which doubles the time of the stores' tests."""
    if "TMPDIR" in os.environ or not os.access(_TMPFS, os.W_OK) or shutil.disk_usage(_TMPFS).free < _ROOM_BYTES:
        return
    os.environ["TMPDIR"] = tempfile.tempdir = str(_TMPFS)  # processes that tests start inherit it


_keep_temporary_files_in_memory()


@pytest.fixture(scope="module")
async def shared() -> AsyncIterator[Any]:
    """What the tests of a module share, as a `tests.gateways.Shared` that is empty at first."""
    from tests.gateways import Shared  # noqa: PLC0415 - processes that only collect tests need no gateway

    async with Shared[Any]() as shared:
        yield shared


@pytest.fixture(scope="session", autouse=True)
def shared_ssl_contexts() -> Iterator[None]:
    """Read the certificates of authorities once: every HTTP client does otherwise, which takes it 20 ms."""
    import httpcore2  # noqa: PLC0415 - processes that only collect tests need no HTTP

    create, contexts = httpcore2.default_ssl_context, dict[object, SSLContext]()

    def default_ssl_context(**options: bool) -> SSLContext:
        files = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
        key = tuple(options.items()), files
        if key not in contexts:
            contexts[key] = create(**options)
        return contexts[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpcore2, "default_ssl_context", default_ssl_context)
        yield


@pytest.fixture(scope="session", autouse=True)
def recycled_signing_keys() -> Iterator[None]:
    """Let gateways that need a new signing key take turns with a few: generating one takes 100 ms."""
    from machpay_gateway.keysets import signing  # noqa: PLC0415 - as above

    keys: list[RSAKey] = []
    turns = count()

    class Recycled(RSAKey):
        @classmethod
        def generate_key(cls, *arguments: Any, **options: Any) -> RSAKey:  # type: ignore[override]  # noqa: ANN401 - passed on
            turn = next(turns) % _SIGNING_KEYS
            if turn == len(keys):
                keys.append(RSAKey.generate_key(*arguments, **options))
            return keys[turn]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signing, "RSAKey", Recycled)
        yield


@pytest.fixture(scope="session", autouse=True)
def shared_statements() -> Iterator[None]:
    """Compile a statement for SQLite once: every engine does otherwise, and every gateway has two of them."""
    from sqlalchemy import util  # noqa: PLC0415 - as above
    from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine  # noqa: PLC0415 - as above

    from machpay_gateway.stores.sql import engine  # noqa: PLC0415 - as above

    class Statements(util.LRUCache[Any, Any]):
        """Compiled statements by their keys, which begin with the dialect: there, all of SQLite are one."""

        def get(self, key: Any, default: Any = None) -> Any:  # noqa: ANN401 - as the base class
            return super().get(key[1:], default)

        def __setitem__(self, key: Any, value: Any) -> None:  # noqa: ANN401 - as the base class
            super().__setitem__(key[1:], value)

    statements = Statements(_STATEMENTS)

    def create(*arguments: Any, **options: Any) -> AsyncEngine:  # noqa: ANN401 - passed on
        made = create_async_engine(*arguments, **options)
        if made.dialect.name == "sqlite":
            made.sync_engine._compiled_cache = statements  # noqa: SLF001 - has no setting
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "create_async_engine", create)
        yield
