"""What a script of another origin can call and read."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from machpay_gateway.core.keys.key import mint_secret
from tests.cross_origin.sites import Sites

_FETCH = """async ([url, options]) => {
    try {
        const response = await fetch(url, options);
        const headers = Object.fromEntries(response.headers);
        return {status: response.status, headers, text: await response.text()};
    } catch (error) {
        return {error: String(error)};
    }
}"""
_CONNECT = """([url, protocols]) => new Promise(resolve => {
    const socket = new WebSocket(url, protocols);
    socket.onmessage = event => { resolve({protocol: socket.protocol, data: event.data}); socket.close(); };
    socket.onerror = () => resolve({error: true});
})"""
_BOTH = pytest.mark.parametrize("site", ["middleware", "proxy"])


@pytest.fixture(scope="module")
def page(browser: Browser, sites: Sites) -> Iterator[Page]:
    context = browser.new_context()
    opened = context.new_page()
    opened.goto(sites.page)
    yield opened
    context.close()


def fetch(page: Page, url: str, **headers: str) -> dict[str, Any]:
    """Return what a script reads of the response."""
    answer: dict[str, Any] = page.evaluate(_FETCH, [url, {"headers": headers}])
    return answer


def bearer(secret: str) -> dict[str, str]:
    """Return the headers of a caller."""
    return {"Authorization": f"Bearer {secret}"}


@pytest.mark.parametrize(
    "site, path", [("middleware", "/x/y"), ("proxy", "/x/y"), ("middleware", "/v1/whoami")]
)  # the last one is the key API's
def test_responses_and_refusals_can_be_read(page: Page, sites: Sites, site: str, path: str) -> None:
    url = sites.urls[site] + path
    answer = fetch(page, url, **bearer(sites.key(site)))
    assert answer["status"] == 200
    assert answer["headers"].keys() >= {"ratelimit", "ratelimit-policy", "x-request-id"}
    answer = fetch(page, url, **{"X-API-Key": sites.key(site)})
    assert answer["status"] == 200
    for headers in ({}, bearer(mint_secret("live", bytes(32)))):
        answer = fetch(page, url, **headers)
        assert (answer["status"], '"code"' in answer["text"]) == (401, True)
        assert answer["headers"]["www-authenticate"].startswith("Bearer")
    small = sites.key(site, tier="small")
    assert fetch(page, url, **bearer(small))["status"] == 200
    answer = fetch(page, url, **bearer(small))
    assert (answer["status"], int(answer["headers"]["retry-after"]) > 0) == (429, True)
    assert "rate_limited" in answer["text"]
    assert "ratelimit" in answer["headers"]


@pytest.mark.parametrize("site, path", [("middleware", "/x/y"), ("proxy", "/x/y"), ("middleware", "/v1/keys")])
def test_a_missing_scope_can_be_read(page: Page, sites: Sites, site: str, path: str) -> None:
    answer = fetch(page, sites.urls[site] + path, **bearer(sites.key(site, scopes=["account:read"])))
    assert (answer["status"], "required_scopes" in answer["text"]) == (403, True)
    assert "insufficient_scope" in answer["headers"]["www-authenticate"]


@_BOTH
def test_a_page_of_another_origin_reads_nothing(browser: Browser, sites: Sites, site: str) -> None:
    context = browser.new_context()
    other = context.new_page()
    other.goto(sites.other_page)
    answer = fetch(other, f"{sites.urls[site]}/x/y", **bearer(sites.key(site)))
    context.close()
    assert answer == {"error": "TypeError: Failed to fetch"}


@_BOTH
def test_a_websocket_has_its_key_in_a_subprotocol(page: Page, sites: Sites, site: str) -> None:
    url = sites.urls[site].replace("http", "ws") + "/live"
    offered = f"machpay.bearer.{sites.key(site)}"
    for protocols in (["chat.v2", "chat.v1", offered], [offered, "chat.v2", "chat.v1"]):
        answer = page.evaluate(_CONNECT, [url, protocols])
        assert answer == {"protocol": "chat.v2", "data": "chat.v2,chat.v1"}
    for refused in (["chat.v2"], ["chat.v2", f"machpay.bearer.{mint_secret('live', bytes(32))}"], [offered]):
        assert page.evaluate(_CONNECT, [url, refused]) == {"error": True}
