"""One slot of an engine's cache: what it claims to hold is what it holds, whatever goes wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.decode.sequence import Pieces, Sequence
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.errors import ContextError, EngineError
from pulse_edge.text.template import IMAGE, Prompt, prompt_rows, render

CAPACITY = 64


@pytest.fixture
def sequence(bundle: Path) -> Sequence:
    options = EngineOptions(threads=1, context=CAPACITY, prefill_chunk=8)
    return Sequence(open_engine(open_bundle(bundle), options))


def text(*ids: int) -> Prompt:
    return render(ids)


def fail_after_a_step(sequence: Sequence, tokens: list[int], error: BaseException) -> None:
    sequence.engine.step(sequence.engine.rows(np.array(tokens)))
    raise error


def filled(sequence: Sequence, *ids: int) -> np.ndarray:
    """The logits after a prompt, of which the cache has computed as little as it must."""
    prompt = text(*ids)
    sequence.rewind_to(prompt)
    logits = sequence.prefill(prompt, None, None).copy()
    assert sequence.keys == list(ids)
    assert sequence.engine.length == len(ids)
    return logits


def test_token_0_is_no_image() -> None:
    assert text(0, 1).image_tokens == 0
    assert render((0, IMAGE), -1, np.array([512])).image_tokens == 1


# --- prompts -------------------------------------------------------------------------------------


def test_the_placeholder_expands_to_keys_and_rows() -> None:
    image = np.array([500, 501, 499])
    prompt = render((1, 7, IMAGE, 8), -99, image)
    assert prompt.keys == [1, 7, -99, -99, -99, 8]
    assert prompt.rows.tolist() == [1, 7, 500, 501, 499, 8]
    assert prompt.rows.dtype == np.int64
    assert prompt.image_tokens == 3
    assert text(1, 7, 8).keys == text(1, 7, 8).rows.tolist() == [1, 7, 8]
    assert text(1, 7, 8).image_tokens == 0


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([IMAGE, 5], [90, 91, 5]),
        ([5, IMAGE], [5, 90, 91]),
        ([IMAGE, 5, IMAGE], [90, 91, 5, 90, 91]),
        ([5, 6], [5, 6]),
        ([], []),
    ],
)
def test_rows_of_placeholders_anywhere(ids: list[int], expected: list[int]) -> None:
    assert prompt_rows(ids, np.array([90, 91])).tolist() == expected


# --- what is shared ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("following", "shared"),
    [
        ((1, 5, 6, 7, 8), 4),
        ((1, 5, 6, 7), 3),  # the last one must run, for its logits
        ((1, 5, 6), 2),
        ((1, 5, 9, 7), 2),
        ((2, 5, 6, 7), 0),
    ],
)
def test_what_two_prompts_share_is_kept(
    sequence: Sequence, following: tuple[int, ...], shared: int
) -> None:
    filled(sequence, 1, 5, 6, 7)
    assert sequence.rewind_to(text(*following)) == shared
    assert sequence.keys == [1, 5, 6, 7][:shared]
    assert sequence.engine.length == shared
    logits = filled(sequence, *following)
    sequence.rewind(0)
    assert np.allclose(logits, filled(sequence, *following), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("keys", "end"),
    [
        ([], 0),
        ([1, 2], 0),
        ([0, 0], 0),
        ([-5], 1),
        ([1, -5, -5, 2, 3], 3),
        ([1, -5, 2, -6, -6], 5),
    ],
)
def test_where_a_page_ends(sequence: Sequence, keys: list[int], end: int) -> None:
    sequence.keys = keys
    assert sequence.page_end == end


@pytest.mark.parametrize(
    ("following", "known"),
    [
        ((1, 5, 6, 7, 8), 4),
        ((1, 5, 6, 7), 3),
        ((1, 5, 9, 7), 2),
        ((1,), 0),
        ((2, 5, 6, 7), 0),
    ],
)
def test_what_need_not_be_computed(
    sequence: Sequence, following: tuple[int, ...], known: int
) -> None:
    """The last token of a prompt always is, for its logits."""
    filled(sequence, 1, 5, 6, 7)
    assert sequence.known(list(following)) == known


def test_a_sequence_is_in_the_first_slot_and_keeps_no_copies(sequence: Sequence) -> None:
    assert (sequence.slot, sequence.kept.budget) == (0, 0)


@pytest.mark.parametrize("length", [CAPACITY, CAPACITY + 9])
def test_a_prompt_that_does_not_fit_changes_nothing(sequence: Sequence, length: int) -> None:
    filled(sequence, 1, 5, 6)
    prompt = render((1, 5, IMAGE), -7, np.arange(500, 500 + length - 2))
    message = (
        rf"{length} tokens \({length - 2} of the image, 2 of text\) and the context {CAPACITY}"
    )
    with pytest.raises(ContextError, match=message):
        sequence.rewind_to(prompt)
    assert (sequence.keys, sequence.engine.length) == ([1, 5, 6], 3)
    filled(sequence, *range(1, CAPACITY))


def test_a_page_of_one_token_is_read(sequence: Sequence) -> None:
    """Its only row is the first after those of the embedding table."""
    engine = sequence.engine
    width = engine.rows(np.array([5])).shape[-1]
    features = np.random.default_rng(0).normal(0, 1, (1, 1, width)).astype(np.float32)
    prompt = render((1, IMAGE, 5), -9, np.array([engine.table_rows]))
    sequence.rewind_to(prompt)
    assert sequence.needs_page(prompt) is True
    logits = sequence.prefill(prompt, features).copy()
    assert sequence.needs_page(prompt) is False
    sequence.rewind(0)
    sequence.rewind_to(prompt)
    other = sequence.prefill(prompt, 2 * features)
    assert not np.allclose(logits, other)


# --- pieces ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "pauses"), [(8, 0), (9, 1), (16, 1), (17, 2), (40, 4)])
def test_a_prefill_may_pause_between_two_pieces(
    sequence: Sequence, length: int, pauses: int
) -> None:
    prompt = text(*range(20, 20 + length))
    held: list[int] = []
    pieces = Pieces(8, lambda: held.append(len(sequence.keys)))
    sequence.rewind_to(prompt)
    logits = sequence.prefill(prompt, pieces=pieces).copy()
    assert held == [8 * (number + 1) for number in range(pauses)]
    sequence.rewind(0)
    assert np.allclose(logits, filled(sequence, *prompt.keys), rtol=1e-4, atol=1e-4)


def test_a_prefill_in_pieces_tells_of_the_whole(sequence: Sequence) -> None:
    """Chunks of 8 rows in pieces of 16: no piece but the first begins anew."""
    prompt = text(*range(20, 60))
    told: list[tuple[str, int, int]] = []
    sequence.rewind_to(prompt)
    pieces = Pieces(16, lambda: None)
    sequence.prefill(prompt, progress=lambda *step: told.append(step), pieces=pieces)
    assert told == [("prefill", done, 40) for done in (0, 8, 8, 8, 8, 8)]


# --- what goes wrong -----------------------------------------------------------------------------


def test_a_prefill_that_is_stopped_keeps_what_was_shared(sequence: Sequence) -> None:
    class Stop(BaseException):
        pass

    filled(sequence, 1, 5, 6, 7)
    longer = text(1, 5, *range(20, 50))
    calls: list[int] = []

    def progress(stage: str, done: int, total: int) -> None:
        calls.append(done)
        if len(calls) == 3:
            raise Stop

    sequence.rewind_to(longer)
    with pytest.raises(Stop):
        sequence.prefill(longer, None, progress)
    assert calls == [0, 8, 8]
    assert (sequence.keys, sequence.engine.length) == ([1, 5], 2)
    logits = filled(sequence, *longer.keys)
    sequence.rewind(0)
    assert np.allclose(logits, filled(sequence, *longer.keys), rtol=1e-4, atol=1e-4)


def test_a_prefill_that_fails_empties_the_slot(
    sequence: Sequence, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(sequence, 1, 5, 6, 7)

    def fails(*_: Any, **__: Any) -> None:
        raise EngineError("out of luck")

    prompt = text(1, 5, 6, 9)
    sequence.rewind_to(prompt)
    with monkeypatch.context() as patch:
        patch.setattr(sequence.engine, "prefill", fails)
        with pytest.raises(EngineError, match="out of luck"):
            sequence.prefill(prompt, None, None)
    assert (sequence.keys, sequence.engine.length) == ([], 0)


def test_an_answer_becomes_part_of_the_keys_as_far_as_it_was_run(sequence: Sequence) -> None:
    filled(sequence, 1, 5, 6)
    tokens: list[int] = []
    with sequence.appending(tokens):
        for token in (8, 9, 10):
            tokens.append(token)
            if token != 10:  # the last one sampled is never run
                sequence.engine.step(sequence.engine.rows(np.array([token])))
    assert sequence.keys == [1, 5, 6, 8, 9]
    assert sequence.engine.length == 5


@pytest.mark.parametrize("error", [EngineError("no"), KeyboardInterrupt()])
def test_a_failure_while_decoding_empties_the_slot(
    sequence: Sequence, error: BaseException
) -> None:
    filled(sequence, 1, 5, 6)
    tokens = [8]
    with pytest.raises(type(error)), sequence.appending(tokens):
        fail_after_a_step(sequence, tokens, error)
    assert (sequence.keys, sequence.engine.length) == ([], 0)


def test_an_engine_that_cannot_even_be_reset(
    sequence: Sequence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first error is the one that is told, and nothing is claimed to be in the cache."""

    def fails() -> None:
        raise EngineError("reset")

    filled(sequence, 1, 5, 6)
    monkeypatch.setattr(sequence.engine, "reset", fails)
    with pytest.raises(EngineError, match="first"), sequence.appending([]):
        raise EngineError("first")
    assert sequence.keys == []
