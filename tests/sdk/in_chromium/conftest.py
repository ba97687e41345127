"""The TypeScript client in the system's Chromium."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from machpay_gateway.core.network.cors import CorsSettings
from tests.chromium import BrowserErrors, OpenPage, browser, browser_errors, mark_as_in_a_browser, open_page, page
from tests.oauth.interop.served import Served, serving_apps

__all__ = ["BrowserErrors", "OpenPage", "browser", "browser_errors", "open_page", "page"]


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An authorization server. It has to be requested before the browser, which keeps this thread's event loop."""
    with serving_apps(tmp_path_factory.mktemp("sdk"), cors=CorsSettings(origins=["*"])) as served:
        yield served


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark_as_in_a_browser(items, Path(__file__).parent)
