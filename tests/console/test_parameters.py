"""Any query gets a page."""

import string
from collections.abc import Mapping

import pytest
from httpx2 import AsyncClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.console.harness import Rig


@pytest.fixture
async def browser(rig: Rig) -> AsyncClient:
    await rig.key()
    return await rig.signed_in()


PATHS = ("/audit", "/audit.csv", "/apps", "/apps/new", "/start", "/sessions", "/redirects", "/apps/x", "/keys")
NAMES = (
    "action",
    "who",
    "object",
    "from",
    "until",
    "before",
    "after",
    "environment",
    "key",
    "app",
    "told",
    "redirect_uris",
)
VALUES = st.one_of(
    st.text(max_size=300),
    st.sampled_from(
        ["key.", "2026-06-01", "0001-01-01", "9999-12-31", "9223372036854775807", "9223372036854775808", "-1"]
    ),
    st.text(string.digits, max_size=40),
    st.sampled_from(["\x00", "²", "٣", "key_1", "app_1", "%", "_"]),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(PATHS), query=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4))
async def test_no_parameter_makes_a_page_fail(browser: AsyncClient, path: str, query: Mapping[str, str]) -> None:
    answer = await browser.get(f"/console{path}", params=query)
    assert answer.status_code in {200, 404}
