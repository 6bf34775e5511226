"""Sheets of other programs: what is drawn lies where the events say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pulse_nano.shards import CANVAS, Shard, varied_page, write_shard
from pulse_nano.sheets import WIDTH, sample_sheet, sheet_profiles
from pulse_nano.views import compose


@pytest.mark.parametrize("seed", range(20))
def test_leads_and_strips_lie_on_the_sheet(seed: int) -> None:
    sheet = sample_sheet(np.random.default_rng(seed))
    names = [cell.lead for cell in sheet.cells]
    assert len(set(names[:12])) == 12
    assert 0.5 * WIDTH <= sheet.height <= WIDTH
    for cell in sheet.cells:
        right = cell.x + (cell.stop - cell.start) * sheet.second
        assert 0 <= cell.x < right <= WIDTH + 1
        assert 0 < cell.y < sheet.height
        assert 0 <= cell.start < cell.stop <= 10.001


def test_grid_lines_have_their_period() -> None:
    for seed in range(10):
        sheet = sample_sheet(np.random.default_rng(seed))
        free = sheet_profiles(sheet, 336)["x major canvas"]
        covered = 1 - free
        assert covered.sum() == pytest.approx(
            sheet.lines[1] * WIDTH / (5 * sheet.mm[0]), rel=0.15, abs=1
        )
        peaks = np.flatnonzero((covered > 0.2) & (covered >= np.roll(covered, 1)))
        apart = np.diff(peaks)
        assert np.median(apart[apart > 2]) == pytest.approx(5 * sheet.mm[0], abs=1)


def test_beats_lie_on_ink() -> None:
    """In the strip or row of each beat there is ink within a few pixels."""
    for index in range(6):
        page = varied_page(11, index)
        assert page.ink.shape[1] == page.base.shape[0] * 2 == CANVAS
        beats = page.events[page.events[:, 2] == 0]
        for x, y, *_ in beats[(beats[:, 0] > 4) & (beats[:, 0] < CANVAS - 4)]:
            row = int(y) - page.top
            column = page.ink[max(0, row - 60) : row + 60, int(x) - 3 : int(x) + 4]
            assert column.max() > 60


def test_a_shard_of_both_kinds_keeps_its_pages(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.shard", 5, 0, 3, varied=1.0)
    shard, page = Shard(tmp_path / "a.shard"), varied_page(5, 2)
    assert shard[2].plot == page.plot
    np.testing.assert_array_equal(shard[2].ink, page.ink)
    np.testing.assert_array_equal(shard[2].events, page.events)


def test_the_grid_ends_where_the_plot_does() -> None:
    framed = next(
        page
        for page in (varied_page(2, index) for index in range(30))
        if page.plot is not None and page.plot[1] > 12
    )
    views = compose(framed)
    assert framed.plot is not None
    first = 1 + 2 * (framed.top // 336)
    row = views[first][:, framed.top % 336 + 2, :]
    inked = framed.ink[2, :336] > 0
    assert np.ptp(row[:, ~inked], axis=1).max() < 1e-5  # plain paper above the grid
