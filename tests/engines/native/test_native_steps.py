"""Whole tiny decoders in emulation against float64, step by step."""

from __future__ import annotations

import numpy as np
import pytest

from pulse_edge.engines.native import kernels
from pulse_edge.engines.native.kernels import HEAD_SIZES, MOST_ROWS
from pulse_edge.engines.native.steps import Matrix, StepBuilder, refusal, scaled_gain

from support.emulated_device import EmulatedDevice
from support.emulation import Kind, Workshop
from support.native_decoder import Decoder, Storage, tiny_text

GROUPED = tiny_text()
ONE_KV_HEAD = tiny_text(heads=8, kv_heads=1, head_size=32, vocab=192)
WIDE_HEADS = tiny_text(heads=2, kv_heads=2, head_size=128)
CAPACITY = 150


class Run:
    """A decoder on a device, and the same in float64."""

    def __init__(self, workshop: Workshop, decoder: Decoder, splits: int | None = None) -> None:
        self._decoder = decoder
        self._device = EmulatedDevice(workshop)
        weights = decoder.weights_on(self._device)
        cache = decoder.cache_on(self._device)
        builder = StepBuilder(decoder.text, weights, cache, self._device, splits)
        self._device.memory.mark(builder.numbers, "inputs", Kind.READ_EARLY)
        self._builder = builder
        self._generator = np.random.default_rng(1)
        self._steps = 0

    def step(self, slots: list[int]) -> None:
        """Tokens after those of each slot."""
        decoder, builder, device = self._decoder, self._builder, self._device
        rows, vocab = len(slots), decoder.text.vocab
        numbers = self._generator.integers(0, vocab + 3, rows)
        row_slots = np.array(slots, np.int32)
        inputs = np.full(12 * MOST_ROWS + 4 * len(decoder.lengths), 0xFF, np.uint8)
        inputs[: 8 * rows] = numbers.astype(np.int64).view(np.uint8)
        inputs[8 * MOST_ROWS :][: 4 * rows] = row_slots.view(np.uint8)
        inputs[12 * MOST_ROWS :] = decoder.lengths.view(np.uint8)
        device.write(builder.numbers, inputs)
        device.write(builder.logits, np.full((MOST_ROWS, vocab), np.nan, np.float32))
        self._steps += 1
        device.run(builder.launches(rows, len(set(slots))), seed=100 * self._steps)
        expected = decoder.step(numbers, row_slots)
        logits = device.memory.read(builder.logits, (rows, vocab), np.float32)
        tokens = device.memory.read(builder.tokens, (rows,), np.int64)
        assert np.abs(logits - expected).max() < 0.03 * expected.std(), (self._steps, slots)
        assert (tokens == logits.argmax(-1)).all()


def play(run: Run, decoder: Decoder) -> None:
    """Single tokens, drafts, rewinds, two slots that take turns, and a cache that fills up."""
    for slots in ([0], [0], [0] * 8, [0] * 5, [1] * 8):
        run.step(slots)
    decoder.lengths[0] = 9  # drafts are refused
    for slots in ([0] * 3, [0, 1], [1, 1, 1, 0, 0], [0]):
        run.step(slots)
    decoder.lengths[1] = 0  # another prompt
    for slots in ([1] * 2 + [0] * 6, *[[0] * 8] * 6, [0], [1] * 7 + [0]):
        run.step(slots)


@pytest.mark.parametrize("byte_cache", [False, True], ids=["halves", "bytes"])
@pytest.mark.parametrize(
    ("text", "storage"),
    [
        pytest.param(GROUPED, Storage(4, 128, 4, 128), id="int4:128-64x4"),
        pytest.param(ONE_KV_HEAD, Storage(4, 32, 8, 64), id="int4:32-32x8"),
        pytest.param(WIDE_HEADS, Storage(8, 64, 16, 0), id="int8:64-128x2"),
        pytest.param(GROUPED, Storage(16, 0, 8, 128), id="fp16-64x4"),
        pytest.param(ONE_KV_HEAD, Storage(4, 64, 16, 0), id="int4:64-32x8"),
    ],
)
def test_decoders(
    workshop: Workshop,
    monkeypatch: pytest.MonkeyPatch,
    text: object,
    storage: Storage,
    byte_cache: bool,
) -> None:
    monkeypatch.setattr(kernels, "LEAST_OF_SPLIT", 16)  # so that 60 positions are split
    decoder = Decoder(text, storage, 2, CAPACITY, byte_cache)  # type: ignore[arg-type]
    play(Run(workshop, decoder, splits=3), decoder)


def test_the_last_position(workshop: Workshop) -> None:
    decoder = Decoder(GROUPED, Storage(4, 128, 4, 128), 1, 17)
    run = Run(workshop, decoder)
    for slots in ([0] * 8, [0] * 8, [0]):
        run.step(slots)
    assert decoder.lengths[0] == 17


def test_gains_are_scaled_by_powers_of_two() -> None:
    gain = np.array([0.013, -0.001, 0.0], np.float16)
    scaled, factor = scaled_gain(gain)
    assert factor == 2.0**-7
    assert (scaled.astype(np.float64) * factor == gain).all()
    assert 1 <= np.abs(scaled).max() < 2
    assert scaled_gain(np.zeros(3, np.float16))[1] == 1


@pytest.mark.parametrize(
    ("matrix", "reason"),
    [
        (Matrix(1, 2, 256, 256, 4, 128), None),
        (Matrix(1, 2, 256, 256, 2, 128), "2 bits"),
        (Matrix(1, 2, 256, 256, 4, 256), "blocks of 256"),
        (Matrix(1, 2, 256, 320, 4, 64), "320 inputs"),
        (Matrix(1, 2, 100, 256, 4, 64), "100 outputs"),
        (Matrix(1, 0, 48, 256, 16, 0), "48 outputs"),
    ],
)
def test_decoders_that_the_kernels_cannot_run(matrix: Matrix, reason: str | None) -> None:
    answer = refusal(GROUPED, {"qkv": matrix})
    assert answer is None if reason is None else answer and reason in answer
    assert 96 not in HEAD_SIZES
    assert refusal(tiny_text(head_size=96), {}) is not None
