"""Scripts of a page in the system's Chromium, whose origin is none of the gateway's."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from tests.chromium import browser, mark_as_in_a_browser
from tests.cross_origin.sites import Sites, serving_sites

__all__ = ["browser"]


@pytest.fixture(scope="package")
def sites() -> Iterator[Sites]:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(serving_sites(portal)) as served:
        yield served


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark_as_in_a_browser(items, Path(__file__).parent)
