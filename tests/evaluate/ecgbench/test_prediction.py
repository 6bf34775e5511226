"""Seconds that are predicted from this machine's speeds, of pulse-nano's prompts and pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pulse_edge
from pulse_edge.evaluate.ecgbench.ask_model import ModelAsker
from pulse_edge.evaluate.ecgbench.items import BenchItem
from pulse_edge.evaluate.ecgbench.prediction import RunPredictor
from pulse_edge.model import Model
from pulse_edge.page.tokens import token_count
from pulse_edge.page.views import view_count
from pulse_edge.rates import Line

SIZE = (440, 340)
DECODED_S = 0.5  # more than the decoding of the tests' pages takes in all


@pytest.fixture(scope="module")
def loaded() -> Iterator[Model]:
    with pulse_edge.load() as model:
        yield model


def set_speeds(model: Model) -> None:
    """1 s a view, 10 s a prompt token, and 1,000 s an answer."""
    rates = model.runner.rates
    each_s = {"vision": 1.0, "prefill": 10.0, "decode": 100.0}
    rates.lines = {stage: Line().with_one(1, seconds) for stage, seconds in each_s.items()}
    rates.lengths = {"q0": (1.0, 10.0)}


@pytest.fixture
def model(loaded: Model) -> Model:
    set_speeds(loaded)
    return loaded


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((SIZE[1], SIZE[0], 3), 200, np.uint8)).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    return tmp_path


def item(image: str, prompt: str = "What is the rhythm?") -> BenchItem:
    return BenchItem("mmmu-ecg", f"{image}{prompt}", image, prompt, "A")


def seconds(model: Model, items: Sequence[BenchItem], images: Path) -> float:
    predicted = RunPredictor(model).seconds(items, images)
    assert predicted is not None
    return predicted


def page_and_prompt(model: Model) -> tuple[float, float]:
    """Seconds of a page's views and tokens, as the model's own counts have them."""
    spec = model.bundle.manifest.model
    return view_count(SIZE, spec) * 1.0, token_count(SIZE, spec) * 10.0


def test_a_question_takes_its_page_its_prompt_and_its_answer(model: Model, images: Path) -> None:
    answer = model.ask(str(images / "a.png"), "What is the rhythm?", max_new_tokens=1)
    usage = answer.usage
    views, page = page_and_prompt(model)
    assert usage.image_tokens * 10.0 == page
    set_speeds(model)  # the question was measured, too
    expected = views + usage.prompt_tokens * 10.0 + 1000.0
    predicted = seconds(model, [item("a.png")], images)
    assert expected <= predicted < expected + DECODED_S


def test_a_second_question_of_a_page_takes_neither_page_nor_views(
    model: Model, images: Path
) -> None:
    one = seconds(model, [item("a.png")], images)
    two = seconds(model, [item("a.png"), item("a.png")], images)
    views, page = page_and_prompt(model)
    assert two - one == pytest.approx(one - views - page, rel=0.5)
    assert two - one < one - views - page
    apart = seconds(model, [item("a.png"), item("b.png")], images)
    assert apart == pytest.approx(2 * one, abs=DECODED_S)
    back = seconds(model, [item("a.png"), item("b.png"), item("a.png")], images)
    assert back == pytest.approx(3 * one, abs=DECODED_S)


def test_pages_that_are_not_decoded_are_taken_to_be_like_others(model: Model, images: Path) -> None:
    names = [f"{number}.png" for number in range(100)]
    for name in names:
        (images / name).write_bytes((images / "a.png").read_bytes())
    one = seconds(model, [item("a.png")], images)
    many = seconds(model, [item(name) for name in names], images)
    assert many == pytest.approx(100 * one, abs=100 * DECODED_S)


def test_every_turn_of_a_conversation_is_counted(model: Model, images: Path) -> None:
    turns = (("What is the rhythm?", "x"), ("Is it normal?", "y"))
    talk = BenchItem("arena", "t", "a.png", turns[0][0], "", turns)
    one = seconds(model, [item("a.png")], images)
    both = seconds(model, [item("a.png"), item("a.png", "Is it normal?")], images)
    predicted = seconds(model, [talk], images)
    assert one + 1000.0 < predicted == pytest.approx(both, abs=DECODED_S)


@pytest.mark.parametrize("stage", ["vision", "prefill", "decode", "lengths"])
def test_without_one_of_the_speeds_nothing_is_predicted(
    stage: str, model: Model, images: Path
) -> None:
    rates = model.runner.rates
    if stage == "lengths":
        rates.lengths = {}
    else:
        del rates.lines[stage]
    assert RunPredictor(model).seconds([item("a.png")], images) is None


@pytest.mark.parametrize("name", ["absent.png", "broken.png"])
def test_a_page_that_cannot_be_read_is_left_out(name: str, model: Model, images: Path) -> None:
    assert RunPredictor(model).seconds([item(name)], images) is None
    one = seconds(model, [item("a.png")], images)
    both = seconds(model, [item("a.png"), item(name)], images)
    assert both == pytest.approx(2 * one, abs=DECODED_S)


def test_scores_of_options_are_not_predicted(model: Model, images: Path) -> None:
    asked = [item("a.png")]
    assert ModelAsker(model, "n", "clean").predict(asked, images) is not None
    assert ModelAsker(model, "n", "clean", scores=True).predict(asked, images) is None


def test_an_answer_has_the_bundles_precision(loaded: Model, images: Path) -> None:
    page = (images / "a.png").read_bytes()
    reply = ModelAsker(loaded, "n", "clean").ask(item("a.png"), page)
    assert reply.metadata["precision"] == loaded.bundle.manifest.precision.name
