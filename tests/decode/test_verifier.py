"""The steps of an answer: how many rows each has, and what an engine may not return."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import pytest

from pulse_edge.arrays import Floats, Numbers
from pulse_edge.decode.handover import Handover
from pulse_edge.decode.ngrams import Ngrams
from pulse_edge.decode.result import Generation
from pulse_edge.decode.sampler import Sampler
from pulse_edge.decode.verifier import Verifier
from pulse_edge.engines.engine import Engine
from pulse_edge.errors import EngineError
from pulse_edge.params import GenerationParams

from support.counting import EOS, Counting, Run, after

SIZE = 64
TEXT = [*range(10, 50), EOS]


def model(cache: Sequence[int]) -> Floats:
    """Counts up from the last token."""
    logits = np.zeros(SIZE, np.float32)
    logits[min(cache[-1] + 1, SIZE - 1) if cache[-1] < 49 else EOS] = 1
    return logits


def known() -> Ngrams:
    """A memory that has read the answer twice, so that it drafts all of it."""
    ngrams = Ngrams()
    for _ in range(2):
        ngrams.begin([9, *TEXT])
    ngrams.record.saved = 2.0
    return ngrams


def run(tokens: int, capacity: int = 1000, rows: int = 16) -> Run:
    """An answer of so many tokens by an engine that takes so many rows in a step."""
    params = GenerationParams(max_new_tokens=tokens)
    answer = Run(model, [9], known(), params, capacity, row_cost=0.001)
    answer.engine.most_rows = rows
    return answer.drain()


@pytest.mark.parametrize(
    ("tokens", "rows"),
    # The first token comes from the prompt's logits; a draft leaves one token to be sampled after.
    [(1, []), (2, [1]), (3, [2]), (4, [2, 1]), (5, [4]), (6, [4, 1]), (9, [8]), (17, [16])],
)
def test_a_draft_ends_where_the_answer_does(tokens: int, rows: list[int]) -> None:
    answer = run(tokens)
    assert answer.out.tokens == TEXT[:tokens]
    assert answer.engine.steps == rows


@pytest.mark.parametrize(
    ("capacity", "rows"), [(2, [1]), (3, [2]), (4, [2, 1]), (5, [4]), (9, [8]), (17, [16])]
)
def test_a_draft_ends_where_the_context_does(capacity: int, rows: list[int]) -> None:
    answer = run(1000, capacity)
    assert answer.engine.steps == rows
    assert answer.out.finish_reason == "context"
    assert answer.engine.length == capacity


@pytest.mark.parametrize(("rows", "most"), [(1, 1), (2, 2), (3, 2), (4, 4), (8, 8), (16, 16)])
def test_a_step_has_no_more_rows_than_the_engine_takes(rows: int, most: int) -> None:
    answer = run(40, rows=rows)
    assert max(answer.engine.steps) == most
    assert answer.out.tokens == TEXT[:40]
    assert after(answer.engine, [9], answer.out.tokens)


def test_what_is_drafted_is_not_offered() -> None:
    """Nor is anything without somebody to offer it to."""
    params = GenerationParams(max_new_tokens=40)
    for handover in (None, Handover(0)):
        engine = cast(Engine, Counting(model, [9], row_cost=0.001))
        verifier = Verifier(engine, params, Generation(), known(), Sampler(params), handover)
        assert verifier.offer(10) is (handover is not None)
        assert verifier.after(10) == 11  # and 12 to 24 are drafted
        assert verifier.offer(11) is False
        assert handover is None or handover.token is None


def test_what_was_drafted_in_vain_leaves_the_cache_before_the_step_is_offered() -> None:
    handover = Handover(0)
    engine = Counting(model, [9], row_cost=0.001)
    params = GenerationParams(max_new_tokens=40)
    out = Generation()
    verifier = Verifier(cast(Engine, engine), params, out, known(), Sampler(params), handover)
    assert verifier.after(10) == 11
    assert len(engine.cache) == 2 + 15  # the prompt, the token and its draft
    assert verifier.offer(30) is True
    assert (handover.token, handover.needs_logits) == (30, False)
    assert engine.cache == [9, 10]
    handover.give(np.array([31]), 0.5)
    assert verifier.after(30) == 31
    assert out.step_seconds[1:] == [0.5]
    assert engine.steps == [16]
    assert verifier.offer(31) is True
    verifier.settle()  # the answer is over
    assert handover.token is None


@pytest.mark.parametrize("speculating", [False, True])
def test_a_token_below_0_is_no_token(speculating: bool) -> None:
    """Engines return it for logits that are not finite."""
    answer = Run(model, [9], known() if speculating else None, row_cost=0.001)

    def choose(rows: Numbers) -> Numbers:
        answer.engine.step(rows)
        return np.full(len(rows), -1)

    answer.engine.choose = choose  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="logits are not finite"):
        answer.drain()
    assert answer.out.tokens == TEXT[:1]


def test_a_draft_is_counted_once_though_the_next_step_fails() -> None:
    """The record of drafts outlives the answer."""
    ngrams = known()
    answer = Run(model, [9], ngrams, GenerationParams(max_new_tokens=40), row_cost=0.001)
    choose = answer.engine.choose

    def failing(rows: Numbers) -> Numbers:
        if answer.engine.steps:
            raise RuntimeError
        return choose(rows)

    answer.engine.choose = failing  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        answer.drain()
    assert answer.engine.steps == [16]
    assert ngrams.record.right == pytest.approx(15 * 0.99)
