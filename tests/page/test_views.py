"""Grids and views over all sizes. goldens/test_goldens.py compares the pixels with upstream's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pulse_edge.errors import ImageError
from pulse_edge.page import views as images

from goldens import cases
from support.pulse_7b import Aspect, pulse_spec

FLAT, UNPAD = pulse_spec(merge="flat"), pulse_spec(merge="spatial_unpad")
GRIDS, N = FLAT.image.grids, FLAT.vision.grid
SIZES = st.tuples(st.integers(1, 6000), st.integers(1, 6000))


@given(SIZES)
def test_the_grid_has_the_largest_effective_resolution_and_then_wastes_least(
    size: tuple[int, int],
) -> None:
    def merit(grid: tuple[int, int]) -> tuple[int, int]:
        scale = min(grid[0] / size[0], grid[1] / size[1])
        effective = min(int(size[0] * scale) * int(size[1] * scale), size[0] * size[1])
        return effective, effective - grid[0] * grid[1]

    chosen = images.select_grid(size, GRIDS)
    assert chosen in GRIDS
    assert merit(chosen) == max(map(merit, GRIDS))


def test_letterbox_is_black_and_centred() -> None:
    page = np.asarray(images.letterbox(Image.new("RGB", (200, 100), (9, 8, 7)), (672, 672)))
    assert (page[168:504] == (9, 8, 7)).all()
    assert not page[:168].any()
    assert not page[504:].any()


@pytest.mark.parametrize(
    ("aspect", "views"), [("anyres", None), ("pad", 1), ("square", 1), ("stretch", 1)]
)
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (7, 300)])
def test_extreme_pages_have_the_views_that_were_counted(
    size: tuple[int, int], aspect: Aspect, views: int | None
) -> None:
    spec = pulse_spec(aspect)
    page = Image.new("RGB", size, (200, 100, 50))
    if aspect == "square" and 5000 in size:  # the shortest edge becomes 336: 336 x 1,680,000
        with pytest.raises(ImageError, match=r"5000.* too elongated .*564,480,000 .*crop it"):
            images.preprocess(page, spec)
        return
    pixels = images.preprocess(page, spec)
    assert len(pixels) == images.view_count(size, spec) == (views or len(pixels))
    if aspect in ("square", "stretch"):  # nothing but page
        table = images.normalise_table(spec.image)
        for channel, value in enumerate((200, 100, 50)):
            assert (pixels[:, channel] == table[value, channel]).all()


def test_a_thin_line_of_many_pixels_is_no_square() -> None:
    with pytest.raises(ImageError, match="too elongated"):
        images.preprocess(Image.new("RGB", (10_000, 1)), pulse_spec("pad"))


def test_pixel_values_are_the_formulas() -> None:
    """CLIPImageProcessor: rescale in double, rounded to float32, then mean and std in float32."""
    spec = pulse_spec("square")
    page = cases.page(336, 336)  # needs no resizing
    channels = np.asarray(page).astype(np.float64).transpose(2, 0, 1)
    mean, std = (
        np.array(v, np.float32).reshape(3, 1, 1) for v in (spec.image.mean, spec.image.std)
    )
    expected = ((channels * (1 / 255)).astype(np.float32) - mean) / std
    assert np.array_equal(images.preprocess(page, spec), expected[None])


@pytest.mark.parametrize("size", [(2200, 1700), (1000, 1031), (700, 2999)])
def test_a_page_resized_in_threads_is_the_same(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bands of rows, whatever their number: byte for byte what one pass over the page gives."""
    rng = np.random.default_rng(0)
    page = Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), np.uint8))
    views: set[bytes] = set()
    for cores in (1, 2, 3, 8, 64):
        monkeypatch.setattr(images, "usable_cores", lambda cores=cores: cores)
        views.add(images.preprocess(page, FLAT).tobytes())
    assert len(views) == 1


