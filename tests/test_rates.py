"""Speeds that are measured, remembered and used for predictions."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pulse_edge import rates, state
from pulse_edge.answer import Answer, Timings, Usage
from pulse_edge.rates import Line, Rates, Work

SAVE_SECONDS = rates.SAVE_SECONDS  # the tests set it to 0
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


def test_a_line_may_begin_below_a_second() -> None:
    assert line((10, 1.0), (110, 6.0)).at(60) == pytest.approx(3.5)


def test_seconds_may_not_depend_on_the_amount() -> None:
    assert line((10, 2.0), (110, 2.0)).at(1000) == pytest.approx(2.0)
    assert Line(2, 12, 104, 4, 24).at(1000) == 2.0  # 2 s for 2 and for 10, without rounding


@pytest.mark.parametrize(("apart", "seconds"), [(0.7, 7.0), (0.6, 12.0)])
def test_sizes_that_hardly_differ_are_one_size(apart: float, seconds: float) -> None:
    """A line through sizes that differ by 6 % would magnify their noise: at 20 it says 7 s, where
    twice the mean of about 6 s for 10 is 12."""
    low, high = 10 - apart / 2, 10 + apart / 2
    times = 5 + 0.1 * low, 5 + 0.1 * high
    product = low * times[0] + high * times[1]
    found = Line(2, low + high, low**2 + high**2, sum(times), product)
    assert found.at(20) == pytest.approx(seconds, rel=2e-3)


@pytest.mark.parametrize(
    "sums", [(0, 0, 0, 0, 0), (1, 0, 0, 5, 0), (0, 3, 0, 5, 0), (1, 3, 0, 5, 1)]
)
def test_sums_that_no_measurements_have_tell_nothing(sums: tuple[float, ...]) -> None:
    assert Line(*sums).at(7) is None


def test_more_work_never_takes_less() -> None:
    falling = line((10, 5.0), (100, 1.0))
    assert falling.at(10) == falling.at(1000) == pytest.approx((0.95 * 5 + 1) / 1.95)  # the mean
    below = line((10, 0.1), (100, 10.0))  # the line through both is negative at 1
    assert 0 < (below.at(1) or 0) < (below.at(10) or 0)


def test_older_measurements_fade() -> None:
    found = line(*[(10, 1.0)] * 50, *[(10, 3.0)] * 200)
    assert found.at(10) == pytest.approx(3.0, rel=1e-3)


def test_a_measurement_weighs_a_twentieth_less_after_the_next() -> None:
    """(0.95 * 1 s + 3 s) / 1.95, and lengths likewise: (0.95 * 4 + 80) / 1.95 = 42.97 tokens."""
    assert line((10, 1.0), (10, 3.0)).at(10) == pytest.approx(3.95 / 1.95)
    known = Rates(FACTS)
    for tokens in (4, 80):  # half a second a token
        known.add(Work(0, 10, "q", 100), answer(0, 1.0, tokens / 2, tokens))
    assert known.seconds(Work(0, 0, "q", 100)) == pytest.approx(83.8 / 1.95 / 2)


def test_one_stage_of_its_own() -> None:
    known = Rates(FACTS)
    assert known.stage("prefill", 30) is None
    known.add(Work(5, 3000, "rate?", 100), answer(10.0, 60.0, 8.0, 20))
    assert known.stage("vision", 3) == pytest.approx(6.0)
    assert known.stage("prefill", 30) == pytest.approx(0.6)
    assert known.stage("decode", 5) == pytest.approx(2.0)
    assert known.stage("hashing", 5) is None


def test_a_page_without_a_question_tells_of_two_stages() -> None:
    known = Rates(FACTS)
    known.add_prefill(Work(5, 3000), 10.0, 60.0)
    again = Rates(FACTS)  # as it was written
    for each in (known, again):
        assert each.stage("vision", 3) == pytest.approx(6.0)
        assert each.stage("prefill", 30) == pytest.approx(0.6)
        assert each.stage("decode", 30) is None


def test_work_without_a_number_of_tokens_generates_none() -> None:
    known = Rates(FACTS)
    known.add(Work(5, 3000, "rate?", 100), answer(10.0, 60.0, 8.0, 20))
    assert known.seconds(Work(0, 0, "rate?")) == 0.0


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


@pytest.mark.parametrize("reason", ["eos", "stop", "length"])
def test_an_answer_that_ended_by_itself_tells_its_length(reason: str) -> None:
    known = Rates(FACTS)
    known.add(Work(0, 10, "report!", 100), answer(0, 1.0, 40.0, 80, reason))
    assert known.seconds(Work(0, 0, "report!", 100)) == pytest.approx(40.0)


@pytest.mark.parametrize("reason", ["deadline", "cancelled", "context"])
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


def test_the_question_asked_longest_ago_is_forgotten_at_the_25th() -> None:
    known = Rates(FACTS)
    for number in range(24):
        known.add(Work(0, 10, f"question {number}", 100), answer(0, 1.0, 1.0, 2))
    known.add(Work(0, 10, "question 0", 100), answer(0, 1.0, 1.0, 2))
    before = dict(known.lengths)
    assert len(before) == 24
    known.add(Work(0, 10, "one more", 100), answer(0, 1.0, 1.0, 2))
    oldest = next(iter(before))  # of "question 1"
    assert before.keys() - known.lengths.keys() == {oldest}


@pytest.mark.parametrize(("tokens", "seconds"), [(0, 0.5), (0, 0.0), (1, 0.0)])
def test_steps_that_were_not_run_tell_no_speed(tokens: int, seconds: float) -> None:
    """An answer that ends at its first token, or has one token, has no step after that."""
    known = Rates(FACTS)
    known.add(Work(1, 10, "q", 100), answer(1.0, 2.0, 3.0, 30))
    before = dict(known.lines)
    known.add(Work(0, 0, None, 100), answer(0.1, 0.1, seconds, tokens))
    assert known.lines == before


def test_records_are_found_whatever_the_order_of_the_facts() -> None:
    known = Rates({"engine": {"threads": 2, "engine": "fake"}, "bundle": "0" * 64})
    text = f'{{"bundle": "{"0" * 64}", "engine": {{"engine": "fake", "threads": 2}}}}'
    assert known.facts == Rates(FACTS).facts == {"rates": text}


def test_speeds_are_written_every_30_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(rates, "SAVE_SECONDS", SAVE_SECONDS)
    monkeypatch.setattr(rates, "time", SimpleNamespace(monotonic=lambda: now[0]))
    known = Rates(FACTS)
    written = []
    for second in (0.0, 29.9, 30.0, 59.9, 60.0):
        now[0] = 1000.0 + second
        known.add(Work(0, 10), answer(0, 1.0 + second, 1.0, 2))
        again = Rates(FACTS).seconds(Work(0, 10))
        written.append(again == pytest.approx(known.seconds(Work(0, 10))))
    assert written == [True, False, True, False, True]


def test_what_is_written_is_rounded() -> None:
    """Sums to a billionth, weights to 4 and tokens to 3 digits. Four measurements of the same
    weigh 1 + 0.95 + 0.9025 + 0.857375 = 3.709875."""
    known = Rates(FACTS)
    for _ in range(4):
        known.add(Work(1, 1, "q", 9), answer(1 / 3, 1 / 7, 1 / 9, 7))
    record = state.recall(rates.KIND, known.facts)
    assert record is not None
    assert record["vision"][0] == 3.709875
    assert record["vision"][3] == 1.236625
    assert record["prefill"][3] == 0.529982143
    assert list(record["lengths"].values()) == [[3.7099, 25.969]]


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
    [
        *({"vision": [1.0]}, {"lengths": [1]}, {"lengths": {"q1": [1.0]}}, {"prefill": {}}, {}),
        {"vision": [1.0, 0.0, 0.0, 1.0, 0.0], "lengths": {"q1": [1.0, 1.0]}},
    ],
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
    known.add(Work(1, 10, "p", 100), answer(1.0, 2.0, 300.0, 30), alone=False)
    assert known.seconds(Work(1, 10, "p", 100), 1.4) is None
    assert known.seconds(Work(1, 10)) == pytest.approx(3.0)
    known.add(Work(1, 10, "q", 100), answer(1.0, 2.0, 3.0, 30))
    known.add(Work(1, 10, "q", 100), answer(1.0, 2.0, 300.0, 30), alone=False)
    assert known.seconds(Work(1, 10, "q", 100)) == pytest.approx(6.0)
    known.add(Work(1, 10, "r", 100), answer(1.0, 2.0, 300.0, 60), alone=False)
    assert known.seconds(Work(0, 0, "r", 100)) == pytest.approx(6.0)
