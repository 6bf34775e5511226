"""Speeds that are measured, remembered and used for predictions."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from pulse_edge import rates, state
from pulse_edge.answer import Answer, Timings, Usage
from pulse_edge.rates import Line, Rates, Work

FACTS = {"bundle": "0" * 64, "engine": {"engine": "fake", "threads": 2}}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(state.VARIABLE, str(tmp_path / "state"))
    monkeypatch.setattr(rates, "SAVE_SECONDS", 0.0)
    state.forget()
    return tmp_path / "state"


def line(*points: tuple[float, float]) -> Line:
    made = Line()
    for n, seconds in points:
        made = made.with_one(n, seconds)
    return made


def answer(
    vision: float, prefill: float, decode: float, tokens: int, reason: Any = "eos"
) -> Answer:
    timings = Timings(0, 0, vision, prefill, (), 0, 0, vision + prefill, None, 0)
    timings = dataclasses.replace(timings, total=vision + prefill + decode)
    return Answer("", (), reason, Usage(0, 0, 0, tokens, 0, 0), timings, {})


def test_nothing_is_known_without_a_measurement() -> None:
    assert Line().at(3) is None
    assert Line().at(0) == 0
    assert Rates(FACTS).seconds(Work(0, 10)) is None
    assert Rates(FACTS).seconds(Work(0, 0)) == 0


def test_a_line_goes_through_its_points() -> None:
    found = line((10, 1.5), (110, 6.5))
    assert found.at(10) == pytest.approx(1.5)
    assert found.at(60) == pytest.approx(4.0)
    assert found.at(0) == 0


@pytest.mark.parametrize("points", [((10, 2.0),), ((10, 2.0), (10, 2.0), (10.001, 2.0002))])
def test_one_size_is_scaled(points: tuple[tuple[float, float], ...]) -> None:
    assert line(*points).at(30) == pytest.approx(6.0, rel=1e-3)


def test_more_work_never_takes_less() -> None:
    falling = line((10, 5.0), (100, 1.0))
    assert falling.at(10) == falling.at(1000)
    below = line((10, 0.1), (100, 10.0))  # the line through both is negative at 1
    assert 0 < (below.at(1) or 0) < (below.at(10) or 0)


def test_older_measurements_fade() -> None:
    found = line(*[(10, 1.0)] * 50, *[(10, 3.0)] * 200)
    assert found.at(10) == pytest.approx(3.0, rel=1e-3)


def test_a_request_is_the_sum_of_its_stages() -> None:
    known = Rates(FACTS)
    known.add(Work(5, 3000, "rate?", 100), answer(10.0, 60.0, 8.0, 20))
    assert known.seconds(Work(5, 3000, "rate?", 100)) == pytest.approx(78.0)
    assert known.seconds(Work(0, 30, "rate?", 100)) == pytest.approx(0.6 + 8.0)
    assert known.seconds(Work(0, 30, "rate?", 5)) == pytest.approx(0.6 + 2.0)  # cut at 5 tokens
    assert known.seconds(Work(0, 30, "another?", 100)) == pytest.approx(0.6 + 8.0)
    assert known.seconds(Work(5, 3000)) == pytest.approx(70.0)


def test_each_question_has_its_length() -> None:
    known = Rates(FACTS)
    known.add(Work(0, 10, "rate?", 100), answer(0, 1.0, 2.0, 4))
    known.add(Work(0, 10, "report!", 100), answer(0, 1.0, 40.0, 80))
    assert known.seconds(Work(0, 0, "rate?", 100)) == pytest.approx(2.0, rel=0.05)
    assert known.seconds(Work(0, 0, "report!", 100)) == pytest.approx(40.0, rel=0.05)


@pytest.mark.parametrize("reason", ["deadline", "cancelled"])
def test_an_answer_that_was_cut_off_tells_no_length(reason: str) -> None:
    known = Rates(FACTS)
    known.add(Work(0, 10, "report!", 100), answer(0, 1.0, 40.0, 80))
    known.add(Work(0, 10, "report!", 100), answer(0, 1.0, 1.0, 2, reason))
    assert known.seconds(Work(0, 0, "report!", 100)) == pytest.approx(40.0, rel=0.1)


def test_a_request_without_a_token_tells_nothing() -> None:
    known = Rates(FACTS)
    cut = answer(1, 1, 1, 0)
    known.add(
        Work(5, 10, "rate?", 9),
        dataclasses.replace(cut, timings=dataclasses.replace(cut.timings, ttft=None)),
    )
    assert known.seconds(Work(5, 0)) is None


def test_only_so_many_questions_are_remembered() -> None:
    known = Rates(FACTS)
    for number in range(3 * rates.QUESTIONS):
        known.add(Work(0, 10, f"question {number}", 100), answer(0, 1.0, 1.0, 3))
    assert len(known.lengths) == rates.QUESTIONS


def test_speeds_outlive_the_process(folder: Path) -> None:
    known = Rates(FACTS)
    known.add(Work(5, 3000, "a question about somebody?", 100), answer(10.0, 60.0, 8.0, 20))
    for number in range(rates.QUESTIONS):
        known.add(Work(0, 3000, f"q{number}", 100), answer(0, 60.0, 8.0, 20))
    state.forget()
    again = Rates(dict(FACTS))
    work = Work(5, 3000, "q3", 100)
    assert again.seconds(work) == pytest.approx(known.seconds(work), rel=1e-3)
    assert Rates(FACTS | {"bundle": "1" * 64}).seconds(work) is None
    written = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"vision" in written
    assert b"somebody" not in written


@pytest.mark.parametrize(
    "record",
    [{"vision": [1.0]}, {"lengths": [1]}, {"lengths": {"q1": [1.0]}}, {"prefill": {}}, {}],
)
def test_a_record_of_another_form_is_ignored(record: dict[str, Any]) -> None:
    known = Rates(FACTS)
    state.remember(rates.KIND, known.facts, record)
    assert Rates(FACTS).seconds(Work(1, 1, "rate?", 1)) is None


@pytest.mark.parametrize(("slower", "seconds"), [(1.0, 6.0), (1.4, 7.2), (3.0, 12.0)])
def test_only_steps_are_slower_in_company(slower: float, seconds: float) -> None:
    known = Rates(FACTS)
    known.add(Work(1, 10, "q", 100), answer(1.0, 2.0, 3.0, 30))
    assert known.seconds(Work(1, 10, "q", 100), slower) == pytest.approx(seconds)


def test_steps_in_company_teach_no_speed_but_the_length() -> None:
    known = Rates(FACTS)
    known.add(Work(1, 10, "q", 100), answer(1.0, 2.0, 3.0, 30))
    known.add(Work(1, 10, "q", 100), answer(1.0, 2.0, 300.0, 30), alone=False)
    assert known.seconds(Work(1, 10, "q", 100)) == pytest.approx(6.0)
    known.add(Work(1, 10, "r", 100), answer(1.0, 2.0, 300.0, 60), alone=False)
    assert known.seconds(Work(0, 0, "r", 100)) == pytest.approx(6.0)
