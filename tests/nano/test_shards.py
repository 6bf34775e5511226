"""Training pages look like what the runtime's views show of a drawn page."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pulse_edge.ecg.drawing import draw_page
from pulse_edge.ecg.layout import PageStyle
from pulse_edge.ecg.recording import LEADS, Recording
from pulse_edge.simulation.pages import make_ecg, no_ecg
from pulse_nano.shards import (
    CANVAS,
    Shard,
    draw_training_page,
    make_page,
    write_shard,
)
from pulse_nano.views import compose, views_of


def test_composed_page_is_close_to_the_real_path() -> None:
    ecg = make_ecg(5, 1)
    mine = compose(draw_training_page(ecg, PageStyle()))
    real = views_of(draw_page(Recording(ecg.signal.astype(np.float32), ecg.hz, LEADS), PageStyle()))
    assert mine.shape == real.shape == (5, 3, 336, 336)
    difference = np.abs(mine - real)
    assert difference.mean() < 0.025  # normalised units, where paper and ink are 3.7 apart
    assert np.percentile(difference, 99) < 0.5


def test_events_lie_on_the_page() -> None:
    page = make_page(1, 2)
    assert len(page.events) > 20
    assert page.events[:, 0].max() < CANVAS
    assert (page.events[:, 1] > page.top).all()


def test_shards_keep_pages(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.shard", 7, 3, 2)
    shard, page = Shard(tmp_path / "a.shard"), make_page(7, 4)
    assert len(shard) == 2
    np.testing.assert_array_equal(shard[1].ink, page.ink)
    np.testing.assert_array_equal(shard[1].events, page.events)
    np.testing.assert_allclose(shard[1].grid["x all canvas"], page.grid["x all canvas"], atol=1e-3)


def test_images_without_ecg() -> None:
    for seed in range(6):
        assert views_of(no_ecg(np.random.default_rng(seed))).shape == (5, 3, 336, 336)
