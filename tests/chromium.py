"""Pages in the system's Chromium: fixtures for packages of tests, which import them.

Playwright's synchronous half drives it: the servers have threads of their own, so that a test has nothing to await, and
reads as what a person does. It keeps this thread's event loop for as long as the browser is there.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, BrowserContext, Dialog, Locator, Page, expect, sync_playwright

Opened = Callable[..., Page]
_NUMBERS = count(1)
_MOST_MS = 20_000  # of waiting, where everything else has the processors
CHROMIUM = shutil.which("chromium")
_OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PICTURES = Path(__file__).parents[1] / "docs" / "images"
_AXE = """async () => {
    const rules = {"target-size": {enabled: true}};
    const found = await axe.run({rules, resultTypes: ["violations", "incomplete"]});
    return [...found.violations, ...found.incomplete].map(each => `${each.impact}: ${each.id}: ${each.nodes[0].html}`);
}"""


@dataclass
class Heard:
    """What a browser complains of: failed requests, what a policy stopped, errors and dialogs of scripts that ran."""

    complaints: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def expect(self, part: str) -> None:
        """Take complaints with this *part* for right; that there is none is wrong then."""
        self.expected.append(part)

    def listen(self, context: BrowserContext) -> None:
        context.on("weberror", lambda error: self.complaints.append(f"error: {error.error}"))
        context.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        context.on("dialog", self._dismiss)

    def _dismiss(self, dialog: Dialog) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        expect.set_options(timeout=_MOST_MS)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def heard() -> Iterator[Heard]:
    heard = Heard()
    yield heard
    unexpected = [each for each in heard.complaints if not any(part in each for part in heard.expected)]
    assert not unexpected, unexpected
    missed = [part for part in heard.expected if not any(part in each for each in heard.complaints)]
    assert not missed, missed


@pytest.fixture
def opened(browser: Browser, heard: Heard) -> Iterator[Opened]:
    """A way to a page of a new browser that nobody is signed in by, with Playwright's options."""
    contexts = []

    def open_page(**options: Any) -> Page:  # noqa: ANN401 - Playwright's, of which there are forty
        # An address of its own: one from which wrong passwords come is slowed, and each test has its own.
        place = {"X-Forwarded-For": f"2001:db8:{next(_NUMBERS):x}::1"}
        context = browser.new_context(extra_http_headers=place, **options)
        context.set_default_timeout(_MOST_MS)
        heard.listen(context)
        contexts.append(context)
        return context.new_page()

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def page(opened: Opened) -> Page:
    return opened()


def mark_as_in_a_browser(items: list[pytest.Item], here: Path) -> None:
    """Have the tests in the folder *here* share one browser, and skip them where there is none."""
    absent = pytest.mark.skipif(
        CHROMIUM is None, reason="chromium is not on PATH: `apt-get install chromium`, and the pages are tried in it"
    )
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("browser"))  # one browser is enough for two processors
            item.add_marker(absent)


def findings(page: Page) -> list[str]:
    """Return what axe-core finds, of any impact, and what it cannot tell."""
    page.evaluate(AXE_SCRIPT)
    found: list[str] = page.evaluate(_AXE)
    return found


def pictured(shown: Page | Locator, name: str, scheme: str) -> None:
    """Take the docs' picture of what is *shown*, when `PICTURES=1` asks for them."""
    if os.environ.get("PICTURES") == "1" and scheme == "light":
        PICTURES.mkdir(exist_ok=True)
        shown.screenshot(path=PICTURES / f"{name}.png")
