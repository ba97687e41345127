"""The sign-in and consent pages in the system's Chromium."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chromium import BrowserErrors, OpenPage, browser, browser_errors, mark_as_in_a_browser, open_page, page
from tests.oauth.browser.sites import Site, serving_site

__all__ = ["BrowserErrors", "OpenPage", "browser", "browser_errors", "open_page", "page"]


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving_site(tmp_path_factory.mktemp("browser")) as site:
        yield site


@pytest.fixture
def site(served: Site) -> Site:
    served.app.sent.clear()
    served.app.pages.clear()
    return served


@pytest.fixture
def email(site: Site) -> str:
    return site.new_user().email


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark_as_in_a_browser(items, Path(__file__).parent)
