"""One authorization server and one set of Node.js packages for all that is tried with them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node import installed
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
    return installed(SOURCES, "interop-node", tmp_path_factory)
