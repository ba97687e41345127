"""One authorization server for all that is tried with it."""

from collections.abc import Iterator

import pytest

from tests.oauth.interop.served import Browser, Served, serving_apps


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
