"""Sizes -> grids, views and image tokens, over all sizes. That pixels are upstream's is
test_goldens.py's business.
"""

from __future__ import annotations

import numpy as np
import pytest
from goldens import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_goldens import pulse_spec

from pulse_edge.errors import ImageError
from pulse_edge.page import tokens
from pulse_edge.page import views as images

FLAT, UNPAD = pulse_spec(merge="flat"), pulse_spec(merge="spatial_unpad")
GRIDS, N = FLAT.image.grids, FLAT.vision.grid
SIZES = st.tuples(st.integers(1, 6000), st.integers(1, 6000))


@pytest.mark.parametrize(
    ("sizes", "views", "flat", "unpad"),
    [
        ([(2200, 1700), (1650, 1275)], 5, 2880, 2438),
        ([(1241, 704)], 5, 2880, 1948),
        ([(1024, 768)], 5, 2880, 2340),
        ([(3000, 1000)], 4, 2304, 2328),
        ([(2500, 1250)], 3, 1728, 1752),
        ([(700, 1400)], 3, 1728, 1776),
        ([(336, 336)], 3, 1728, 1176),
    ],
)
def test_counts_of_pulses_pages(
    sizes: list[tuple[int, int]], views: int, flat: int, unpad: int
) -> None:
    for size in sizes:
        assert images.view_count(size, FLAT) == views
        assert (tokens.token_count(size, FLAT), tokens.token_count(size, UNPAD)) == (flat, unpad)


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


@settings(max_examples=60)
@given(SIZES)
def test_merged_tokens_are_as_many_as_counted_and_in_order(size: tuple[int, int]) -> None:
    """Every feature is its own number, so the order shows: the base view, then the kept part of the
    page, by rows.
    """
    views = images.view_count(size, FLAT)
    features = np.arange(views * N * N, dtype=np.float32).reshape(views, N * N, 1)
    flat = tokens.merge(features, size, FLAT, None)
    assert flat.ravel().tolist() == list(range(tokens.token_count(size, FLAT)))

    merged = tokens.merge(features, size, UNPAD, np.full(1, -1, np.float32)).ravel()
    assert len(merged) == tokens.token_count(size, UNPAD)
    base, page = merged[: N * N], merged[N * N :]
    assert base.tolist() == list(range(N * N))
    grid = images.select_grid(size, GRIDS)
    across, down = grid[0] // 336, grid[1] // 336
    rows, cols = tokens.unpad_box(size, N * down, N * across)
    height, width = rows.stop - rows.start, cols.stop - cols.start
    page = page.reshape(height, width + 1)
    assert (page[:, -1] == -1).all()
    for y, x in np.ndindex(height, width):
        row, col = y + rows.start, x + cols.start
        view = 1 + row // N * across + col // N
        assert page[y, x] == view * N * N + row % N * N + col % N
    assert (page[:, :-1] >= N * N).all()


@given(SIZES)
def test_unpadding_stays_inside_the_map_and_cuts_one_axis_evenly(size: tuple[int, int]) -> None:
    grid = images.select_grid(size, GRIDS)
    rows, cols = N * grid[1] // 336, N * grid[0] // 336
    box = tokens.unpad_box(size, rows, cols)
    for part, edge in zip(box, (rows, cols), strict=True):
        assert 0 <= part.start <= part.stop <= edge
        assert part.start == edge - part.stop
    assert box[0] == slice(0, rows) or box[1] == slice(0, cols)


@settings(max_examples=40, deadline=None)
@given(st.tuples(st.integers(1, 900), st.integers(1, 900)))
def test_unpadding_finds_what_the_letterbox_pasted(size: tuple[int, int]) -> None:
    """The box of kept features is the pasted page, to within the patch that straddles its edge."""
    grid = images.select_grid(size, GRIDS)
    pasted = images.letterbox(Image.new("RGB", size, (255, 255, 255)), grid)
    assert pasted.size == grid
    left, top, right, bottom = pasted.getbbox() or (0, 0, 0, 0)
    rows, cols = tokens.unpad_box(size, N * grid[1] // 336, N * grid[0] // 336)
    patch = 336 // N
    for kept, edge in (
        (cols.start, left),
        (cols.stop, right),
        (rows.start, top),
        (rows.stop, bottom),
    ):
        assert abs(kept * patch - edge) <= patch


def test_letterbox_is_black_and_centred() -> None:
    page = np.asarray(images.letterbox(Image.new("RGB", (200, 100), (9, 8, 7)), (672, 672)))
    assert (page[168:504] == (9, 8, 7)).all()
    assert not page[:168].any()
    assert not page[504:].any()


@pytest.mark.parametrize(("aspect", "views"), [("anyres", None), ("pad", 1), ("square", 1)])
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (7, 300)])
def test_extreme_pages_have_the_views_that_were_counted(
    size: tuple[int, int], aspect: str, views: int | None
) -> None:
    spec = pulse_spec(aspect)
    page = Image.new("RGB", size, (200, 100, 50))
    if aspect == "square" and 5000 in size:  # the shortest edge becomes 336: 336 x 1,680,000
        with pytest.raises(ImageError, match=r"5000.* too elongated .*564,480,000 .*crop it"):
            images.preprocess(page, spec)
        return
    pixels = images.preprocess(page, spec)
    assert len(pixels) == images.view_count(size, spec) == (views or len(pixels))
    if aspect == "square":  # nothing but page
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
    target = (336, 300)
    found = []
    for cores in (1, 2, 3, 8, 64):
        monkeypatch.setattr(images, "usable_cores", lambda cores=cores: cores)
        found.append(images._resize(page, target).tobytes())
    assert len(set(found)) == 1
