"""What the engine's thread expects of a request, and in which pieces it runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import pulse_edge
from pulse_edge.answer import Request, Stopwatch
from pulse_edge.decode.lanes import Lanes
from pulse_edge.delivery import Delivery
from pulse_edge.job import Job
from pulse_edge.params import GenerationParams
from pulse_edge.rates import Line

from support.requests import Q1, Q2, page

VIEW_S = 2.0
TOKEN_S = 0.01  # of prefill
STEP_S = 0.1


@pytest.fixture
def model(bundle: Path) -> pulse_edge.Model:
    return pulse_edge.load(bundle, threads=1)


def measured(model: pulse_edge.Model, view_s: float = VIEW_S) -> None:
    """Let the model know these speeds, and answers of 20 tokens."""
    rates = model.runner.rates
    rates.lines = {
        "vision": Line().with_one(1, view_s),
        "prefill": Line().with_one(100, 100 * TOKEN_S),
        "decode": Line().with_one(10, 10 * STEP_S),
    }
    rates.lengths = {"any": (1.0, 20.0)}


def predicted(model: pulse_edge.Model, image: Any, question: str) -> tuple[Any, ...]:
    """(prefill_s, seconds) of a request for 5 tokens, its answer, and what each call expects."""
    measured(model)
    expected: list[float | None] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Delivery, "expect", lambda _, seconds: expected.append(seconds))
        stream = model.stream(image, question, max_new_tokens=5)
        answer = stream.answer
    return stream.delivery.prefill_s, stream.delivery.seconds, answer, expected


def test_a_new_page_takes_its_views_and_the_whole_prompt(model: pulse_edge.Model) -> None:
    prefill, whole, answer, expected = predicted(model, page(), Q1)
    views = answer.provenance["image"]["views"]
    assert views > 1
    tower = VIEW_S * views
    tokens = TOKEN_S * answer.usage.prompt_tokens
    assert prefill == pytest.approx(tower + tokens)
    assert whole == pytest.approx(tower + tokens + 5 * STEP_S)  # 20 tokens are too many
    assert expected == [pytest.approx(tower), pytest.approx(tokens)]


def test_a_known_page_takes_the_rest_of_the_prompt(model: pulse_edge.Model) -> None:
    model.ask(page(), Q1, max_new_tokens=1)
    prefill, whole, answer, expected = predicted(model, page(), Q2)
    rest = answer.usage.prompt_tokens - answer.usage.cached_tokens
    assert 0 < rest < answer.usage.image_tokens
    assert prefill == pytest.approx(TOKEN_S * rest)
    assert whole == pytest.approx(TOKEN_S * rest + 5 * STEP_S)
    assert expected == [pytest.approx(TOKEN_S * rest)]


def test_a_page_whose_features_are_known_takes_no_tower(model: pulse_edge.Model) -> None:
    """The cache holds another page, and keeps none."""
    model.runner.lanes.kept.budget = 0
    for image in (page(), page(1)):
        model.ask(image, Q1, max_new_tokens=1)
    prefill, _, answer, _ = predicted(model, page(), Q1)
    rest = answer.usage.prompt_tokens - answer.usage.cached_tokens
    assert rest > answer.usage.image_tokens
    assert prefill == pytest.approx(TOKEN_S * rest)


@pytest.mark.parametrize(("slots", "busy", "shared"), [(1, 0, 0), (1, 1, 0), (2, 1, 1), (2, 2, 1)])
def test_each_request_under_way_makes_a_step_a_row_longer(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, slots: int, busy: int, shared: int
) -> None:
    """It counts no more requests than there are other slots."""
    model = pulse_edge.load(bundle, threads=1, slots=slots)
    measured(model)
    row = model.engine.row_cost
    assert row not in (0, 1)
    monkeypatch.setattr(Lanes, "busy", property(lambda _: busy))
    run = Job(Request((1, 9, 8, 7), "of 4 tokens", None, GenerationParams()), Stopwatch())
    seconds = model.runner.predict(run, None)
    assert run.prefill_s == pytest.approx(4 * TOKEN_S)
    assert seconds == pytest.approx(4 * TOKEN_S + 20 * STEP_S * (1 + row * shared))


@pytest.mark.parametrize(
    ("told", "tower_s", "one_by_one"),
    [
        (True, None, True),  # nobody knows how long it takes
        (True, 0.6, True),
        (True, 0.5, False),
        (True, 0.1, False),
        (False, None, False),
        (False, 60.0, False),
    ],
)
def test_views_run_one_by_one_where_somebody_sees_a_slow_tower(
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    told: bool,
    tower_s: float | None,
    one_by_one: bool,
) -> None:
    model = pulse_edge.load(bundle, threads=1, progress=(lambda *_: None) if told else None)
    views = model.ask(page(1), Q1, max_new_tokens=1).provenance["image"]["views"]
    model.forget()
    model.runner.rates.lines = {}
    if tower_s is not None:
        model.runner.rates.lines = {"vision": Line(1, views, views**2, tower_s, views * tower_s)}
    encode = model.runner.pages.encode
    between: list[object] = []

    def seen(*arguments: Any) -> Any:
        between.append(arguments[4])
        return encode(*arguments)

    monkeypatch.setattr(model.runner.pages, "encode", seen)
    model.ask(page(), Q1, max_new_tokens=1)
    assert [each is not None for each in between] == [one_by_one]


@pytest.mark.parametrize(
    ("terms", "rows"),
    [
        ({}, None),
        ({"deadline_s": 1000}, 512),
        ({"priority": "background"}, 128),
        ({"priority": "background", "deadline_s": 1000}, 128),
    ],
)
def test_rows_of_a_piece_of_a_prefill(
    model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch, terms: Any, rows: int | None
) -> None:
    """Where a piece is 128 rows, others wait for no more; 512 keep what is done by the deadline."""
    prefill = model.runner.sequence.prefill
    pieces: list[int | None] = []

    def seen(*arguments: Any) -> Any:
        pieces.append(arguments[4] and arguments[4].rows)
        return prefill(*arguments)

    monkeypatch.setattr(model.runner.sequence, "prefill", seen)
    model.ask(None, Q1, max_new_tokens=1, **terms)
    assert pieces == [rows]
