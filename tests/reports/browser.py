"""A real browser for tests of pages: Chromium driven by Playwright, and what is asked of a page in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None
)

IN_PAGE = Path(__file__).with_name("in_page")
NAMELESS = (IN_PAGE / "nameless.js").read_text(encoding="utf-8")
"""What a reader who cannot see the page would miss; an empty list where it is all named."""

LOW_CONTRAST = (IN_PAGE / "low_contrast.js").read_text(encoding="utf-8")
"""Text whose contrast with what lies behind it is below WCAG 2.2 AA (1.4.3)."""


class Opened:
    """A page in the browser, and what went wrong in it.

    Attributes:
        page: Playwright's page.
        faults: Messages on the console, errors, requests beyond the file, dialogues.
    """

    def __init__(self, page: Any, path: Path) -> None:
        self.page, self.faults = page, list[str]()
        own = path.resolve().as_uri()
        page.on("console", lambda message: self.faults.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.faults.append(f"dialogue: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self._asked(request.url, own))
        page.goto(own)
        for frontier in page.query_selector_all(".frontier:not([hidden])"):
            frontier.wait_for_selector(".canvas svg, .chart > p, .nothing")

    def _asked(self, url: str, own: str) -> None:
        if url.partition("#")[0] != own and not url.startswith(("data:", "blob:")):
            self.faults.append(f"request: {url[:100]}")

    def overflow(self) -> int:
        """Returns by how many pixels the page is wider than its window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - innerWidth"))


@contextmanager
def chromium() -> Iterator[Any]:
    """Starts the browser; skips the test where it, or what drives it, is missing."""
    driver = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium on the path")
    with driver.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@contextmanager
def opened(browser: Any, path: Path, width: int = 1280, height: int = 900, **context: Any) -> Iterator[Opened]:
    """Opens a page; when it closes, nothing may have gone wrong in it."""
    own = browser.new_context(viewport={"width": width, "height": height}, **context)
    try:
        found = Opened(own.new_page(), path)
        yield found
        assert not found.faults, found.faults
    finally:
        own.close()
