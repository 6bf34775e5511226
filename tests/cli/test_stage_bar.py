"""How far a stage is, by a clock of the test's own."""

from __future__ import annotations

import itertools
import re

import pytest

from pulse_edge.cli.stage_bar import BLOCK, MOST, WIDTH, StageBar, duration


def bar_of(line: str) -> str:
    """What stands between the brackets."""
    found = re.search(r"\[(.*)\]", line)
    assert found, line
    assert len(found[1]) == WIDTH
    return found[1]


@pytest.mark.parametrize("expected", [0.5, 4.0, 60.0, 900.0])
def test_a_stage_that_reports_nothing_moves_by_the_time_that_it_usually_takes(
    expected: float,
) -> None:
    bar = StageBar("vision", 5, 100.0, expected)
    assert bar.share(100.0) == 0
    assert bar.share(100 + expected / 4) == pytest.approx(0.25)
    assert bar.seconds_left(100 + expected / 4) == pytest.approx(expected * 3 / 4)
    assert bar.line(100 + expected / 2).startswith("vision     [###############      ")
    assert " 50%" in bar.line(100 + expected / 2)


def test_a_stage_that_takes_longer_than_usual_is_never_complete() -> None:
    bar = StageBar("vision", 5, 0.0, 10.0)
    for now in (10.0, 11.0, 50.0):
        assert bar.share(now) == MOST
        assert bar.seconds_left(now) is None
    assert bar.line(50.0).endswith(" 99%  50 s")


@pytest.mark.parametrize("expected", [None, 1.0, 1000.0])
def test_reports_go_before_what_is_usual(expected: float | None) -> None:
    bar = StageBar("prefill", 1000, 0.0, expected)
    bar.add(0, 0.0)
    bar.add(250, 5.0)
    assert bar.share(5.0) == 0.25
    assert bar.seconds_left(5.0) == 15.0
    bar.add(250, 10.0)
    assert bar.share(10.0) == 0.5
    assert bar.seconds_left(10.0) == 10.0
    assert bar.line(10.0).endswith(" 50%  10 s left")


def test_between_two_reports_it_moves_at_the_pace_so_far() -> None:
    bar = StageBar("prefill", 1000, 0.0)
    bar.add(200, 4.0)
    shares = [bar.share(now) for now in (4.0, 5.0, 6.0, 8.0, 9.0, 100.0)]
    assert shares == [0.2, 0.25, 0.3, 0.4, 0.4, 0.4], "up to the next report, and not beyond"
    assert bar.seconds_left(5.0) == 15.0


def test_a_share_never_falls() -> None:
    """Though the first report comes later than usual."""
    bar = StageBar("vision", 5, 0.0, 10.0)
    assert bar.share(6.0) == pytest.approx(0.6)
    bar.add(1, 6.0)
    assert bar.share(6.0) == pytest.approx(0.6)
    bar.add(3, 8.0)
    assert bar.share(8.0) == 0.8


@pytest.mark.parametrize("total", [1, 5, 2933])
def test_a_stage_of_which_nothing_is_known_moves(total: int) -> None:
    bar = StageBar("loading", total, 0.0)
    bar.add(0, 0.0)
    lines = [bar_of(bar.line(second / 4)) for second in range(80)]
    assert all(len(line.strip()) == BLOCK and set(line) == {" ", "#"} for line in lines)
    assert all(one != other for one, other in itertools.pairwise(lines))
    assert {line.index("#") for line in lines} >= {0, 24}, "from one end to the other"
    assert bar.share(3.0) is None
    assert bar.line(3.0).endswith("]       3 s")
    assert "%" not in bar.line(3.0)


@pytest.mark.parametrize("steps", [(5,), (2, 3), (1, 1, 1, 1, 1), (4, 4)])
def test_the_end_of_a_stage(steps: tuple[int, ...]) -> None:
    bar = StageBar("vision", 5, 0.0, 9.0)
    for number, step in enumerate(steps):
        assert not bar.complete
        bar.add(step, 1.0 + number)
    assert bar.complete
    assert bar.share(7.0) == 1
    assert bar.seconds_left(7.0) is None
    assert bar.line(7.0) == f"vision     [{'#' * WIDTH}] 100%"


def test_a_stage_without_an_amount() -> None:
    bar = StageBar("stage", 0, 0.0)
    assert bar.share(1.0) is None
    bar.add(1, 1.0)
    assert bar.share(1.0) == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "1 s"), (0.4, "1 s"), (1.4, "1 s"), (59.6, "60 s"), (99, "99 s"), (100, "2 min"),
     (150, "2 min"), (3600, "60 min")],
)  # fmt: skip
def test_seconds_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text