@pytest.mark.parametrize(
    ("size", "grids", "chosen"),
    [
        ((1, 6000), ((672, 672), (336, 672)), (336, 672)),  # nothing is left of it: the least waste
        ((672, 672), ((336, 672), (672, 672), (672, 672)), (672, 672)),
        ((336, 336), ((672, 336), (336, 672)), (672, 336)),  # the first of two equal ones
        ((100, 50), ((1008, 336), (672, 336)), (672, 336)),  # both hold it whole
        ((2000, 700), ((672, 336), (1008, 336)), (1008, 336)),
    ],
)
def test_grids_by_hand(
    size: tuple[int, int], grids: tuple[tuple[int, int], ...], chosen: tuple[int, int]
) -> None:
    assert images.select_grid(size, grids) == chosen


@pytest.mark.parametrize(
    ("size", "pasted"),
    [
        ((200, 100), (0, 168, 672, 504)),
        ((100, 200), (168, 0, 504, 672)),
        ((672, 671), (0, 0, 672, 671)),
        ((300, 200), (0, 111, 672, 560)),  # 448.00000000000006 rows, as upstream has them
        ((301, 200), (0, 112, 672, 559)),  # 446.5 rows are rounded up, and half of the rest down
        ((3, 1000), (334, 0, 337, 672)),
        ((7, 7), (0, 0, 672, 672)),
    ],
)
def test_letterboxes_by_hand(size: tuple[int, int], pasted: tuple[int, int, int, int]) -> None:
    page = images.letterbox(Image.new("RGB", size, (9, 8, 7)), (672, 672))
    assert page.getbbox() == pasted


@pytest.mark.parametrize(
    ("size", "left", "top"), [((336, 336), 0, 0), ((341, 336), 2, 0), ((336, 339), 0, 1)]
)
def test_the_centre_square_is_cut(size: tuple[int, int], left: int, top: int) -> None:
    page = cases.page(*size)
    (view,) = images.cut_views(page, pulse_spec("square").image, 336)
    assert view.tobytes() == page.crop((left, top, left + 336, top + 336)).tobytes()


@pytest.mark.parametrize("size", [(336, 336), (500, 900), (900, 500), (20, 1000), (335, 337)])
def test_a_stretched_page_is_whole(size: tuple[int, int]) -> None:
    """Across and then down, as the other aspects resize."""
    page = cases.page(*size)
    (view,) = images.cut_views(page, pulse_spec("stretch").image, 336)
    bicubic = Image.Resampling.BICUBIC
    assert (
        view.tobytes() == page.resize((336, size[1]), bicubic).resize((336, 336), bicubic).tobytes()
    )


@pytest.mark.parametrize(("size", "left", "top"), [((336, 331), 0, 2), ((333, 336), 1, 0)])
def test_a_page_is_padded_to_a_square_of_the_mean(
    size: tuple[int, int], left: int, top: int
) -> None:
    spec = pulse_spec("pad").image
    (view,) = images.cut_views(cases.page(*size), spec, 336)
    expected = Image.new("RGB", (336, 336), tuple(int(255 * mean) for mean in spec.mean))
    expected.paste(cases.page(*size), (left, top))
    assert view.tobytes() == expected.tobytes()


@pytest.mark.parametrize(("size", "scaled"), [((500, 900), (336, 604)), ((900, 500), (604, 336))])
def test_the_shortest_edge_is_scaled_first(size: tuple[int, int], scaled: tuple[int, int]) -> None:
    page = cases.page(*size)
    (view,) = images.cut_views(page, pulse_spec("square").image, 336)
    across = page.resize((scaled[0], size[1]), Image.Resampling.BICUBIC)
    whole = across.resize(scaled, Image.Resampling.BICUBIC)
    left, top = ((edge - 336) // 2 for edge in scaled)
    assert view.tobytes() == whole.crop((left, top, left + 336, top + 336)).tobytes()


def test_a_view_is_resized_across_first_so_height_counts_there() -> None:
    """336 x 178,572 pixels are over 60 million; one row less is not."""
    with pytest.raises(ImageError, match=r"page of 1 x 178572 pixels .* 60,000,192 pixels of it"):
        images.preprocess(Image.new("RGB", (1, 178_572)), FLAT)
