"""Drive a real browser without a screen."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

FLAGS = (
    "--headless",
    "--no-sandbox",  # these tests may run as root
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-proxy-server",
    # Without these it looks for hosts of its maker.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1000,700",
)
SCREENSHOTS = "UCLOUD_SCREENSHOTS"
"""The environment variable with the folder for screenshots."""

Value = TypeVar("Value")


def need(*programs: str) -> None:
    """Skip the test if a program is missing; in CI, fail."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        text = f"This test needs {' and '.join(missing)} on the PATH."
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(text)


class Chromium:
    """A browser, driven in a thread: the event loop serves the test's servers."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    async def do(self, action: Callable[..., Value], *arguments: object) -> Value:
        """Run a call of the driver in a thread."""
        return await asyncio.to_thread(action, *arguments)

    async def go(self, address: str) -> None:
        """Open a page."""
        await self.do(self.driver.get, address)

    async def text(self, selector: str = "body") -> str:
        """Return an element's text; empty where the element is missing."""
        script = (
            "const found = document.querySelector(arguments[0]); return found ? "
            "found.innerText : ''"
        )
        return str(await self.do(self.driver.execute_script, script, selector))

    async def type(self, text: str, selector: str) -> None:
        """Type into an element."""
        element = await self.do(self.driver.find_element, By.CSS_SELECTOR, selector)
        await self.do(element.send_keys, text)

    async def picture(self, name: str) -> None:
        """Save a screenshot of the window, if screenshots are asked for."""
        if folder := os.environ.get(SCREENSHOTS):
            await self.do(os.makedirs, folder, 0o777, True)
            await self.do(self.driver.save_screenshot, str(Path(folder) / f"{name}.png"))


@asynccontextmanager
async def chromium(profile: Path) -> AsyncIterator[Chromium]:
    """Start a browser with an empty profile in the folder."""
    need("chromium", "chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    service = webdriver.ChromeService(executable_path=str(shutil.which("chromedriver")))
    driver = await asyncio.to_thread(webdriver.Chrome, options, service)
    try:
        yield Chromium(driver)
    finally:
        await asyncio.to_thread(driver.quit)
