"""Photographs of training pages: places of beats move with the picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pulse_nano.photos import Photo, move_events, sample_photo, take
from pulse_nano.shards import SIDE, make_page
from pulse_nano.views import compose

SIZE = (672, 520)


def some_photo(seed: int) -> Photo:
    photo = sample_photo(np.random.default_rng(seed), 1.0)
    assert photo is not None
    return photo


def test_the_share_is_kept() -> None:
    rng = np.random.default_rng(0)
    assert all(sample_photo(rng, 0.0) is None for _ in range(20))
    taken = [sample_photo(rng, 0.4) is not None for _ in range(500)]
    assert 0.33 < np.mean(taken) < 0.47


@pytest.mark.parametrize("seed", range(20))
def test_events_follow_the_picture(seed: int) -> None:
    """A dot on white paper is found where `move_events` puts it."""
    photo = replace(
        some_photo(seed), noise=0.0, quality=None, moire=(0.0, 1.0, 1.0), gain=1.0, gamma=1.0,
        shadow=np.ones((2, 2), np.float32), around=(255, 255, 255), tint=(1.0, 1.0, 1.0),
    )  # fmt: skip
    width, height = SIZE
    page = np.full((height, width, 3), 255, np.uint8)
    x, y = 300, 210
    page[y - 3 : y + 4, x - 3 : x + 4] = 0
    picture = take(Image.fromarray(page), photo, np.random.default_rng(1))
    dark = 255 - np.asarray(picture, np.float64)[..., 0]
    rows, columns = np.mgrid[:height, :width]
    found = ((dark * columns).sum() / dark.sum(), (dark * rows).sum() / dark.sum())
    events = np.zeros((1, 7), np.float32)
    events[0, :2] = x, y + 76
    moved = move_events(events, photo, width, height, 76)[0, :2]
    assert np.hypot(moved[0] - found[0], moved[1] - 76 - found[1]) < 1.5


def test_a_picture_has_the_size_of_the_page() -> None:
    page = Image.new("RGB", SIZE, "white")
    for seed in range(8):
        picture = take(page, some_photo(seed), np.random.default_rng(seed))
        assert picture.size == SIZE
        assert picture.mode == "RGB"


def test_the_same_generator_gives_the_same_picture() -> None:
    page = Image.effect_noise(SIZE, 80).convert("RGB")
    pictures = [take(page, some_photo(5), np.random.default_rng(2)).tobytes() for _ in range(2)]
    assert pictures[0] == pictures[1]


def test_a_photographed_page_has_the_views_of_any_page() -> None:
    page = make_page(3, 1)
    rng = np.random.default_rng(4)
    plain, photographed = compose(page), compose(page, rng=rng, photo=some_photo(9))
    assert plain.shape == photographed.shape == (5, 3, SIDE, SIDE)
    assert np.abs(plain - photographed).mean() > 0.02
