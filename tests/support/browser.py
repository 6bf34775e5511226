"""A headless Chromium that tests drive, and what it did on the network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--no-first-run"),
    *("--disable-extensions", "--disable-sync", "--no-proxy-server", "--hide-scrollbars"),
    *("--lang=en", "--force-device-scale-factor=1"),
)
Driver = Any  # of selenium, which not every environment has


def chromium() -> tuple[str, str] | None:
    """Paths of the browser and of its driver; None without them."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


@contextmanager
def browsing(profile: str) -> Iterator[Driver]:
    """A browser of its own, which ends with the block.

    Args:
        profile: an empty folder for what it writes.
    """
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    paths = chromium()
    assert paths is not None
    options = ChromeOptions()
    options.binary_location = paths[0]
    for argument in (*OPTIONS, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = Chrome(options, Service(paths[1]))
    try:
        yield driver
    finally:
        driver.quit()


def requests_of(driver: Driver) -> list[dict[str, Any]]:
    """What pages asked for since the last call: parameters of `Network.requestWillBeSent`."""
    messages = (json.loads(entry["message"])["message"] for entry in driver.get_log("performance"))
    return [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
