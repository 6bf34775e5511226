"""Requests before they reach the worker: what refuses them, and what they are predicted to take."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pulse_edge
from pulse_edge.deadline import Deadline
from pulse_edge.delivery import Delivery
from pulse_edge.errors import DeadlineError, ImageError, ParameterError, PulseEdgeError
from pulse_edge.rates import Line

from support.requests import Q1, blocked, encoded, page, settled

SECONDS = 60.0
WAYS: dict[str, Callable[..., object]] = {
    "ask": lambda model, **terms: model.ask(page(), Q1, max_new_tokens=2, **terms),
    "stream": lambda model, **terms: list(model.stream(page(), Q1, max_new_tokens=2, **terms)),
    "chat": lambda model, **terms: model.chat(page()).ask(Q1, max_new_tokens=2, **terms),
    "turn": lambda model, **terms: list(model.chat(page()).stream(Q1, max_new_tokens=2, **terms)),
    "look": lambda model, **terms: model.look(page(), **terms).wait(),
    "score": lambda model, **terms: model.score(page(), Q1, ("yes", "no"), **terms),
}


@pytest.fixture
def model(bundle: Path) -> pulse_edge.Model:
    return pulse_edge.load(bundle, threads=1)


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Only reference counts free anything."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def every_stage_takes(model: pulse_edge.Model, seconds: float) -> None:
    """Whatever its amount."""
    line = Line().with_one(1, seconds).with_one(10, seconds)
    model.runner.rates.lines = {"vision": line, "prefill": line, "decode": line}
    model.runner.rates.lengths = {"any": (1.0, 20.0)}


@pytest.mark.parametrize("way", WAYS)
def test_a_predicted_miss_runs_only_as_best_effort(model: pulse_edge.Model, way: str) -> None:
    every_stage_takes(model, 1000.0)
    with pytest.raises(DeadlineError, match="over its deadline of 600 s") as refused:
        WAYS[way](model, deadline_s=600)
    stages = 2 if way in ("look", "score") else 3  # nothing is generated for these
    assert refused.value.predicted_s == pytest.approx(1000 * stages, abs=300)
    assert refused.value.deadline_s == 600
    WAYS[way](model, deadline_s=600, best_effort=True)
    assert settled(model.worker)


def test_a_panel_whose_first_question_would_miss_the_deadline_is_refused(
    model: pulse_edge.Model,
) -> None:
    every_stage_takes(model, 1000.0)
    with pytest.raises(DeadlineError, match="over its deadline"):
        model.panel(page(), deadline_s=600)


def test_what_comes_before_is_part_of_the_prediction(
    model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """700 s since its submission, 5000 s of another request, and 3 stages of 100 s."""
    every_stage_takes(model, 100.0)
    monkeypatch.setattr(Deadline, "remaining", property(lambda own: own.seconds - 700))
    free = blocked(model)
    (other,) = model.worker.unfinished
    other.seconds = 5000.0
    stream = model.stream(page(), Q1, max_new_tokens=2, deadline_s=1e5)
    reader = threading.Thread(target=lambda: stream.answer)
    reader.start()
    limit = time.monotonic() + SECONDS
    while len(model.worker.unfinished) < 2 and time.monotonic() < limit:
        time.sleep(0.001)
    free.set()
    reader.join(SECONDS)
    report = stream.answer.deadline
    assert report is not None
    assert report.predicted_s == pytest.approx(6000, abs=90)


def test_an_idle_model_s_look_takes_its_own_time(model: pulse_edge.Model) -> None:
    every_stage_takes(model, 100.0)
    look = model.look(page())
    assert look.predicted_s == pytest.approx(200)
    assert look.wait()


@pytest.mark.parametrize("known", [False, True])
def test_a_deadline_that_passes_before_the_page_is_decoded(
    model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    if known:
        every_stage_takes(model, 1e-4)
    with pytest.raises(
        DeadlineError, match=r"^the deadline of 1e-06 s passed before the page was decoded; "
    ) as late:
        model.look(page(), deadline_s=1e-6, best_effort=True)
    assert (late.value.predicted_s, late.value.deadline_s) == (1e-6, 1e-6)


def test_a_page_that_cannot_be_decoded_is_an_error_of_its_own_though_the_look_has_a_deadline(
    model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread decodes it, and may take a while to tell of the error."""
    withdraw = Delivery.withdraw

    def late(own: Delivery, error: BaseException | None = None) -> bool:
        time.sleep(0.1)
        return withdraw(own, error)

    monkeypatch.setattr(Delivery, "withdraw", late)
    with pytest.raises(ImageError):
        model.look(encoded(page(), "PNG")[:300], deadline_s=1000)


@pytest.mark.parametrize("schema", ["{", "[]", '{"type": "nothing"}'])
def test_a_schema_is_refused_before_the_stream_is_read(
    model: pulse_edge.Model, schema: str
) -> None:
    pytest.importorskip("llguidance", reason="schemas need pulse-edge[schema]")
    with pytest.raises(ParameterError, match="the JSON schema cannot be used"):
        model.stream(page(), Q1, schema=schema)
    assert not model.worker.thread.is_alive()


@pytest.mark.parametrize("known", [{}, {"hr": 72}])
def test_an_answer_names_the_values_that_its_question_states(
    model: pulse_edge.Model, known: dict[str, float]
) -> None:
    record = model.ask(None, Q1, known=known, max_new_tokens=1).provenance
    assert [value["value"] for value in record.get("known", [])] == [*known.values()]


@pytest.mark.parametrize("way", ["look", "score"])
@pytest.mark.parametrize("where", ["begin", "wait"])
def test_ctrl_c_ends_the_request(
    model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch, way: str, where: str
) -> None:
    """In the thread that begins it, or that waits for it."""
    interrupted: list[Delivery] = []

    def interrupt(own: Delivery, *_: object, **__: object) -> None:
        interrupted.append(own)
        raise KeyboardInterrupt

    def broken(*_: object) -> None:
        raise ImageError("no page")  # so that a look waits for its error

    monkeypatch.setattr(Delivery, where, interrupt)
    if way == "look":
        monkeypatch.setattr("pulse_edge.page.preparation.PendingPage.prepare", broken)
    with pytest.raises(KeyboardInterrupt):
        WAYS[way](model)
    assert interrupted[0].cancelled


def failing(way: str, model: pulse_edge.Model) -> weakref.ref[PulseEdgeError]:
    """A request that fails, and its error, which nobody holds any more."""
    try:
        if way == "look":
            model.look(encoded(page(), "PNG")[:300])
        else:
            model.score(None, Q1, ("word " * 400 + "word",))
    except PulseEdgeError as error:
        return weakref.ref(error)
    raise AssertionError("nothing failed")


@pytest.mark.parametrize("way", ["look", "score"])
def test_an_error_is_in_no_cycle(model: pulse_edge.Model, uncollected: None, way: str) -> None:
    error: Any = failing(way, model)
    assert settled(model.worker)
    limit = time.monotonic() + 10
    while error() is not None and time.monotonic() < limit:  # the worker's thread lets it go
        time.sleep(0.001)
    assert error() is None
