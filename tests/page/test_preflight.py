"""Checks of pages that the tests draw themselves."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from pulse_edge.page.check import PageCheck, warnings_of
from pulse_edge.page.preflight import check_page

Rgb = tuple[int, int, int]
RED = ((255, 255, 255), (235, 110, 110), (248, 206, 206), (0, 0, 0))
PAPERS: dict[str, tuple[Rgb, Rgb, Rgb, Rgb]] = {
    "red": RED,
    "faint red": ((255, 255, 255), (250, 190, 190), (254, 228, 228), (0, 0, 0)),
    "grey": ((255, 255, 255), (180, 180, 180), (222, 222, 222), (0, 0, 0)),
    "green": ((250, 255, 248), (120, 190, 130), (208, 234, 212), (10, 20, 40)),
    "orange": ((255, 250, 230), (220, 150, 80), (244, 214, 170), (50, 20, 10)),
    "blue pen": ((250, 250, 255), (150, 170, 225), (216, 224, 246), (0, 0, 100)),
}
LAYOUTS = {"3x4": 3, "3x4+1": 4, "3x4+3": 6, "6x2": 6, "12x1": 12}
MM = 4.7  # px: 119 dpi
CHECKS = {
    "resolution", "grid", "skew", "pitch_x", "pitch_y", "anisotropy",
    "blur", "crop", "contrast", "colour", "orientation", "black_share",
}  # fmt: skip


@cache
def sheet(
    layout: str = "3x4+1",
    paper: str = "red",
    mm: float = MM,
    speed: int = 25,
    gain: int = 10,
    grid: str = "lines",
) -> Image.Image:
    """A clean page: 282 x 208 mm with margins, of beats that are alike."""
    background, major, minor, ink = PAPERS[paper]
    width, height = round(282 * mm), round(208 * mm)
    image = Image.new("RGB", (width, height), background)
    draw = ImageDraw.Draw(image)
    steps = {"lines": (1, 5), "dots": (5,), "five": (5,)}[grid]
    for step in steps:
        colour = major if step == 5 else minor
        for line in range(0, 280, step):
            draw.line([(line * mm, 0), (line * mm, height)], colour)
        for line in range(0, 206, step):
            draw.line([(0, line * mm), (width, line * mm)], colour)
    if grid == "dots":
        points = [(round(x * mm), round(y * mm)) for x in range(280) for y in range(206)]
        draw.point(points, minor)
    rows = LAYOUTS[layout]
    pitch = (208 - 30) / rows
    font = ImageFont.load_default(round(3 * mm))
    for row in range(rows):
        x = np.arange(15, 265, 0.1)
        beat = (x * 25 / speed + 3 * row) % 21 * 0.04
        wave = np.exp(-(((beat - 0.4) / 0.012) ** 2)) + 0.2 * np.exp(-(((beat - 0.62) / 0.05) ** 2))
        y = 25 + (row + 0.6) * pitch - wave * min(gain, 0.8 * pitch)
        points = list(zip((x * mm).tolist(), (y * mm).tolist(), strict=True))
        draw.line(points, ink, max(1, round(0.3 * mm)))
        draw.text((16 * mm, (25 + (row + 0.2) * pitch) * mm), "V1", ink, font)
    draw.text((15 * mm, 8 * mm), "25 mm/s  10 mm/mV  Simulated", ink, font)
    return image


def checked(image: Image.Image) -> dict[str, PageCheck]:
    """The checks of a page by their names."""
    return {check.check: check for check in check_page(image)}


def warned(image: Image.Image) -> set[str]:
    """Names of the checks that warn."""
    return {check.check for check in warnings_of(check_page(image))}


def value(image: Image.Image, name: str) -> float:
    """What a check measured."""
    measured = checked(image)[name].value
    assert measured is not None
    return measured


CLEAN = [
    *((layout, "red", MM, 25, 10, "lines") for layout in LAYOUTS),
    *(("3x4+1", paper, MM, 25, 10, "lines") for paper in PAPERS),
    *(("6x2", "red", MM, speed, gain, "lines") for speed in (25, 50) for gain in (5, 20)),
    ("3x4+1", "red", 7.9, 25, 10, "lines"),
    ("3x4+1", "red", 3.9, 25, 10, "lines"),
    ("3x4+1", "grey", MM, 25, 10, "dots"),
    ("3x4+3", "orange", MM, 25, 10, "five"),
]


@pytest.mark.parametrize("look", CLEAN, ids=str)
def test_a_clean_page_is_measured_and_raises_no_warning(
    look: tuple[str, str, float, int, int, str],
) -> None:
    checks = checked(sheet(*look))
    assert set(checks) == CHECKS
    assert not [check for check in checks.values() if check.status == "warn"]
    for axis in "xy":
        assert checks[f"pitch_{axis}"].value == pytest.approx(look[2], rel=0.01)
    assert checks["skew"].value == pytest.approx(0, abs=0.1)
    assert checks["resolution"].value == pytest.approx(25.4 * look[2], rel=0.01)


def test_checks_say_what_they_cannot_see() -> None:
    assert all(check.cannot_see and check.message and check.unit for check in check_page(sheet()))


@pytest.mark.parametrize("degrees", [-9, -4.2, -2.5, 2.2, 3, 7.7])
@pytest.mark.parametrize("paper", ["red", "grey"])
def test_a_turned_page_warns_with_its_angle(degrees: float, paper: str) -> None:
    image = sheet(paper=paper).rotate(degrees, Image.Resampling.BICUBIC, fillcolor=(255, 255, 255))
    skew = checked(image)["skew"]
    assert skew.value == pytest.approx(degrees, abs=0.5)
    assert skew.status == "warn"


@pytest.mark.parametrize("degrees", [-1.5, -0.4, 0.6, 1.2])
def test_a_slight_turn_is_measured_but_no_warning(degrees: float) -> None:
    image = sheet().rotate(degrees, Image.Resampling.BICUBIC, fillcolor=(255, 255, 255))
    skew = checked(image)["skew"]
    assert skew.value == pytest.approx(degrees, abs=0.5)
    assert skew.status == "ok"


@pytest.mark.parametrize("ratio", [0.8, 0.9, 0.94, 1.06, 1.12, 1.25])
@pytest.mark.parametrize("layout", ["3x4+1", "12x1"])
def test_a_squashed_page_warns_with_both_pitches(ratio: float, layout: str) -> None:
    clean = sheet(layout)
    image = clean.resize((round(clean.width * ratio), clean.height), Image.Resampling.BICUBIC)
    exact = image.width / clean.width
    checks = checked(image)
    assert checks["pitch_x"].value == pytest.approx(MM * exact, rel=0.01)
    assert checks["pitch_y"].value == pytest.approx(MM, rel=0.01)
    assert checks["anisotropy"].value == pytest.approx(100 * (exact - 1), abs=1)
    assert checks["anisotropy"].status == "warn"


def text_page() -> Image.Image:
    """A page of words, blurred and lit as in a photo."""
    rng = np.random.default_rng(1)
    image = Image.new("RGB", (900, 1200), (250, 248, 240))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(18)
    for row in range(45):
        words = ["".join(rng.choice(list("abcdefgh "), 9)) for _ in range(7)]
        draw.text((60, 60 + 24 * row), " ".join(words), (20, 20, 20), font)
    turned = image.rotate(1.3, Image.Resampling.BICUBIC, fillcolor=(120, 110, 100))
    light = np.linspace(0.7, 1, 900)[None, :, None]
    return Image.fromarray((np.asarray(turned) * light).astype(np.uint8))


def noise_page(deviation: float) -> Image.Image:
    """Grey noise."""
    noise = np.random.default_rng(2).normal(200, deviation, (850, 1100))
    return Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).convert("RGB")


NO_GRID = {
    "white": lambda: Image.new("RGB", (1100, 850), "white"),
    "black": lambda: Image.new("RGB", (1100, 850), "black"),
    "noise": lambda: noise_page(60),
    "faint noise": lambda: noise_page(3),
    "text": text_page,
}


@pytest.mark.parametrize("kind", NO_GRID)
def test_a_page_without_a_grid_says_so_and_measures_nothing(kind: str) -> None:
    checks = checked(NO_GRID[kind]())
    assert checks["grid"].status == "warn"
    assert "no grid" in checks["grid"].message.lower()
    for name in ("skew", "pitch_x", "pitch_y", "anisotropy"):
        assert (checks[name].status, checks[name].value) == ("unknown", None)


@pytest.mark.parametrize("radius", [2.5, 3, 4])
def test_a_blurred_page_warns(radius: float) -> None:
    assert "blur" in warned(sheet().filter(ImageFilter.GaussianBlur(radius)))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("layout", ["3x4+1", "6x2"])
def test_a_page_whose_traces_are_cut_warns(side: str, layout: str) -> None:
    image = sheet(layout)
    cut = round(0.3 * image.width)
    box = (cut, 0, image.width, image.height)
    if side == "right":
        box = (0, 0, image.width - cut, image.height)
    crop = checked(image.crop(box))["crop"]
    assert crop.status == "warn"
    assert side in crop.message


@pytest.mark.parametrize("share", [0.8, 0.9])
def test_a_faded_page_warns(share: float) -> None:
    white = Image.new("RGB", sheet().size, "white")
    assert "contrast" in warned(Image.blend(sheet(), white, share))


def test_an_inverted_page_warns() -> None:
    assert "contrast" in warned(ImageOps.invert(sheet()))


@pytest.mark.parametrize("degrees", [90, 270])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_sideways_page_warns(degrees: int, layout: str) -> None:
    assert "orientation" in warned(sheet(layout).rotate(degrees, expand=True))


def test_a_page_upside_down_cannot_be_told() -> None:
    assert warned(sheet().rotate(180)) == set()
    assert "upside down" in checked(sheet())["orientation"].cannot_see.lower()


@pytest.mark.parametrize("dpi", [30, 45, 55])
def test_a_page_of_too_few_pixels_warns(dpi: float) -> None:
    scale = dpi / 25.4 / MM
    size = round(sheet().width * scale), round(sheet().height * scale)
    assert "resolution" in warned(sheet().resize(size, Image.Resampling.LANCZOS))


def test_grey_pages_are_told_from_coloured_ones() -> None:
    assert value(sheet(paper="grey"), "colour") == 0
    assert value(sheet(), "colour") > 10


@pytest.mark.parametrize("size", [(1, 1), (2, 900), (900, 2), (15, 17), (40, 40), (130, 5000)])
def test_pages_of_any_shape_are_checked(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    assert {check.check for check in check_page(Image.fromarray(pixels))} == CHECKS
