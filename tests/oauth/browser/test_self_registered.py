"""The pages of an app that registered itself: what they say first, on small screens, in light and in dark."""

import os
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.chromium import OpenPage, findings, take_picture
from tests.oauth.browser.sites import Site, sign_in

NAME = "MachPay Console"
URI = "https://console.machpay.example.evil.example/callback"
HOST = "https://console.machpay.example.evil.example"
LOOK = os.environ.get("LOOK")


def top(page: Page, text: str) -> float:
    box = page.get_by_text(text, exact=True).bounding_box()
    assert box is not None
    return box["y"]


@pytest.mark.parametrize("width", [480, 320])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_host_is_above_the_name_and_nothing_else_has_the_name(
    site: Site, open_page: OpenPage, scheme: str, width: int
) -> None:
    page = open_page(viewport={"width": width, "height": 720}, color_scheme=scheme)
    email = site.new_user("" if (scheme, width) != ("light", 480) else "grace@example.org").email
    page.goto(site.authorize_url(site.new_registered_client(NAME, URI)))
    for title in ("Sign in", "Allow access"):
        expect(page).to_have_title(f"{title} · MachPay")
        notice = page.get_by_role("note")
        expect(notice).to_contain_text("This app registered itself with MachPay.")
        expect(page.get_by_text(NAME)).to_have_count(1)
        assert top(page, HOST) < top(page, NAME)
        assert findings(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if LOOK:
            page.screenshot(path=Path(LOOK) / f"{title.split()[0]}-{scheme}-{width}.png", full_page=True)
        if title == "Sign in":
            sign_in(page, email)
        elif width == 480:
            take_picture(page.get_by_role("main"), "consent-registered", scheme)
