"""Scores of options: the numbers, the tokens, and what is left in the cache."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pulse_edge.arrays import Floats, Numbers
from pulse_edge.bundle.spec import ModelSpec
from pulse_edge.decode.logprobs import log_softmax
from pulse_edge.decode.scoring import MOST_OPTIONS, OptionScore, Scorer, checked_options
from pulse_edge.engines.engine import Engine
from pulse_edge.errors import ContextError, EngineError, ParameterError
from pulse_edge.text.tokenizer import Tokenizer

from support.counting import EOS, Counting
from support.tokens import LEGACY, TEXT, TOKENS

PROMPT = [20, 21, 22]
VOCAB = TOKENS.size
OPTIONS = (
    *(
        "yes",
        "no",
        "sinus rhythm",
        "atrial fibrillation",
        "Sinus",
        "1",
        "72 bpm",
        "4,5",
        "A.",
        "(B)",
    ),
    *(
        "B. right bundle branch block",
        "ST depression in V4, V5 and V6",
        "I-AVB",
        "a  b",
        "\u5fc3",
        "\u00e9",
    ),
    *("</s>", "left ventricular hypertrophy and " * 9 + "more", "\U0001f600", "<image>", "x\ny"),
)


def noise(cache: Sequence[int]) -> Floats:
    """Logits that depend on the last three tokens and on the length."""
    rng = np.random.default_rng([3, *cache[-3:], len(cache)])
    return rng.normal(0, 3, VOCAB).astype(np.float32)


def score_by_steps(
    tokens: Sequence[int], ends: Sequence[int] = (EOS,), prompt: Sequence[int] = PROMPT
) -> tuple[float, float]:
    """(with the end, without it): a plain loop, one token at a time."""
    total = 0.0
    cache = list(prompt)
    for token in tokens:
        total += float(log_softmax(noise(cache))[token])
        cache.append(token)
    after = log_softmax(noise(cache))
    return total + math.log(sum(math.exp(after[end]) for end in ends)), total


class Fixture:
    """A scorer over an engine that counts."""

    def __init__(self, capacity: int = 10_000, ends: Sequence[int] = (EOS,)) -> None:
        self.engine = Counting(noise, PROMPT, capacity)
        self.scorer = Scorer(cast(Engine, self.engine), TOKENS, ends)

    def score(self, *options: str, **given: Any) -> tuple[OptionScore, ...]:
        return self.scorer.score(noise(PROMPT), options, **given)


# ---- the numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("option", OPTIONS)
def test_a_score_is_that_of_decoding_step_by_step(option: str) -> None:
    fixture = Fixture()
    (score,) = fixture.score(option)
    tokens = TOKENS.encode(option)
    expected = score_by_steps(tokens)
    assert (score.option, score.tokens) == (option, len(tokens))
    assert (score.logprob, score.text_logprob) == pytest.approx(expected, abs=1e-9)
    assert fixture.engine.cache == PROMPT
    assert max(fixture.engine.steps) <= fixture.engine.most_rows
    assert len(fixture.engine.steps) == math.ceil(len(tokens) / fixture.engine.most_rows)


def test_the_others_and_their_order_move_no_score() -> None:
    together = {score.option: score for score in Fixture().score(*OPTIONS)}
    assert list(together) == list(OPTIONS)
    rng = np.random.default_rng(0)
    for _ in range(5):
        shuffled = [OPTIONS[i] for i in rng.permutation(len(OPTIONS))]
        for score in Fixture().score(*shuffled):
            assert score == together[score.option]
    for option in OPTIONS[:3]:
        assert Fixture().score(option) == (together[option],)


@pytest.mark.parametrize("ends", [(EOS,), (EOS, 5), (7, 5, EOS)])
def test_any_end_token_ends_an_option(ends: tuple[int, ...]) -> None:
    (score,) = Fixture(ends=ends).score("sinus rhythm")
    assert score.logprob == pytest.approx(score_by_steps(TOKENS.encode("sinus rhythm"), ends)[0])


def test_probabilities_of_all_answers_are_one_at_most() -> None:
    total = sum(math.exp(score.logprob) for score in Fixture().score(*OPTIONS))
    assert 0 < total < 1
    for score in Fixture().score(*OPTIONS):
        assert score.logprob < score.text_logprob < 0


# ---- the tokens ----------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(TEXT.map(str.strip).filter(bool), st.sampled_from([TOKENS, LEGACY]))
@example("\u00a0x", TOKENS)
def test_they_are_the_tokens_of_the_whole_turn(option: str, tokenizer: Tokenizer) -> None:
    """As training encodes `… ASSISTANT: sinus rhythm`, which is what the model learns to write."""
    turn = "\nWhat is the rhythm? ASSISTANT:"
    scorer = Scorer(cast(Engine, None), tokenizer, (EOS,))
    assert tokenizer.encode(f"{turn} {option}") == tokenizer.encode(turn) + scorer.tokens(option)


# ---- what is left --------------------------------------------------------------------------------


@pytest.mark.parametrize("fails_at", [0, 1, 2])
def test_a_step_that_fails_leaves_the_prompt(fails_at: int) -> None:
    fixture = Fixture()
    step = fixture.engine.step

    def failing(rows: Numbers) -> Floats:
        if len(fixture.engine.steps) == fails_at:
            raise EngineError("out of luck")
        return step(rows)

    fixture.engine.step = failing  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="out of luck"):
        fixture.score("left ventricular hypertrophy and " * 9)
    assert fixture.engine.cache == PROMPT


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite(at: int, bad: float) -> None:
    fixture = Fixture()
    first = noise(PROMPT)
    if at == 0:
        first[3] = bad
    else:
        fixture.engine.model = lambda cache: np.full(VOCAB, bad, np.float32)
    with pytest.raises(EngineError, match="not finite"):
        fixture.scorer.score(first, ["yes"])
    assert fixture.engine.cache == PROMPT


def test_a_token_that_cannot_come_moves_no_other_score() -> None:
    """Its logit is minus infinity: alone that is no error."""
    never = np.float32(-np.inf)
    fixture = Fixture()

    def model(cache: Sequence[int]) -> Floats:
        logits = noise(cache)
        logits[3] = never
        return logits

    fixture.engine.model = model
    (score,) = fixture.scorer.score(model(PROMPT), ["sinus rhythm"])
    plain = Fixture().score("sinus rhythm")[0]
    assert 3 not in TOKENS.encode("sinus rhythm")
    assert plain.logprob < score.logprob < 0


def test_a_row_without_a_token_that_can_come() -> None:
    """One of several rows of a step."""
    fixture = Fixture()
    length = len(TOKENS.encode("sinus rhythm"))
    assert length > 1

    def model(cache: Sequence[int]) -> Floats:
        if len(cache) == len(PROMPT) + 1:
            return np.full(VOCAB, -np.inf, np.float32)
        return noise(cache)

    fixture.engine.model = model
    with pytest.raises(EngineError, match="not finite"):
        fixture.scorer.score(noise(PROMPT), ["sinus rhythm"])


@pytest.mark.parametrize("before", [0, 1, 3])
def test_it_can_be_stopped_before_each_option(before: int) -> None:
    fixture = Fixture()
    calls: list[int] = []

    def between() -> None:
        calls.append(len(fixture.engine.steps))
        if len(calls) > before:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fixture.score("yes", "no", "sinus rhythm", "72 bpm", between=between)
    assert calls == list(range(before + 1))
    assert fixture.engine.cache == PROMPT


@pytest.mark.parametrize("room", [0, 1, 2, 3])
def test_an_option_must_fit_the_context(room: int) -> None:
    size = len(TOKENS.encode("72"))
    assert size > 1
    fixture = Fixture(len(PROMPT) + room)
    if room >= size:
        assert fixture.score("72")[0].tokens == size
    else:
        with pytest.raises(ContextError, match=f"'72' is {size} tokens.* room for {room}"):
            fixture.score("72")
        assert fixture.engine.steps == []


# ---- which options -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "there are 0 options"),
        ([str(i) for i in range(MOST_OPTIONS + 1)], "there are 65 options"),
        ("yes", "options are str"),
        (None, "options are NoneType"),
        (5, "options are int"),
        (["yes", ""], "empty"),
        (["yes", " \t"], "empty"),
        (["yes", 5], "text, not int"),
        ([None], "text, not NoneType"),
        ([b"yes"], "text, not bytes"),
        (["yes", " no"], "' no' has white space"),
        (["no\n"], "white space"),
        (["yes\u3000"], "white space"),
        (["yes", "no", "yes"], "'yes' is there twice"),
        (["x" * 500] * 2, "^.{0,140}$"),
        (["\ud800"], "not valid Unicode"),
    ],
)
def test_options_that_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message) as error:
        checked_options(options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "options", [["yes"], ("a", "A"), [str(i) for i in range(MOST_OPTIONS)], {"a": 1, "b": 2}.keys()]
)
def test_options_that_are_taken(options: Any) -> None:
    assert checked_options(options) == tuple(options)
    assert checked_options(iter(options)) == tuple(options)


# ---- a model -------------------------------------------------------------------------------------

QUESTION = "What is the rhythm?"
ANSWERS = ("Sinus rhythm.", "Atrial fibrillation", "yes", "the PR interval is 160 ms " * 3 + "long")


def test_scores_are_those_of_the_numpy_reference(checkpoint: Path, bundle: Path) -> None:
    """It computes the whole conversation at once, without a cache."""
    import pulse_edge
    from pulse_export import reference
    from pulse_export.checkpoint import Checkpoint

    source = Checkpoint(checkpoint)
    spec: ModelSpec = source.spec
    model = pulse_edge.load(bundle, threads=1)
    tokens = model.tokenizer
    turn = f"{spec.prompt.system} {spec.prompt.user}: {QUESTION} {spec.prompt.assistant}:"
    prompt = [spec.text.bos, *tokens.encode(turn)]
    for score in model.score(None, QUESTION, ANSWERS):
        option = tokens.encode(score.option)
        embeds = reference.splice([*prompt, *option], None, source.tensor, np.float64)
        rows = range(len(prompt) - 1, len(prompt) + len(option))
        logits = reference.logits(embeds, spec, source.tensor, rows=rows)
        shifted = logits - logits.max(axis=1, keepdims=True)
        expected = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        picked = expected[np.arange(len(option)), option]
        assert score.tokens == len(option)
        assert score.text_logprob == pytest.approx(picked.sum(), rel=1e-4)
        end = expected[-1, spec.text.eos[0]]
        assert score.logprob == pytest.approx(picked.sum() + end, rel=1e-4)
