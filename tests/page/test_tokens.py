"""How many image tokens a page has, and which features they are, over all sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pulse_edge.page import tokens
from pulse_edge.page import views as images

from support.pulse_7b import pulse_spec

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
