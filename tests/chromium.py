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

OpenPage = Callable[..., Page]
_NUMBERS = count(1)
_MOST_MS = 20_000  # of waiting, where everything else has the processors
# The shell renders no interface of its own, which takes half of the processor time.
CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
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
class BrowserErrors:
    """The errors of a browser: failed requests, policy violations, script errors and dialogs."""

    messages: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def expect(self, part: str) -> None:
        """Expect a message that contains *part*. The test fails if there is none."""
        self.expected.append(part)

    def listen(self, context: BrowserContext) -> None:
        context.on("weberror", lambda error: self.messages.append(f"error: {error.error}"))
        context.on("console", lambda entry: self.messages.append(entry.text) if entry.type == "error" else None)
        context.on("dialog", self._dismiss)

    def _dismiss(self, dialog: Dialog) -> None:
        self.messages.append(f"dialog: {dialog.message}")
        dialog.dismiss()


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        expect.set_options(timeout=_MOST_MS)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def browser_errors() -> Iterator[BrowserErrors]:
    browser_errors = BrowserErrors()
    yield browser_errors
    unexpected = [each for each in browser_errors.messages if not any(part in each for part in browser_errors.expected)]
    assert not unexpected, unexpected
    missed = [part for part in browser_errors.expected if not any(part in each for each in browser_errors.messages)]
    assert not missed, missed


@pytest.fixture
def open_page(browser: Browser, browser_errors: BrowserErrors) -> Iterator[OpenPage]:
    """A function that opens a page in a new browser without a session. It takes Playwright's options."""
    contexts = []

    def new_page(**options: Any) -> Page:  # noqa: ANN401 - Playwright's, of which there are forty
        # Each browser has its own address: wrong passwords from one address are throttled.
        headers = {"X-Forwarded-For": f"2001:db8:{next(_NUMBERS):x}::1"}
        context = browser.new_context(extra_http_headers=headers, **options)
        context.set_default_timeout(_MOST_MS)
        browser_errors.listen(context)
        contexts.append(context)
        return context.new_page()

    yield new_page
    for context in contexts:
        context.close()


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    return open_page()


def mark_as_in_a_browser(items: list[pytest.Item], here: Path) -> None:
    """Run the tests of the folder *here* in one process with one browser, and skip them without Chromium."""
    absent = pytest.mark.skipif(
        CHROMIUM is None, reason="chromium is not on PATH: `apt-get install chromium`, and the pages are tried in it"
    )
    for item in items:
        if str(item.path).startswith(f"{here}{os.sep}"):  # of 11,000 items; `Path.parents` takes 1 s
            item.add_marker(pytest.mark.xdist_group(f"browser {here.parent.name}"))
            item.add_marker(absent)


def findings(page: Page) -> list[str]:
    """Return the violations that axe-core finds, of any impact, and its incomplete checks."""
    page.evaluate(AXE_SCRIPT)
    violations: list[str] = page.evaluate(_AXE)
    return violations


def take_picture(target: Page | Locator, name: str, scheme: str) -> None:
    """Save a picture of *target* for the docs if `PICTURES=1` is set."""
    if os.environ.get("PICTURES") == "1" and scheme == "light":
        PICTURES.mkdir(exist_ok=True)
        target.screenshot(path=PICTURES / f"{name}.png")
