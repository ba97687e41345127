"""The Console in the system's Chromium."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chromium import browser, browser_errors, mark_as_in_a_browser, open_page, page
from tests.console.chromium.sites import Site, serving_site

__all__ = ["browser", "browser_errors", "open_page", "page"]


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving_site(tmp_path_factory.mktemp("console")) as site:
        yield site


@pytest.fixture
def site(served: Site) -> Iterator[Site]:
    served.elsewhere.clear()
    served.upstream.clear()
    served.cookies.clear()
    yield served
    served.in_time()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark_as_in_a_browser(items, Path(__file__).parent)
