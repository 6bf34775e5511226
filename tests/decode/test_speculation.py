"""Speculation over an engine that counts: the same answers as plain decoding, in fewer steps, never
in many more.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulse_edge.arrays import Floats, Numbers
from pulse_edge.decode.ngrams import Ngrams
from pulse_edge.decode.speculation import ADVANCE, MAX_LOSS, DraftPolicy, Guess, Record, cost
from pulse_edge.params import GenerationParams

from support.counting import CPU, EOS, Logits, Run, after

VOCAB = 24
GPU = 0.03  # row cost


def one_hot(token: int, size: int = VOCAB) -> Floats:
    logits = np.zeros(size, np.float32)
    logits[token] = 1
    return logits


def writes(text: list[int], prompt: int, size: int) -> Logits:
    """A model that writes `text` after a prompt of so many tokens, and nonsense after anything
    else.
    """

    def model(cache: Sequence[int]) -> Floats:
        done = list(cache[prompt:])
        known = len(done) < len(text) and done == text[: len(done)]
        return one_hot(text[len(done)] if known else size - 1, size)

    return model


def noise(seed: int, order: int) -> Logits:
    """A model whose logits depend on the last `order` tokens: its text comes back, then leaves
    again.
    """

    def model(cache: Sequence[int]) -> Floats:
        rng = np.random.default_rng([seed, *(t + 3 for t in cache[-order:]), len(cache) // 9])
        return rng.normal(0, 3, VOCAB).astype(np.float32)

    return model


def report(rng: random.Random, values: int) -> list[int]:
    """The same 240 tokens, but for `values` places of two tokens each."""
    text = [10 + i % 200 for i in range(240)]
    for value in range(values):
        at = (2 * value + 1) * 240 // (2 * values)
        text[at : at + 2] = [rng.randrange(300, 400), rng.randrange(300, 400)]
    return [*text, EOS]


# --- lossless -------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    order=st.integers(1, 3),
    history=st.integers(0, 3),
    prompt=st.lists(st.integers(-3, VOCAB - 1), min_size=1, max_size=12),
    room=st.integers(1, 90),
    row_cost=st.sampled_from([0.001, GPU, CPU, 1.5]),
    params=st.fixed_dictionaries(
        {
            "max_new_tokens": st.integers(1, 80),
            "temperature": st.sampled_from([0.0, 0.0, 0.3, 1.0]),
            "top_k": st.sampled_from([0, 5]),
            "repetition_penalty": st.sampled_from([1.0, 1.0, 1.2]),
            "seed": st.integers(0, 3),
            "stop": st.lists(st.text("abcdefgh", min_size=1, max_size=3), max_size=2),
        }
    ),
)
def test_answers_are_those_of_plain_decoding(
    seed: int,
    order: int,
    history: int,
    prompt: list[int],
    room: int,
    row_cost: float,
    params: dict[str, Any],
) -> None:
    """Tokens, text and reason to stop, whatever was answered before; the cache is right; the loss
    is bounded.
    """
    model, ngrams = noise(seed, order), Ngrams()
    saved = 0.0  # by the answers before
    for before in range(history):
        run = Run(
            model,
            prompt,
            ngrams,
            GenerationParams(**params | {"seed": before, "stop": ()}),
            row_cost=row_cost,
        )
        # What an answer loses is its own: the next one does not pay for it.
        saved = max(0.0, saved) + run.drain().saved
    capacity, sampling = len(prompt) + room, GenerationParams(**params)
    plain = Run(model, prompt, None, sampling, capacity, row_cost).drain()
    fast = Run(model, prompt, ngrams, sampling, capacity, row_cost).drain()
    assert fast.answer == plain.answer
    assert after(fast.engine, prompt, fast.out.tokens)
    steps = len(plain.engine.steps)
    assert set(plain.engine.steps) <= {1}
    assert fast.engine.cost <= steps + max(MAX_LOSS * steps, min(ADVANCE, max(0.0, saved))) + 1e-9
    assert fast.out.drafted == sum(fast.engine.steps) - len(fast.engine.steps)
    assert steps == len(fast.engine.steps) + fast.out.accepted
    assert len(fast.out.step_seconds) == len(fast.engine.steps)


def test_leaving_after_any_piece() -> None:
    """Closed, or asked to stop from outside, also in the middle of an accepted run: within a token,
    cache tidy.
    """
    text = report(random.Random(0), 3)
    model, prompt, ngrams = writes(text, 4, 512), [5, 6, 7, 8], Ngrams()
    Run(model, prompt, ngrams).drain()
    ahead = 0
    for count in range(1, 240, 5):
        for close in (True, False):
            run = Run(model, prompt, ngrams, row_cost=GPU)
            for _ in range(count):
                next(run.pieces)
            ahead += run.engine.length > 4 + count
            if close:
                run.pieces.close()
            else:
                run.out.cancellation.request()
                assert list(run.pieces) == []
            assert run.out.tokens == text[:count]
            assert after(run.engine, prompt, run.out.tokens)
    assert ahead > 30


def test_the_end_token_in_a_draft() -> None:
    """As in a chat, whose prompt holds the answers before with what ended them."""
    text = [*range(30, 52), EOS]
    prompt = [*text, 9, 8, 7]
    run = Run(writes(text, len(prompt), 512), prompt, Ngrams(), row_cost=GPU).drain()
    assert run.answer[:2] == (text[:-1], "eos")
    assert sum(run.engine.steps) > len(text)  # rows for the end token, and for what stood after it
    assert after(run.engine, prompt, run.out.tokens)


def test_an_engine_that_fails_midway() -> None:
    text = report(random.Random(0), 3)
    model, ngrams = writes(text, 1, 512), Ngrams()
    Run(model, [5], ngrams).drain()
    run = Run(model, [5], ngrams, row_cost=GPU)
    step, calls = run.engine.step, itertools.count()

    def failing(rows: Numbers) -> Floats:
        if next(calls) == 5:
            raise RuntimeError
        return step(rows)

    run.engine.step = failing  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        run.drain()
    assert len(run.out.tokens) > 10
    assert after(run.engine, [5], run.out.tokens)


# --- worth it -------------------------------------------------------------------------------------


def answered(texts: list[list[int]], row_cost: float, ngrams: Ngrams) -> Iterator[Run]:
    for text in texts:
        run = Run(writes(text, 3, 512), [5, 6, 7], ngrams, row_cost=row_cost).drain()
        assert run.out.tokens == text[:-1]
        yield run


@pytest.mark.parametrize(
    ("row_cost", "values", "saving"), [(CPU, 0, 2), (CPU, 5, 1.6), (GPU, 0, 10), (GPU, 5, 5)]
)
def test_reports_from_a_template_take_fewer_steps(
    row_cost: float, values: int, saving: float
) -> None:
    """In plain steps; each row that is verified beside the first costs `row_cost` more."""
    rng, ngrams = random.Random(0), Ngrams()
    first, *others = answered([report(rng, values) for _ in range(6)], row_cost, ngrams)
    assert first.engine.cost <= 1.05 * 240
    for run in others:
        assert run.engine.cost * saving < 240


def hostile(rng: random.Random, count: int) -> list[int]:
    """Tokens that come back once, and then each is followed by another one than before."""
    once = [t for i in range(count) for t in (10 + i, 10 + count + i)]
    return once + [t for i in rng.sample(range(count), count) for t in (10 + i, 10 + 2 * count + i)]


@pytest.mark.parametrize("row_cost", [CPU, 0.15, GPU, 0.001])
def test_text_that_always_turns_out_otherwise(row_cost: float) -> None:
    """Every draft is wrong from its first token; soon there are few of them."""
    text = [*hostile(random.Random(0), 150), EOS]
    (run,) = answered([text], row_cost, Ngrams())
    assert run.out.drafted >= 5
    assert run.out.accepted == 0
    assert run.engine.cost <= (1 + MAX_LOSS) * (len(text) - 1)
    drafts = [rows for rows in run.engine.steps if rows > 1]
    assert row_cost < 0.15 or len(drafts) < 75  # of 150 places where there is a guess


def test_text_that_turns_hostile_after_a_good_start() -> None:
    """What drafts have saved may be lost again, but no more; and most of it is not."""
    text = [480 + i % 30 for i in range(200)] + hostile(random.Random(0), 150) + [EOS]
    (run,) = answered([text], CPU, Ngrams())
    assert run.engine.cost < len(text) - 1 - 50


def test_what_answers_saved_is_an_advance_for_the_next() -> None:
    """Drafts begin with the answer then; whatever follows, a sequence of answers loses no more
    than one may.
    """
    text = report(random.Random(0), 0)
    ngrams = Ngrams()
    first, second = answered([text, text], CPU, ngrams)
    starts = [
        next(i for i, rows in enumerate(run.engine.steps) if rows > 1) for run in (first, second)
    ]
    assert second.engine.steps[0] > 1 < starts[0]
    rng = random.Random(0)
    turns = [[*rng.sample(range(300, 340), 40), EOS] for _ in range(30)]
    runs = list(answered([text, *turns], CPU, ngrams))
    assert sum(run.out.drafted for run in runs[1:]) > 20
    assert min(run.saved for run in runs) >= -ADVANCE - 1e-9
    assert max(run.engine.cost / (len(run.out.tokens)) for run in runs) < 1.09
    assert (
        sum(run.saved for run in runs[1:])
        > -MAX_LOSS * sum(len(run.out.tokens) for run in runs[1:]) - ADVANCE
    )


def test_rows_come_in_pairs() -> None:
    """Kernels take two at a time: a draft that is cut, by where it was found or by what there is
    room for, is odd.
    """
    texts = [report(random.Random(i), 9) for i in range(4)]
    rows = {n for run in answered(texts, CPU, Ngrams()) for n in run.engine.steps}
    assert rows - {1} == {n for n in rows if n % 2 == 0}
    prompt, ngrams = [5, 6, 7], Ngrams()
    ngrams.begin([*texts[0][:4], -1, *texts[0]])
    for capacity in range(20, 60):
        run = Run(writes(texts[0], 3, 512), prompt, ngrams, capacity=capacity, row_cost=GPU).drain()
        assert all(n == 1 or n % 2 == 0 for n in run.engine.steps)


def test_text_without_repetition_is_not_drafted() -> None:
    (run,) = answered([[*range(10, 310), EOS]], GPU, Ngrams())
    assert (run.out.drafted, set(run.engine.steps)) == (0, {1})


def test_the_policy_knows_no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [report(random.Random(i), 8) for i in range(4)]
    rows = [run.engine.steps for run in answered(texts, CPU, Ngrams())]
    clock = random.Random(1)
    monkeypatch.setattr(time, "perf_counter", lambda: clock.random() * 1000)
    assert [run.engine.steps for run in answered(texts, CPU, Ngrams())] == rows
    assert len(set(itertools.chain(*rows))) > 2


def test_draft_lengths() -> None:
    """As far as tokens are promised for their time, as the budget allows, and as there is room."""

    def length(drafts: DraftPolicy, *chances: float, tokens: int = 1000, room: int = 99) -> int:
        return len(drafts.choose([Guess(5, chance) for chance in chances], tokens, room))

    sure, likely = [0.95] * 40, [0.6] * 40
    assert [length(DraftPolicy(CPU), *sure, tokens=n) for n in (1, 3, 4, 19, 20, 1000)] == [
        0,
        0,
        1,
        1,
        3,
        5,
    ]
    assert [length(DraftPolicy(CPU), *sure, room=n) for n in (-1, 0, 1, 2, 4, 99)] == [
        0,
        0,
        1,
        1,
        3,
        5,
    ]
    assert length(DraftPolicy(CPU), *likely) == 1
    assert length(DraftPolicy(CPU), *likely[:1], 0.95, 0.95) == 3
    assert length(DraftPolicy(CPU), 0.95, 0.95) == 1  # odd
    assert length(DraftPolicy(CPU), 0.1) == length(DraftPolicy(CPU)) == 0
    assert length(DraftPolicy(GPU), *sure) == 15
    assert length(DraftPolicy(3.0), *sure) == 0
    # against the definition, with and without what the record says of the guesses
    for promised, right, seed in itertools.product((0, 12), (0, 8, 12, 14), range(6)):
        drafts = DraftPolicy(0.2, Record(right=right, promised=promised))
        rng = random.Random(seed)
        trust = (DraftPolicy.PRIOR + right) / (DraftPolicy.PRIOR + promised)
        chances = [rng.uniform(0.3, 1.0) for _ in range(15)]
        worth = {0: 1.0}
        for k in range(1, 16, 2):
            together = [
                float(np.prod([min(0.98, trust * c) for c in chances[:n]])) for n in range(k + 1)
            ]
            worth[k] = sum(together) / (1 + cost(0.2, k))
        assert length(drafts, *chances) == max(worth, key=lambda k: worth[k]), (
            promised,
            right,
            chances,
        )


def test_guesses_that_disappoint_are_trusted_less() -> None:
    """And again more, once they are as right as they say."""
    drafts, one = DraftPolicy(CPU), [Guess(5, 0.75)]
    assert drafts.choose(one, 1000, 9) == one
    for _ in range(30):
        drafts.verified(one, 0)
    assert drafts.choose(one, 100_000, 9) == []
    for _ in range(300):  # steps without a draft
        drafts.verified([], 0)
    assert drafts.choose(one, 100_000, 9) == one
