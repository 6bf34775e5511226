"""Steps of several slots in one pass: each slot gets what it would get alone, wherever it lies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pulse_edge.arrays import Floats
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.engines.engine import Engine
from pulse_edge.engines.onnxruntime_shared import neighbours
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.errors import EngineError

from support.fixture_types import Bundles, Checkpoints

SLOTS = 5
CAPACITY = 24
LENGTHS = (3, 11, 1, 7, 19)


def opened(path: Path, slots: int = SLOTS, context: int = CAPACITY) -> Engine:
    return open_engine(open_bundle(path), EngineOptions(threads=1, context=context, slots=slots))


class Filled:
    """An engine whose slots hold prompts of known lengths, and one that knows each slot alone."""

    def __init__(self, path: Path) -> None:
        rng = np.random.default_rng(0)
        self.engine = opened(path)
        self.alone = opened(path, slots=1)
        self.held = [rng.integers(3, 500, length) for length in LENGTHS]
        for slot, tokens in enumerate(self.held):
            self.engine.prefill(self.engine.rows(tokens), slot=slot)

    def append(self, slots: list[int], seed: int) -> np.ndarray:
        """Random tokens for some slots, noted as held."""
        tokens = np.random.default_rng(seed).integers(3, 500, len(slots))
        for slot, token in zip(slots, tokens, strict=True):
            self.held[slot] = np.append(self.held[slot], token)
        return tokens

    def expected(self, slot: int, rows: int = 1) -> Floats:
        """Logits after the last rows of a slot, computed by itself."""
        engine = self.alone
        engine.rewind(0)
        tokens = self.held[slot]
        engine.prefill(engine.rows(tokens[:-rows]))
        return engine.step(engine.rows(tokens[-rows:])).copy()

    def lengths(self) -> list[int]:
        return [cursor.length for cursor in self.engine.cursors]


@pytest.fixture
def filled(bundle: Path) -> Filled:
    return Filled(bundle)


@pytest.mark.parametrize(
    "slots",
    [
        [0], [3], [4], [0, 1], [1, 0], [1, 2], [3, 4], [0, 2], [0, 3], [4, 0], [2, 4, 3],
        [0, 1, 2], [4, 2, 0], [0, 1, 4], [1, 2, 3, 4], [3, 1, 2, 0], [0, 1, 2, 3, 4],
        [4, 3, 2, 1, 0],
    ],
)  # fmt: skip
def test_each_slot_gets_the_logits_it_gets_alone(filled: Filled, slots: list[int]) -> None:
    before = filled.lengths()
    for seed in range(2):
        tokens = filled.append(slots, seed)
        rows = filled.engine.rows(tokens)
        logits = filled.engine.step(rows, np.array(slots)).copy()
        assert logits.shape == (len(slots), 512)
        for row, slot in enumerate(slots):
            np.testing.assert_allclose(logits[row], filled.expected(slot)[0], atol=2e-5)
    grown = [length + 2 * (slot in slots) for slot, length in enumerate(before)]
    assert filled.lengths() == grown
    for slot in range(SLOTS):  # also those that only lay between
        token = filled.append([slot], 9)
        alone = filled.engine.step(filled.engine.rows(token), slot)
        np.testing.assert_allclose(alone, filled.expected(slot), atol=2e-5)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantized_slots_choose_the_same_tokens(bundles: Bundles, precision: str) -> None:
    """Their logits may move by a level of an activation, because more rows take another kernel."""
    filled = Filled(bundles(precision))
    slots = [0, 2, 3, 4]
    for seed in range(4):
        rows = filled.engine.rows(filled.append(slots, seed))
        logits = filled.engine.step(rows, np.array(slots)).copy()
        for row, slot in enumerate(slots):
            expected = filled.expected(slot)[0]
            np.testing.assert_allclose(logits[row], expected, atol=0.08 * float(expected.std()))
            assert logits[row].argmax() == expected.argmax()


def test_a_byte_cache_has_slots_too(bundles: Bundles) -> None:
    filled = Filled(bundles("fp32", cache="int8"))
    slots = [1, 3, 4]
    logits = filled.engine.step(filled.engine.rows(filled.append(slots, 0)), np.array(slots)).copy()
    for row, slot in enumerate(slots):
        np.testing.assert_allclose(logits[row], filled.expected(slot)[0], atol=2e-5)


def test_chosen_tokens_are_the_likeliest(filled: Filled) -> None:
    slots = [2, 0, 3]
    chosen = filled.engine.choose(filled.engine.rows(filled.append(slots, 3)), np.array(slots))
    assert chosen.tolist() == [int(filled.expected(slot)[0].argmax()) for slot in slots]


@pytest.mark.parametrize("slots", [[0, 0], [1, 0, 1], [3, 3, 3], [2, 4, 2, 4]])
def test_several_rows_of_a_slot_get_its_next_positions(filled: Filled, slots: list[int]) -> None:
    tokens = filled.append(slots, 5)
    logits = filled.engine.step(filled.engine.rows(tokens), np.array(slots)).copy()
    for slot in {*slots}:
        rows = [row for row, of in enumerate(slots) if of == slot]
        np.testing.assert_allclose(logits[rows], filled.expected(slot, len(rows)), atol=2e-5)


@pytest.mark.parametrize("between", [1, 2])
def test_a_full_slot_between_two_keeps_what_it_holds(filled: Filled, between: int) -> None:
    """It cannot take a row that nobody reads, so two passes run."""
    engine = filled.engine
    room = CAPACITY - engine.cursors[between].length
    filled.append([between] * room, 0)
    engine.prefill(engine.rows(filled.held[between][-room:]), slot=between)
    slots = [0, 3]
    logits = engine.step(engine.rows(filled.append(slots, 1)), np.array(slots)).copy()
    for row, slot in enumerate(slots):
        np.testing.assert_allclose(logits[row], filled.expected(slot)[0], atol=2e-5)
    engine.rewind(CAPACITY - 1, between)
    last = engine.step(engine.rows(filled.held[between][-1:]), between)
    np.testing.assert_allclose(last, filled.expected(between), atol=2e-5)


@pytest.mark.parametrize("run", ["step", "choose"])
def test_a_row_that_does_not_fit_moves_no_slot(filled: Filled, run: str) -> None:
    engine = filled.engine
    room = CAPACITY - engine.cursors[4].length
    engine.prefill(engine.rows(np.full(room, 5)), slot=4)
    before = filled.lengths()
    with pytest.raises(EngineError, match="25 tokens do not fit a cache of 24"):
        getattr(engine, run)(engine.rows(np.array([7, 8, 9])), np.array([0, 4, 2]))
    with pytest.raises(EngineError, match="do not fit"):
        getattr(engine, run)(engine.rows(np.array([7, 8, 9])), np.array([0, 0, 4]))
    assert filled.lengths() == before


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        ([0, 5], "slots 0 to 4"),
        ([-1, 1], "slots 0 to 4"),
        ([0, 1, 2], "3 slots for 2 rows"),
        ([0], "1 slots for 2 rows"),
    ],
)
def test_slots_that_are_not_there(filled: Filled, slots: list[int], message: str) -> None:
    before = filled.lengths()
    with pytest.raises(ValueError, match=message):
        filled.engine.step(filled.engine.rows(np.array([7, 8])), np.array(slots))
    assert filled.lengths() == before


@pytest.mark.parametrize("slot", [5, -1, 64])
def test_calls_to_a_slot_that_is_not_there(filled: Filled, slot: int) -> None:
    engine = filled.engine
    rows = engine.rows(np.array([7]))
    calls: tuple[Callable[[], Any], ...] = (
        lambda: engine.prefill(rows, slot=slot),
        lambda: engine.step(rows, slot),
        lambda: engine.choose(rows, slot),
        lambda: engine.rewind(0, slot),
        lambda: engine.reset(slot),
        lambda: engine.copy(1, slot, 0),
        lambda: engine.copy(1, 0, slot),
    )
    for call in calls:
        with pytest.raises(ValueError, match="slots 0 to 4"):
            call()


def test_rows_of_another_kind_are_refused(filled: Filled) -> None:
    with pytest.raises(ValueError, match=r"rows are of shape"):
        filled.engine.step(np.array([7, 8]), np.array([0, 1]))


def test_a_slot_is_saved_restored_and_copied_by_itself(filled: Filled) -> None:
    engine = filled.engine
    saved = engine.save(6, 1)
    assert saved.nbytes == engine.saved_size(6) > 0
    engine.reset(1)
    assert filled.lengths() == [3, 0, 1, 7, 19]
    engine.restore(saved, 6, 2)
    engine.copy(5, 2, 0)
    assert filled.lengths() == [5, 0, 6, 7, 19]
    filled.held[0], filled.held[2] = filled.held[1][:5], filled.held[1][:6]
    for slot in (0, 2, 3):
        token = filled.append([slot], 4)
        got = engine.step(engine.rows(token), slot)
        np.testing.assert_allclose(got, filled.expected(slot), atol=2e-5)
    with pytest.raises(ValueError, match="it has fewer"):
        engine.copy(9, 3, 0)


def test_the_first_slot_of_many_gives_the_bytes_of_the_only_one(bundle: Path) -> None:
    """What runs alone runs the same graph with the same shapes."""
    many, one = opened(bundle), opened(bundle, slots=1)
    tokens = np.arange(5, 16)
    for slot in range(SLOTS):
        one.rewind(0)
        assert np.array_equal(
            many.prefill(many.rows(tokens), slot=slot), one.prefill(one.rows(tokens))
        )
        rows = many.rows(tokens[:3])
        assert np.array_equal(many.step(rows, slot), one.step(rows))
        assert np.array_equal(many.step(rows[:1], slot), one.step(rows[:1]))
    assert "slots" not in one.describe()
    assert many.describe()["slots"] == SLOTS


@pytest.mark.parametrize(
    ("slots", "full", "gap", "groups"),
    [
        ([2], [], 2, [[2]]),
        ([0, 1], [], 2, [[0, 1]]),
        ([0, 2], [], 2, [[0, 2]]),
        ([0, 3], [], 2, [[0, 3]]),
        ([0, 4], [], 2, [[0], [4]]),
        ([0, 2], [], 0, [[0], [2]]),
        ([0, 2], [1], 2, [[0], [2]]),
        ([0, 3, 4], [2], 2, [[0], [3, 4]]),
        ([0, 1, 5, 6], [], 2, [[0, 1], [5, 6]]),
        ([0, 3, 6], [], 2, [[0, 3, 6]]),
        ([0, 1, 2, 3], [0, 1, 2, 3], 2, [[0, 1, 2, 3]]),
    ],
)
def test_groups_of_slots(
    slots: list[int], full: list[int], gap: int, groups: list[list[int]]
) -> None:
    assert neighbours(slots, lambda slot: slot not in full, gap) == groups


@pytest.mark.parametrize(("precision", "target"), [("fp16", "cuda"), ("fp32", "standard")])
def test_other_targets_have_one_slot(bundles: Bundles, precision: str, target: str) -> None:
    path = bundles(precision, None, target)
    with pytest.raises(EngineError, match=r"4 slots, but .* has one .*; use --slots 1, or export"):
        open_engine(open_bundle(path), EngineOptions("cpu", threads=1, slots=4))
    assert len(open_engine(open_bundle(path), EngineOptions("cpu", threads=1)).cursors) == 1


@pytest.fixture(scope="module")
def old_bundle(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As exports wrote it before: its decoder takes one sequence."""
    pytest.importorskip("onnx", reason="exporting needs pulse-edge[export]")
    from pulse_export.pipeline import export
    from pulse_export.targets import onnxruntime

    path = tmp_path_factory.mktemp("old") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime, "CPU", replace(onnxruntime.CPU, batched=False))
        export(checkpoints(), path, precision="fp32")
    return path


def test_a_bundle_of_before_has_one_slot(old_bundle: Path) -> None:
    with pytest.raises(EngineError, match=r"older pulse-edge.* export the checkpoint again, or us"):
        opened(old_bundle, slots=2)


def test_a_bundle_of_before_gives_the_bytes_of_a_new_one(bundle: Path, old_bundle: Path) -> None:
    old, new = opened(old_bundle, slots=1), opened(bundle, slots=1)
    tokens = np.arange(5, 18)
    assert np.array_equal(old.prefill(old.rows(tokens)), new.prefill(new.rows(tokens)))
    for rows in (1, 2, 5):
        part = old.rows(tokens[:rows])
        assert np.array_equal(old.step(part), new.step(part))
