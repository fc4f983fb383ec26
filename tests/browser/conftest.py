"""A real Chromium, one for a module's tests; what its pages complain of is an error of the test."""

from __future__ import annotations

import shutil
from typing import Any, Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from stage import Stage

ARGS = [
    "--no-sandbox",  # tests run as root in containers
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]
# what a browser says of a connection that is lost on purpose
EXPECTED = ("WebSocket connection to", "net::ERR_")

# how long a page may take over anything: only what never comes costs it, as on any machine
PATIENCE_MS = 30_000

Opener = Callable[..., Page]
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium as Debian has it; no longer than needed, since an event loop runs meanwhile."""
    path = shutil.which("chromium")
    assert path, "scripts/test-packages installs chromium"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=ARGS)
        yield chromium
        chromium.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser profile of the test's own."""
    made = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="dark")
    made.set_default_timeout(PATIENCE_MS)
    yield made
    made.close()


@pytest.fixture
def open_console(context: BrowserContext) -> Iterator[Opener]:
    """Open the console of an address, or another page; at the end none may have complained."""
    complaints: list[str] = []
    foreign: list[str] = []

    def open_it(address: str, path: str = "/console") -> Page:
        def heard(message: Any) -> None:
            if message.type == "error" and not any(words in message.text for words in EXPECTED):
                complaints.append(message.text)

        page = context.new_page()
        page.on("console", heard)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: foreign.append(r.url) if address not in r.url else None)
        page.goto(f"http://{address}{path}")
        page.wait_for_selector("html[data-ready=yes]")
        return page

    yield open_it
    assert complaints == []
    assert foreign == [], "nothing is asked of anybody else"


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """A market, a gateway with its console, and the way between."""
    with Stage(RANGO_CONSOLE="on") as made:
        made.tick()
        made.server.catch_up()
        yield made
