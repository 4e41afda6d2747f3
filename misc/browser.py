"""A headless browser for the tools that take pictures of pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from misc.page_server import PageServer
from utils.errors import UserError

if TYPE_CHECKING:
    from playwright.sync_api import Page, ViewportSize

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = ("--no-sandbox", "--disable-gpu", "--no-first-run")


def find_browser() -> str:
    """The program that pictures are taken with.

    Raises:
        UserError: there is none, or nothing to drive it with.
    """
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        program = None
    if program is None:
        raise UserError(
            "A picture needs playwright (pip install -r requirements/test-requirements.txt) and "
            f"a browser (one of {', '.join(BROWSERS)})."
        )
    return program


@contextmanager
def browsing(server: PageServer, size: "ViewportSize") -> Iterator["Page"]:
    """Open a server's front page in a browser, both of which end with the block.

    Raises:
        UserError: see `find_browser`.
    """
    program = find_browser()
    from playwright.sync_api import sync_playwright

    with server.running() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=OPTIONS)
        page = browser.new_page(viewport=size)
        page.goto(address)
        yield page
        browser.close()
