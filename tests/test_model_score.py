"""Scores of options by a model: a request like any other, which generates nothing."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import pytest

import pulse_edge
from pulse_edge.arrays import Numbers
from pulse_edge.assets import SAMPLE_PAGE
from pulse_edge.decode.scoring import OptionScore
from pulse_edge.errors import ContextError, DeadlineError, EngineError, ImageError, ParameterError

from support.requests import LONG, Q1, Q2, fresh, page, usable

Scores = tuple[OptionScore, ...]
OPTIONS = ("Sinus rhythm.", "Atrial fibrillation", "yes", "no")


def close(got: Scores, expected: Scores) -> bool:
    """Whether they differ by rounding only: what is cached decides how a prompt is cut."""
    return len(got) == len(expected) and all(
        (one.option, one.tokens) == (two.option, two.tokens)
        and one.logprob == pytest.approx(two.logprob, rel=1e-5)
        and one.text_logprob == pytest.approx(two.text_logprob, rel=1e-5)
        for one, two in zip(got, expected, strict=True)
    )


def test_the_model_s_own_answer_scores_as_its_tokens_do() -> None:
    """Of the model inside the package, which has learned to answer. Its answer scores best."""
    model = pulse_edge.load(threads=1)
    question = "What is the rhythm?"
    answer = model.ask(SAMPLE_PAGE, question, logprobs=0)
    assert answer.logprobs is not None
    assert answer.finish_reason == "eos"
    others = ("The rhythm is atrial fibrillation.", "The heart rate is 75 bpm.", "yes", "no")
    scores = model.score(SAMPLE_PAGE, question, [*others, answer.text])
    assert [score.option for score in scores] == [*others, answer.text]
    own = scores[-1]
    assert own.tokens == len(answer.token_ids)
    assert own.text_logprob == pytest.approx(sum(r.logprob for r in answer.logprobs), abs=1e-3)
    assert max(scores, key=lambda score: score.logprob) == own
    assert math.exp(own.logprob) > 0.9


@pytest.mark.parametrize("options", [("yes",), OPTIONS, OPTIONS[::-1]])
def test_it_leaves_the_model_as_it_was(
    model: pulse_edge.Model, bundle: Path, options: tuple[str, ...]
) -> None:
    before = model.ask(page(), Q1, max_new_tokens=5)
    scores = model.score(page(), Q1, options)
    assert close(scores, pulse_edge.load(bundle, threads=1).score(page(), Q1, options))
    again = model.ask(page(), Q1, max_new_tokens=5)
    assert again.token_ids == before.token_ids
    assert again.usage.cached_tokens == again.usage.prompt_tokens - 1  # the prompt stayed
    assert usable(model, bundle)


def test_scores_of_an_option_are_equal_in_any_company(model: pulse_edge.Model) -> None:
    model.score(page(), Q1, OPTIONS)  # from now on the same of the prompt is cached
    alone = tuple(model.score(page(), Q1, [option])[0] for option in OPTIONS)
    assert model.score(page(), Q1, OPTIONS) == alone
    assert model.score(page(), Q1, OPTIONS[::-1])[::-1] == alone


def test_a_look_is_a_page_too(model: pulse_edge.Model) -> None:
    expected = model.score(page(), Q1, OPTIONS)
    look = model.look(page())
    look.wait()
    assert close(model.score(look, Q1, OPTIONS), expected)


def test_with_and_without_a_page(model: pulse_edge.Model) -> None:
    score = model.score(page(), Q1, ["yes"])
    for image, question in ((None, Q1), (page(1), Q1), (page(), Q2)):
        assert not close(score, model.score(image, question, ["yes"]))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((page(), Q1, []), ParameterError, "0 options"),
        ((page(), Q1, ["yes", "yes"]), ParameterError, "twice"),
        ((page(), Q1, "yes"), ParameterError, "options are str"),
        ((page(), "", ["yes"]), ParameterError, "question"),
        ((b"no page", Q1, ["yes"]), ImageError, "."),
        ((page(), Q1, ["so long" * LONG]), ContextError, "room"),
        ((page(), Q1 * LONG, ["yes"]), ContextError, "context"),
    ],
)
def test_what_is_refused(
    model: pulse_edge.Model,
    bundle: Path,
    arguments: tuple[Any, ...],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        model.score(*arguments)
    assert model.score(page(), Q1, ["yes"])[0].tokens > 0
    assert usable(model, bundle)


@pytest.mark.parametrize("value", [0, -1, True, "5"])
def test_terms_are_checked(model: pulse_edge.Model, value: Any) -> None:
    with pytest.raises(ParameterError, match="deadline_s"):
        model.score(page(), Q1, OPTIONS, deadline_s=value)


def test_a_deadline_that_passes_gives_no_scores(
    model: pulse_edge.Model, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not half an option, and the page stays in the cache."""
    step = model.engine.step
    options = [f"option {number}" for number in range(20)]

    def slow(rows: Any, slot: int | Numbers = 0) -> Any:
        threading.Event().wait(0.2)
        return step(rows, slot)

    model.ask(page(), Q1, max_new_tokens=1)
    with monkeypatch.context() as patch:
        patch.setattr(model.engine, "step", slow)
        with pytest.raises(DeadlineError, match="before all options were scored") as error:
            model.score(page(), Q1, options, deadline_s=0.7, best_effort=True)
    assert error.value.deadline_s == 0.7
    assert len(model.score(page(), Q1, options)) == 20
    again = model.ask(page(), Q1, max_new_tokens=1)
    assert again.usage.cached_tokens == again.usage.prompt_tokens - 1
    assert usable(model, bundle)


def test_an_engine_that_fails_leaves_a_usable_model(
    model: pulse_edge.Model, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(rows: Any, slot: int | Numbers = 0) -> Any:
        raise EngineError("out of luck")

    with monkeypatch.context() as patch:
        patch.setattr(model.engine, "step", fails)
        with pytest.raises(EngineError, match="out of luck"):
            model.score(page(), Q1, OPTIONS)
    assert model.engine.length == 0
    assert usable(model, bundle)


def test_an_interrupted_wait_cancels_it(
    model: pulse_edge.Model, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by Ctrl-C."""

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pulse_edge.delivery.Delivery.wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.score(page(), Q1, OPTIONS)
    assert usable(model, bundle)


def test_several_threads_get_their_own(model: pulse_edge.Model) -> None:
    expected = {seed: model.score(page(seed), Q1, OPTIONS) for seed in range(3)}
    got: dict[int, Any] = {}

    def ask(seed: int) -> None:
        got[seed] = model.score(page(seed), Q1, OPTIONS)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(close(got[seed], expected[seed]) for seed in range(3))


def test_it_says_nothing_about_what_is_generated(model: pulse_edge.Model, bundle: Path) -> None:
    model.score(page(), Q1, OPTIONS)
    answer = model.ask(page(), Q2, max_new_tokens=8)
    assert answer.token_ids == fresh(bundle, page(), Q2, max_new_tokens=8).token_ids
