"""Pages of a second drawing program: what they are, and how the embedded model reads them."""

from __future__ import annotations

import numpy as np

from support.foreign_pages import HZ, RHYTHMS, foreign_page


def test_the_same_number_gives_the_same_page() -> None:
    first, again, other = foreign_page(3), foreign_page(3), foreign_page(3, seed=1)
    assert first.image.tobytes() == again.image.tobytes()
    assert (first.rhythm, first.rate) == (again.rhythm, again.rate)
    assert other.image.size != first.image.size


def test_rates_agree_with_rhythms() -> None:
    for number in range(8):
        page = foreign_page(number)
        assert page.rhythm in RHYTHMS
        assert 35 < page.rate < 175
        if page.rhythm == "sinus bradycardia":
            assert page.rate < 60
        if page.rhythm == "sinus tachycardia":
            assert page.rate > 100


def test_traces_stand_out_from_the_paper() -> None:
    for number in range(4):
        gray = np.asarray(foreign_page(number).image.convert("L"), np.float64)
        inner = gray[gray.shape[0] // 4 : -gray.shape[0] // 8]
        assert np.median(inner) - np.percentile(inner, 0.3) > 60
    assert HZ > 250
