"""The evaluation of the page checks, on pages that once were misjudged."""

from __future__ import annotations

import pytest

from benchmarks.page_checks.__main__ import CheckScores, score_page
from pulse_edge.page.check import PageCheck

SEED = 7301
# Page -> what was wrong with it.
PAGES = {
    37: "cut through steep waves",
    85: "cut along steep waves",
    160: "traces with few steep edges were blurred",
    181: "lines of 1 mm that beat with the pixels were squares",
    198: "the pitch of a blurred page was a multiple",
    790: "ink on 0.3 % of the page was faint",
    937: "cut where lines are too steep for their width",
}


@pytest.mark.parametrize("number", PAGES)
def test_a_page_and_its_distortions_are_judged_right(number: int) -> None:
    scores = CheckScores()
    score_page(scores, number, SEED)
    assert scores.failures == []
    assert scores.total["no false warning"] == 1
    assert len(scores.seconds) == 5


def test_what_is_wrong_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    blind = [PageCheck(name, "ok", None, "", "", "") for name in ("pitch_x", "pitch_y", "skew")]
    others = ("anisotropy", "blur", "crop", "contrast", "orientation", "resolution")
    blind += [PageCheck(name, "warn", 1.0, "", "", "") for name in others]
    monkeypatch.setattr("benchmarks.page_checks.__main__.check_page", lambda _: blind)
    scores = CheckScores()
    score_page(scores, 0, SEED)
    assert scores.right["no false warning"] == 0
    assert scores.right["skew is known"] == 0
    assert scores.failures[0].startswith("no false warning: page 0, pillow 3x4+0")
