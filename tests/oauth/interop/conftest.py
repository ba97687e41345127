"""One authorization server and one set of Node.js packages for all that is tried with them."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.node import NPM, done, shared_directory
from tests.oauth.interop.served import Browser, Served, serving_apps

SOURCES = Path(__file__).with_name("node")


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving_apps(tmp_path_factory.mktemp("interop")) as served:
        yield served


@pytest.fixture(scope="session")
def browser(served: Served) -> Iterator[Browser]:
    """A user's, who is signed in from the first question on."""
    browser = Browser(served.issuer)
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs in `node` with the packages that they need, in a copy that all processes share."""
    shared = shared_directory(tmp_path_factory)
    root, ready = shared / "interop-node", shared / "interop-node.ready"
    with FileLock(shared / "interop-node.lock"):
        if not ready.exists():
            shutil.rmtree(root, ignore_errors=True)
            shutil.copytree(SOURCES, root, ignore=shutil.ignore_patterns("node_modules"))
            done([NPM, "ci", "--no-audit", "--no-fund", "--ignore-scripts"], root)
            ready.touch()
    return root
