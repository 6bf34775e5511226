"""A tiny random Llama decoder: on a device as the kernels want it, and in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.bundle.spec import TextSpec
from pulse_edge.engines.native.kernels import Epilogue, Product
from pulse_edge.engines.native.steps import (
    ByteCache,
    Gain,
    Layer,
    Matrix,
    SharedCache,
    Weights,
    scaled_gain,
)

from support.attention_runs import attended, restored, rotated, rounded
from support.emulated_device import EmulatedDevice
from support.emulation import Kind
from support.kernel_reference import Weights as Stored
from support.kernel_reference import random_weights, silu

Array = NDArray[Any]
CONSTANT = Kind.READ_ONLY
NAMES = ("qkv", "output", "gate", "up", "down")


def tiny_text(heads: int = 4, kv_heads: int = 2, head_size: int = 64, **sizes: int) -> TextSpec:
    fields: dict[str, Any] = {"hidden": 256, "layers": 2, "ffn": 384, "vocab": 160, **sizes}
    return TextSpec(
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        eps=1e-5,
        rope_theta=10000.0,
        context=512,
        bos=1,
        eos=(2,),
        **fields,
    )


@dataclass(frozen=True)
class Storage:
    """How matrices are stored: of layers, and of the head."""

    bits: int
    block: int
    head_bits: int
    head_block: int


class Decoder:
    """Random weights and, for each slot, what a float64 decoder has seen.

    Attributes:
        text: its geometry.
        keys: [layers][slots, kv_heads, capacity, head_size] float64.
        values: the same.
        lengths: [slots], filled positions.
    """

    def __init__(
        self,
        text: TextSpec,
        storage: Storage,
        slots: int,
        capacity: int,
        byte_cache: bool = False,
        seed: int = 0,
    ) -> None:
        self.text = text
        self._byte_cache = byte_cache
        self._storage = storage
        self._generator = np.random.default_rng(seed)
        hidden, width = text.hidden, text.heads * text.head_size
        qkv = width + 2 * text.kv_heads * text.head_size
        self._sizes = {
            "qkv": (qkv, hidden),
            "output": (hidden, width),
            "gate": (text.ffn, hidden),
            "up": (text.ffn, hidden),
            "down": (hidden, text.ffn),
        }
        self._layers = [
            {name: self._stored(*size) for name, size in self._sizes.items()}
            for _ in range(text.layers)
        ]
        self._head = self._stored(text.vocab, hidden, head=True)
        self._gains = [self._gain(0.05 if i == 0 else 1) for i in range(2 * text.layers + 1)]
        self._table = (0.5 * self._generator.normal(size=(text.vocab + 3, hidden))).astype(
            np.float16
        )
        half = text.head_size // 2
        angles = np.outer(np.arange(capacity), text.rope_theta ** (-np.arange(half) / half))
        self._cosines = np.cos(angles).astype(np.float16)
        self._sines = np.sin(angles).astype(np.float16)
        self.shape = (slots, text.kv_heads, capacity, text.head_size)
        self.keys = [np.full(self.shape, np.nan) for _ in range(text.layers)]
        self.values = [np.full(self.shape, np.nan) for _ in range(text.layers)]
        self.lengths = np.zeros(slots, np.int32)

    def weights_on(self, device: EmulatedDevice) -> Weights:
        """All weights as device memory."""

        def matrix(name: str, w: Stored, head: bool = False) -> Matrix:
            n, k = w.values.shape
            bits, block = self._of(head)
            codes = device.put(name, w.codes, CONSTANT)
            scales = device.put(f"{name} scales", w.scales, CONSTANT) if block else 0
            return Matrix(codes, scales, n, k, bits, block)

        def gain(number: int) -> Gain:
            scaled, factor = scaled_gain(self._gains[number])
            return Gain(device.put(f"gain {number}", scaled, CONSTANT), factor)

        layers = []
        for number, layer in enumerate(self._layers):
            qkv, output, gate, up, down = (matrix(f"{n} {number}", layer[n]) for n in NAMES)
            gains = gain(2 * number), gain(2 * number + 1)
            layers.append(Layer(gains[0], qkv, output, gains[1], gate, up, down))
        return Weights(
            table=device.put("table", self._table, Kind.READ_EARLY),
            cosines=device.put("cosines", self._cosines, CONSTANT),
            sines=device.put("sines", self._sines, CONSTANT),
            layers=tuple(layers),
            gain=gain(2 * self.text.layers),
            head=matrix("head", self._head, head=True),
        )

    def cache_on(self, device: EmulatedDevice) -> SharedCache:
        """An empty cache; its numbers are NaN."""
        layers = range(self.text.layers)

        def empty(name: str, shape: tuple[int, ...], dtype: Any) -> tuple[int, ...]:
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            nothing = np.full(size, 0xFF, np.uint8)
            return tuple(device.put(f"{name} {i}", nothing, Kind.READ_EARLY) for i in layers)

        keys, values = (empty(name, self.shape, np.float16) for name in ("keys", "values"))
        codes = None
        if self._byte_cache:
            codes = ByteCache(
                keys=empty("key bytes", self.shape, np.uint8),
                values=empty("value bytes", self.shape, np.uint8),
                scales=empty("scales", (*self.shape[:3], 2), np.float16),
            )
        return SharedCache(keys, values, slots=self.shape[0], capacity=self.shape[2], rounded=codes)

    def step(self, numbers: Array, row_slots: Array) -> Array:
        """Logits [rows, vocab] of tokens after `lengths`, which grow."""
        x = self._table[numbers].astype(np.float64)
        positions = self.lengths[row_slots].copy()
        for i in range(1, len(numbers)):
            if row_slots[i] == row_slots[i - 1]:
                positions[i] = positions[i - 1] + 1
        for number, layer in enumerate(self._layers):
            normed = self._normed(x, 2 * number)
            qkv = normed @ layer["qkv"].values.T
            attended = self._attention(number, qkv, positions, row_slots)
            x = x + attended @ layer["output"].values.T
            normed = self._normed(x, 2 * number + 1)
            gate, up = (normed @ layer[name].values.T for name in ("gate", "up"))
            x = x + (silu(gate) * up) @ layer["down"].values.T
        for slot, position in zip(row_slots, positions, strict=True):
            self.lengths[slot] = position + 1
        return self._normed(x, 2 * self.text.layers) @ self._head.values.T

    def _attention(self, layer: int, qkv: Array, positions: Array, row_slots: Array) -> Array:
        text = self.text
        group = text.heads // text.kv_heads
        outputs = []
        for row, (slot, position) in enumerate(zip(row_slots, positions, strict=True)):
            heads = qkv[row].reshape(-1, text.head_size)
            q, k, v = np.split(heads, [text.heads, text.heads + text.kv_heads])
            turn = self._cosines[position], self._sines[position]
            self.keys[layer][slot, :, position] = rotated(k, *turn)
            self.values[layer][slot, :, position] = v
            seen = [c[layer][slot, :, : position + 1] for c in (self.keys, self.values)]
            if self._byte_cache:
                seen = [restored(*rounded(cache)) for cache in seen]
            q = rotated(q, *turn).reshape(text.kv_heads, group, -1)
            outputs.append(attended(q, *seen))
        return np.array(outputs)

    def _normed(self, x: Array, gain: int) -> Array:
        size = np.sqrt((x**2).mean(-1, keepdims=True) + self.text.eps)
        normed: Array = x / size * self._gains[gain].astype(np.float64)
        return normed

    def _of(self, head: bool) -> tuple[int, int]:
        storage = self._storage
        return (storage.head_bits, storage.head_block) if head else (storage.bits, storage.block)

    def _stored(self, n: int, k: int, head: bool = False) -> Stored:
        return random_weights(Product(k, *self._of(head), Epilogue.STORE), n, self._generator)

    def _gain(self, size: float) -> Array:
        noise = 1 + 0.2 * self._generator.normal(size=self.text.hidden)
        return (size * noise).astype(np.float16)
