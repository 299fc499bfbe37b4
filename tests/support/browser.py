"""A real Chromium that looks at a page of this host, and tells everything that went wrong in it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from cluster_lock.testing.servers import ServerMissing

from .aio import PATIENCE

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
NAMES = "chromium", "chromium-browser", "google-chrome"


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Raises ServerMissing if there is none."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        raise ServerMissing("no chromium: run scripts/install-servers browser")
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def opened(
    browser: Browser, url: str, problems: list[str], *, width: int = 1000, height: int = 800, **context: Any
) -> AsyncIterator[Page]:
    """A page of its own. Errors, warnings and requests that failed, or went elsewhere, are put into `problems`."""
    own = await browser.new_context(viewport={"width": width, "height": height}, **context)
    try:
        page = await own.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.on("console", lambda said: problems.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda asked: problems.append(asked.url) if not _is_local(asked.url, url) else None)
        await page.goto(url)
        yield page
    finally:
        await own.close()


def _is_local(asked: str, url: str) -> bool:
    return asked.startswith((url, "data:"))
