"""The report in a real browser: on a desk, in the dark, on a phone, and nothing fetched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.browser import Driver, browsing, chromium, requests_of
from support.scripts import run_script

pytest.importorskip("matplotlib")
pytest.importorskip("selenium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason="no Chromium and chromedriver here"),
]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """A browser that shows the report of the clone's own records."""
    folder = tmp_path_factory.mktemp("report")
    done = run_script("report", folder / "report.html")
    assert done.returncode == 0, done.stderr
    with browsing(str(tmp_path_factory.mktemp("profile"))) as browser:
        browser.get((folder / "report.html").as_uri())
        yield browser


def show(driver: Driver, width: int, scheme: str = "light", media: str = "") -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": [feature]})
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


@pytest.mark.parametrize("width", [320, 360, 390, 768, 1200, 1920])
def test_no_screen_scrolls_sideways(driver: Driver, width: int) -> None:
    show(driver, width)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [360, 390, 1200])
def test_text_of_charts_can_be_read(driver: Driver, width: int) -> None:
    """10 pixels or more, and inside of its chart."""
    show(driver, width)
    script = """return [...document.querySelectorAll('svg')].map(svg => {
        const box = svg.getBoundingClientRect();
        const texts = [...svg.querySelectorAll('text')].map(t => t.getBoundingClientRect());
        return [Math.min(...texts.map(t => t.height)),
                Math.max(...texts.map(t => t.right - box.right)),
                Math.max(...texts.map(t => box.left - t.left))]; })"""
    charts = driver.execute_script(script)
    assert len(charts) > 20
    assert min(height for height, _, _ in charts) >= 10
    assert max(out for _, *sides in charts for out in sides) < 2


def luminance(colour: str) -> float:
    """Of a colour like "rgb(13, 17, 23)", from 0 to 255."""
    red, green, blue = (float(part) for part in colour.strip("rgba()").split(",")[:3])
    return 0.299 * red + 0.587 * green + 0.114 * blue


@pytest.mark.parametrize(
    ("scheme", "media", "dark"),
    [("light", "", False), ("dark", "", True), ("dark", "print", False)],
)
def test_the_page_follows_light_dark_and_print(
    driver: Driver, scheme: str, media: str, dark: bool
) -> None:
    show(driver, 1200, scheme, media)
    paper, ink, text = driver.execute_script(
        "const style = getComputedStyle(document.body);"
        "const text = getComputedStyle(document.querySelector('svg text'));"
        "return [style.backgroundColor, style.color, text.fill]"
    )
    assert (luminance(paper) < 60) is dark
    assert abs(luminance(paper) - luminance(ink)) > 150
    assert abs(luminance(paper) - luminance(text)) > 150


def test_it_asks_for_nothing(driver: Driver) -> None:
    requests_of(driver)  # those of its start
    driver.refresh()
    asked = [request["request"]["url"] for request in requests_of(driver)]
    assert asked == [driver.current_url]
    assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_headlines_are_on_the_first_screen(driver: Driver) -> None:
    show(driver, 1200)
    first = driver.execute_script(
        "return document.querySelector('.card b').getBoundingClientRect().bottom"
    )
    assert first < 400
    assert Path(driver.current_url.removeprefix("file://")).exists()
