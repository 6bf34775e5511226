"""Alpha: composited on white, dropped as the authors do, or recorded as absent."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pulse_edge.page.source import read_page
from pulse_edge.page.transparency import WHOLLY_TRANSPARENT, without_alpha

from support.image_files import encoded

INK = np.zeros((20, 30), np.uint8)  # alpha of a trace
INK[9:11] = 255


def inked(mode: str, opaque: int = 255) -> Image.Image:
    """Black ink on a transparent black ground, in any mode that has transparency."""
    alpha = Image.fromarray(np.where(INK == 255, opaque, 0).astype(np.uint8))
    black = Image.new("L", (30, 20))
    if mode == "LA":
        return Image.merge("LA", (black, alpha))
    if mode == "La":
        return Image.merge("LA", (black, alpha)).convert("La")
    rgba = Image.merge("RGBA", (black, black, black, alpha))
    if mode == "PA":
        return Image.merge("PA", (Image.new("P", (30, 20)), alpha))
    return rgba if mode == "RGBA" else rgba.convert(mode)


def keyed(mode: str) -> Image.Image:
    """The same by a transparent colour: its ground is that colour, its ink black."""
    ground = Image.fromarray(np.where(INK == 255, 0, 1).astype(np.uint8))
    if mode == "P":
        image = ground.convert("P")
        image.putpalette([0, 0, 0] * 256)
        image.info["transparency"] = 1
    elif mode == "1":
        image = ground.point(lambda value: value * 255).convert("1")
        image.info["transparency"] = 255
    else:
        image = ground.convert(mode)
        image.info["transparency"] = 1 if mode == "L" else (1, 1, 1)
    return image


def sources() -> list[Any]:
    made: list[Any] = []
    for mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        made.append(pytest.param(inked(mode), id=f"PIL {mode}"))
    for mode in ("P", "1", "L", "RGB"):
        made.append(pytest.param(keyed(mode), id=f"PIL {mode} with a transparent colour"))
        file = encoded(keyed(mode), "PNG", transparency=keyed(mode).info["transparency"])
        made.append(pytest.param(file, id=f"PNG {mode} with a transparent colour"))
    made.append(pytest.param(np.asarray(inked("RGBA")), id="numpy"))
    for form, mode in (("PNG", "RGBA"), ("PNG", "LA"), ("TIFF", "RGBA"), ("TIFF", "LA")):
        made.append(pytest.param(encoded(inked(mode), form), id=f"{form} {mode}"))
    made.append(pytest.param(encoded(inked("RGBA"), "WEBP", lossless=True), id="WEBP"))
    made.append(pytest.param(encoded(inked("RGBA"), "WEBP", lossless=True, exact=True), id="exact"))
    deep = np.asarray(keyed("L")).astype(np.uint16)
    file = encoded(Image.fromarray(deep), "PNG", transparency=1)
    made.append(pytest.param(file, id="PNG of 16-bit grey"))
    return made


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("source", sources())
def test_black_ink_on_a_transparent_ground_is_black_on_white(source: Any) -> None:
    page = read_page(source)
    assert page.alpha == "white"
    expected = np.repeat((255 - INK)[..., None], 3, axis=2)
    assert np.array_equal(np.asarray(page.image), expected)
    dropped = read_page(source, alpha="drop")
    assert dropped.alpha == "dropped"
    assert np.asarray(dropped.image)[9:11].max() == 0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("alpha", [1, 64, 127, 128, 254])
def test_half_transparent_ink_is_mixed_with_white(mode: str, alpha: int) -> None:
    page = np.asarray(read_page(inked(mode, alpha)).image)
    assert abs(int(page[9, 0, 0]) - (255 - alpha)) <= 1
    assert (page[0] == 255).all()


def test_dropping_is_the_authors_conversion() -> None:
    rng = np.random.default_rng(3)
    rgba = Image.fromarray(rng.integers(0, 256, (20, 30, 4), np.uint8))
    for source in (rgba, encoded(rgba, "PNG"), np.asarray(rgba)):
        page = read_page(source, alpha="drop")
        assert page.image.tobytes() == rgba.convert("RGB").tobytes()


@pytest.mark.parametrize("alpha", ["white", "drop"])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "L", "RGB"])
def test_an_opaque_page_is_equal_either_way(mode: str, alpha: Any) -> None:
    grey = Image.fromarray(np.arange(600, dtype=np.uint16).astype(np.uint8).reshape(20, 30))
    image = grey.convert("RGB").convert("P") if mode in ("P", "PA") else grey.convert(mode)
    image = image.convert(mode)
    page = read_page(image, alpha=alpha)
    assert page.alpha == "none"
    assert page.image.tobytes() == image.convert("RGB").tobytes()


@pytest.mark.filterwarnings("error")
def test_opaque_alphas_of_a_palette_are_no_transparency() -> None:
    image = keyed("P")
    image.putpalette([9, 9, 9] * 256)
    file = encoded(image, "PNG", transparency=bytes([255, 255, 0]))
    page = read_page(file)
    assert (page.alpha, np.asarray(page.image).max()) == ("none", 9)


def test_a_wholly_transparent_page_is_blank_and_says_so() -> None:
    page = read_page(np.full((4, 4, 4), (10, 20, 30, 0), np.uint8))
    assert (np.asarray(page.image) == 255).all()
    assert page.notes == (WHOLLY_TRANSPARENT,)


def test_the_callers_image_keeps_its_transparency() -> None:
    image = Image.open(io.BytesIO(encoded(keyed("P"), "PNG", transparency=1)))
    before = dict(image.info)
    for _ in range(2):
        assert read_page(image).alpha == "white"
    assert image.info == before


def test_a_page_without_transparency_is_not_copied() -> None:
    page = Image.new("RGB", (4, 4))
    assert without_alpha(page) == (page, "none", ())
    assert without_alpha(page)[0] is page


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_greys_of_any_alpha_are_mixed_with_white(mode: str) -> None:
    grey, alpha = np.meshgrid(np.arange(0, 256, 3), np.arange(0, 256, 3))
    parts = [Image.fromarray(part.astype(np.uint8)) for part in (grey, alpha)]
    image = Image.merge("LA", parts)
    page = np.asarray(without_alpha(image.convert(mode))[0])
    expected = (grey * alpha + 255 * (255 - alpha)) / 255
    assert np.abs(page - expected[..., None]).max() <= 0.51
