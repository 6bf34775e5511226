"""The decode loop, over an engine that computes nothing: what ends an answer, and what is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest

from pulse_edge.arrays import Floats
from pulse_edge.decode.loop import generate
from pulse_edge.decode.ngrams import Ngrams
from pulse_edge.decode.result import FinishReason, Generation
from pulse_edge.decode.speculation import DraftPolicy, Guess
from pulse_edge.engines.engine import Engine
from pulse_edge.errors import EngineError
from pulse_edge.params import GenerationParams
from pulse_edge.text.detokenizer import TextStream

from support.counting import LETTERS, Counting, Logits, Run, after

PROMPT = [20, 21, 22]
VOCAB = 30
END = 2


def spells(text: str, end: int = END) -> Logits:
    """A model that writes letters and then the end token."""
    tokens = [*(ord(letter) - 97 for letter in text), end]

    def model(cache: Sequence[int]) -> Floats:
        logits = np.zeros(VOCAB, np.float32)
        logits[tokens[min(len(cache) - len(PROMPT), len(tokens) - 1)]] = 1
        return logits

    return model


def letters(text: str) -> list[int]:
    return [ord(letter) - 97 for letter in text]


@pytest.mark.parametrize(
    ("text", "params", "capacity", "reason", "expected", "tokens"),
    [
        ("sinus", {}, 99, "eos", "sinus", 5),
        ("", {}, 99, "eos", "", 0),
        ("sinus", {"max_new_tokens": 5}, 99, "length", "sinus", 5),
        ("sinus", {"max_new_tokens": 6}, 99, "eos", "sinus", 5),
        ("sinus", {"max_new_tokens": 1}, 99, "length", "s", 1),
        ("sinus", {"stop": "us"}, 99, "stop", "sin", 5),
        ("sinus", {"stop": "s"}, 99, "stop", "", 1),
        ("sinus", {"stop": ("x", "n", "nu")}, 99, "stop", "si", 3),
        ("sinus", {"stop": "sinuses"}, 99, "eos", "sinus", 5),
        ("sinus", {"stop": "us", "max_new_tokens": 5}, 99, "stop", "sin", 5),
        ("sinus", {"stop": "us", "max_new_tokens": 4}, 99, "length", "sinu", 4),
        ("sinus", {}, 3, "context", "s", 1),
        ("sinus", {}, 5, "context", "sin", 3),
        ("sinus", {}, 8, "eos", "sinus", 5),
        ("sinus", {}, 7, "context", "sinus", 5),
        ("sinus", {"max_new_tokens": 3}, 5, "length", "sin", 3),
        ("sinus", {"stop": "n"}, 5, "stop", "si", 3),
    ],
)
@pytest.mark.parametrize("greedy", [True, False])
def test_what_ends_an_answer(
    text: str,
    params: dict[str, Any],
    capacity: int,
    reason: FinishReason,
    expected: str,
    tokens: int,
    greedy: bool,
) -> None:
    """With one cause or several: a stop string, then the length, then the context."""
    sampling: dict[str, Any] = {} if greedy else {"temperature": 1e-3}
    run = Run(spells(text), PROMPT, None, GenerationParams(**params, **sampling), capacity).drain()
    assert run.answer == (letters(text)[:tokens], reason, expected)
    steps = tokens if reason == "eos" else tokens - 1
    assert run.engine.steps == [1] * steps  # nothing is computed from the last token
    assert len(run.out.step_seconds) == steps
    assert after(run.engine, PROMPT, run.out.tokens)
    assert (run.out.drafted, run.out.accepted) == (0, 0)


@pytest.mark.parametrize("end", [7, 9])
def test_any_of_several_end_tokens(end: int) -> None:
    out = Generation()
    engine = Counting(spells("sinus", end), PROMPT)
    params = GenerationParams()
    text = TextStream(LETTERS)
    eos = (END, 7, 9)
    parts = generate(cast(Engine, engine), engine.model(PROMPT), params, eos, text, out)
    assert "".join(parts) == "sinus"
    assert (out.finish_reason, out.tokens) == ("eos", letters("sinus"))


def test_an_end_token_of_another_model_is_a_token() -> None:
    out = Generation()
    engine = Counting(spells("acb"), PROMPT)  # c is token 2
    params = GenerationParams(max_new_tokens=3)
    text = TextStream(LETTERS)
    parts = generate(cast(Engine, engine), engine.model(PROMPT), params, (5,), text, out)
    assert "".join(parts) == "acb"
    assert out.finish_reason == "length"


def test_pieces_come_with_their_tokens() -> None:
    run = Run(spells("sinus"), PROMPT)
    got = []
    for count, piece in enumerate(run.pieces, 1):
        got.append(piece)
        assert len(run.out.tokens) == count
        assert len(run.engine.steps) == count - 1
    assert got == list("sinus")


def test_what_waits_at_the_end_is_handed_over() -> None:
    run = Run(spells("sinus"), PROMPT, None, GenerationParams(stop=("sinuses",)))
    assert list(run.pieces) == ["sinus"]


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_signal_ends_it_after_the_token(count: int) -> None:
    run = Run(spells("sinus"), PROMPT)
    for _ in range(count):
        next(run.pieces)
    run.out.cancellation.request()
    assert list(run.pieces) == []
    assert run.answer == (letters("sinus")[:count], "cancelled", "")
    assert run.engine.cache == PROMPT + letters("sinus")[: count - 1]


def test_what_waits_is_not_handed_over_after_a_signal() -> None:
    run = Run(spells("sinus"), PROMPT, None, GenerationParams(stop=("usual",)))
    for _ in range(3):
        next(run.pieces)
    run.out.cancellation.request()
    assert list(run.pieces) == []


def test_closing_it_leaves_a_cache_of_known_tokens() -> None:
    run = Run(spells("sinus"), PROMPT)
    next(run.pieces)
    next(run.pieces)
    run.pieces.close()
    assert run.answer == (letters("si"), "cancelled", "")
    assert after(run.engine, PROMPT, run.out.tokens)


@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize("at", [0, 2])
def test_logits_that_are_not_finite(greedy: bool, at: int) -> None:
    def model(cache: Sequence[int]) -> Floats:
        logits = spells("sinus")(cache)
        return logits * np.nan if len(cache) == len(PROMPT) + at else logits

    params = GenerationParams(temperature=0 if greedy else 1e-3)
    run = Run(model, PROMPT, None, params)
    with pytest.raises(EngineError, match="not finite"):
        run.drain()
    assert run.out.tokens == letters("sinus")[:at]
    assert run.out.finish_reason == "cancelled"


def test_times_are_told_by_the_generation_s_clock() -> None:
    """Also when it begins at 0."""
    ticks = iter(range(100))
    run = Run(spells("si"), PROMPT)
    run.out.clock = lambda: float(next(ticks))
    run.drain()
    # Ticks: 0 1 sample, 2 first, 3 text; 4 5 step, 6 second, 7 text; 8 9 step, 10 end.
    assert (run.out.first_token_at, run.out.last_token_at) == (2, 10)
    assert run.out.step_seconds == [1, 1]
    assert (run.out.sample_seconds, run.out.detokenise_seconds) == (1, 2)
    still = Run(spells("si"), PROMPT)
    still.out.clock = lambda: 0.0
    assert still.drain().out.first_token_at == 0


def test_a_step_that_fails_counts_no_draft_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """After one whose draft was right. The record of drafts outlives the answer."""
    text = "sinusrhythm" * 4
    ngrams = Ngrams()
    assert Run(spells(text), PROMPT, ngrams, row_cost=0.03).drain().text == text
    outcomes: list[tuple[int, int]] = []
    verified = DraftPolicy.verified

    def watched(policy: DraftPolicy, draft: list[Guess], right: int) -> None:
        outcomes.append((len(draft), right))
        verified(policy, draft, right)

    run = Run(spells(text), PROMPT, ngrams, row_cost=0.03)
    step = run.engine.step

    def fails(rows: Any) -> Floats:
        if len(run.engine.steps) == 2:
            raise EngineError("out of luck")
        return step(rows)

    monkeypatch.setattr(DraftPolicy, "verified", watched)
    monkeypatch.setattr(run.engine, "step", fails)
    with pytest.raises(EngineError, match="out of luck"):
        run.drain()
    assert max(right for _, right in outcomes) > 0
    assert all(right <= drafted for drafted, right in outcomes)
    assert sum(right for _, right in outcomes) == run.out.accepted
