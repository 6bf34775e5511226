"""A decode step as a list of kernel launches, for any decoder that the kernels know.

What runs them is a `StepDevice`: a GPU, or in tests an emulation of one.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pulse_edge.bundle.spec import TextSpec
from pulse_edge.engines.native import kernels
from pulse_edge.engines.native.arguments import Attention, Choose, Embed, Gemv, Quantize
from pulse_edge.engines.native.kernels import (
    MOST_ROWS,
    TILE,
    Epilogue,
    Kernel,
    Product,
    Tuning,
    product_grid,
    product_kernel,
)

Address = int  # of device memory
GATE_UP = "gate_up"
Tunings = Callable[[str, Product, bool], Tuning]  # by name of a product, and for several rows


class StepDevice(Protocol):
    """What a step needs of a GPU: numbers, and memory."""

    @property
    def multiprocessors(self) -> int:
        """How many it has."""

    @property
    def shared_bytes(self) -> int:
        """Most shared memory of a CTA."""

    def allocate(self, size: int) -> Address:
        """Memory of the device, zeros; it lives as long as the device."""

    def write(self, to: Address, array: NDArray[Any]) -> None:
        """Copy a contiguous array to the device."""


@dataclass(frozen=True)
class Matrix:
    """Weights on the device, as the bundle stores them.

    Attributes:
        codes: of 4 or 8 bits: [n, k / block, block * bits / 8] bytes, with a zero point of half the
            range, as `MatMulNBits` has them. Of 16 bits: [k, n] fp16.
        scales: [n, k / block] fp16; of 16 bits 0.
        block: weights that share a scale; of 16 bits 0.
    """

    codes: Address
    scales: Address
    n: int
    k: int
    bits: int
    block: int


@dataclass(frozen=True)
class Gain:
    """A norm's gains times a power of two, so that products with activations keep their digits.

    Attributes:
        address: [hidden] fp16.
        factor: undoes the power of two.
    """

    address: Address
    factor: float


@dataclass(frozen=True)
class Layer:
    """Weights of a layer; `qkv` are three matrices, one below the other."""

    input_gain: Gain
    qkv: Matrix
    output: Matrix
    post_gain: Gain
    gate: Matrix
    up: Matrix
    down: Matrix


@dataclass(frozen=True)
class Weights:
    """All that a step reads and never writes.

    Attributes:
        table: [rows, hidden] fp16, embeddings and features.
        cosines: [positions, head size / 2] fp16.
        sines: the same.
    """

    table: Address
    cosines: Address
    sines: Address
    layers: tuple[Layer, ...]
    gain: Gain
    head: Matrix


@dataclass(frozen=True)
class ByteCache:
    """Keys and values of each layer as bytes, [slots, kv heads, capacity, head size].

    Attributes:
        scales: [slots, kv heads, capacity, 2] fp16, of a position's keys and of its values.
    """

    keys: tuple[Address, ...]
    values: tuple[Address, ...]
    scales: tuple[Address, ...]


@dataclass(frozen=True)
class SharedCache:
    """Keys and values of each layer, [slots, kv heads, capacity, head size] fp16.

    Attributes:
        capacity: positions of a slot.
        rounded: what steps read instead, if anything; they write both.
    """

    keys: tuple[Address, ...]
    values: tuple[Address, ...]
    slots: int
    capacity: int
    rounded: ByteCache | None = None

    @property
    def bits(self) -> int:
        """Of a number that steps read."""
        return 8 if self.rounded else 16


@dataclass(frozen=True)
class Launch:
    """A kernel, its grid and its argument.

    Attributes:
        early: it may start before the kernel before has ended.
    """

    kernel: Kernel
    grid: tuple[int, int, int]
    argument: ctypes.Structure
    early: bool = True


@dataclass(frozen=True)
class Activations:
    """What a product reads: `MOST_ROWS` rows, with sums and squares of 16 elements each."""

    x: Address
    sums: Address
    squares: Address


def scaled_gain(gain: NDArray[np.float16]) -> tuple[NDArray[np.float16], float]:
    """Gains with their largest between 1 and 2, and the factor that undoes it.

    A norm's factor applies after the product, so activations times gains are rounded to fp16 before
    it. Early layers have small ones of both, of which fp16 would keep few digits.
    """
    largest = float(np.abs(gain.astype(np.float64)).max())
    power = -math.floor(math.log2(largest)) if largest else 0
    return np.ldexp(gain, power).astype(np.float16), 2.0**-power


def refusal(text: TextSpec, matrices: dict[str, Matrix]) -> str | None:
    """Why the kernels cannot run a decoder; None if they can."""
    if text.qkv_bias:
        return "q, k and v have biases, which the kernels do not add"
    if text.head_size not in kernels.HEAD_SIZES:
        return f"heads of {text.head_size} numbers; the kernels have 32, 64 and 128"
    for name, m in matrices.items():
        if m.bits not in kernels.BITS or (m.bits < 16 and m.block not in kernels.BLOCKS):
            return f"{name} has {m.bits} bits in blocks of {m.block}"
        if m.k % 128:
            return f"{name} has {m.k} inputs, which are not a multiple of 128"
        unit = 2 * TILE if m.bits == 16 else TILE
        if m.n % unit:
            return f"{name} has {m.n} outputs, which are not a multiple of {unit}"
    return None


class StepBuilder:
    """Makes the launches of steps over one set of weights, one cache and one workspace.

    Attributes:
        numbers: int64 [8], rows of the table that a step takes.
        row_slots: int32 [8], the slot of each row; behind `numbers`.
        lengths: int32 [slots], positions filled before a step; behind `row_slots`.
        logits: fp32 [8, vocab].
        tokens: int64 [8], the likeliest of each row; -1 where a logit is not finite.
        residual: fp16 [8, hidden], after the last layer.
    """

    def __init__(
        self,
        text: TextSpec,
        weights: Weights,
        cache: SharedCache,
        device: StepDevice,
        splits: int | None = None,
        tunings: Tunings | None = None,
    ) -> None:
        self._text = text
        self._weights = weights
        self._cache = cache
        self._device = device
        self._tunings = tunings or (lambda _, product, several: kernels.tuning_of(product, several))
        self._group = text.heads // text.kv_heads
        self._splits = splits or _splits(text, device.multiprocessors)
        # One block, so that one copy fills it.
        self.numbers = device.allocate(12 * MOST_ROWS + 4 * cache.slots)
        self.row_slots = self.numbers + 8 * MOST_ROWS
        self.lengths = self.row_slots + 4 * MOST_ROWS
        self.logits = device.allocate(4 * MOST_ROWS * text.vocab)
        self.tokens = device.allocate(8 * MOST_ROWS)
        self.residual = device.allocate(2 * MOST_ROWS * text.hidden)
        widest = max(text.hidden, text.ffn, text.heads * text.head_size)
        self._normed, self._inner = (self._activations(widest) for _ in range(2))
        width = (text.heads + 2 * text.kv_heads) * text.head_size
        self._qkv = device.allocate(2 * MOST_ROWS * width)
        self._best = device.allocate(8 * MOST_ROWS * (text.vocab // TILE))
        ctas = MOST_ROWS * kernels.query_tiles(self._group, True) * text.kv_heads
        self._arrivals = device.allocate(4 * ctas)
        self._partial = device.allocate(4 * ctas * self._splits * 16 * (text.head_size + 4))

    def launches(self, rows: int, slots: int = 1) -> list[Launch]:
        """A step of so many rows, of so many slots."""
        return list(self._launches(rows, slots))

    def _launches(self, rows: int, slots: int) -> Iterator[Launch]:
        text, weights = self._text, self._weights
        first = weights.layers[0]
        yield self._embed(rows, first.input_gain, first.qkv)
        for number, layer in enumerate(weights.layers):
            yield self._product(
                "qkv",
                layer.qkv,
                rows,
                Epilogue.STORE,
                self._normed,
                normed=layer.input_gain,
                y=self._qkv,
            )
            yield self._attention(number, rows, slots, layer.output)
            yield self._product(
                "output",
                layer.output,
                rows,
                Epilogue.RESIDUAL,
                self._inner,
                gain=layer.post_gain,
                to=self._normed,
                reader=layer.gate,
            )
            yield self._product(
                GATE_UP,
                layer.gate,
                rows,
                Epilogue.GATED,
                self._normed,
                normed=layer.post_gain,
                second=layer.up,
                to=self._inner,
                reader=layer.down,
            )
            last = number + 1 == text.layers
            yield self._product(
                "down",
                layer.down,
                rows,
                Epilogue.RESIDUAL,
                self._inner,
                gain=weights.gain if last else weights.layers[number + 1].input_gain,
                to=self._normed,
                reader=weights.head if last else weights.layers[number + 1].qkv,
            )
        head = self._product(
            "head",
            weights.head,
            rows,
            Epilogue.LOGITS,
            self._normed,
            normed=weights.gain,
        )
        yield head
        choose = Choose(best=self._best, tokens=self.tokens, count=head.grid[0])
        yield Launch(kernels.CHOOSE, (rows, 1, 1), choose)

    def round_cache(self, begin: int, end: int, slot: int = 0) -> list[Launch]:
        """Launches that round positions of a slot, which another engine has put into the cache."""
        text, cache = self._text, self._cache
        rounded = cache.rounded
        if rounded is None or begin >= end:
            return []
        kernel = kernels.quantize_kernel(text.head_size)
        grid = (text.kv_heads, min(256, -(-(end - begin) // 4)), 1)
        return [
            Launch(
                kernel,
                grid,
                Quantize(
                    keys=cache.keys[layer],
                    values=cache.values[layer],
                    key_bytes=rounded.keys[layer],
                    value_bytes=rounded.values[layer],
                    scales=rounded.scales[layer],
                    kv_heads=text.kv_heads,
                    capacity=cache.capacity,
                    begin=begin,
                    end=end,
                    slot=slot,
                ),
                early=False,
            )
            for layer in range(text.layers)
        ]

    def _activations(self, width: int) -> Activations:
        sums = (self._device.allocate(4 * MOST_ROWS * width // TILE) for _ in range(2))
        return Activations(self._device.allocate(2 * MOST_ROWS * width), *sums)

    def _embed(self, rows: int, gain: Gain, reader: Matrix) -> Launch:
        argument = Embed(
            table=self._weights.table,
            numbers=self.numbers,
            gain=gain.address,
            residual=self.residual,
            x=self._normed.x,
            sums=self._normed.sums,
            squares=self._normed.squares,
            hidden=self._text.hidden,
            layout=_layout(reader),
        )
        return Launch(kernels.EMBED, (rows, 1, 1), argument)

    def _product(
        self,
        name: str,
        matrix: Matrix,
        rows: int,
        epilogue: Epilogue,
        x: Activations,
        *,
        normed: Gain | None = None,
        second: Matrix | None = None,
        y: Address | None = None,
        gain: Gain | None = None,
        to: Activations | None = None,
        reader: Matrix | None = None,
    ) -> Launch:
        """A product.

        Args:
            name: for its tuning.
            matrix: its weights.
            rows: of activations.
            epilogue: what follows.
            x: what it reads.
            normed: the gains that x was multiplied by; x is then divided by its norm.
            second: the matrix beside, if gated.
            y: where it stores; the residual if not given.
            gain: of the next norm, which `to` is multiplied by.
            to: activations that it hands on.
            reader: the matrix that they are for.
        """
        several = rows > 1
        product = Product(matrix.k, matrix.bits, matrix.block, epilogue)
        tuning = self._tunings(name, product, several)
        room = self._device.shared_bytes
        tuning = kernels.fitting(product, several, tuning, matrix.n, room)
        argument = Gemv(
            x=x.x,
            x_sums=x.sums,
            x_squares=x.squares if normed else 0,
            residual=self.residual,
            y=y or self.residual,
            gain=gain.address if gain else 0,
            next_x=to.x if to else 0,
            next_sums=to.sums if to else 0,
            next_squares=to.squares if to else 0,
            logits=self.logits,
            best=self._best,
            n=matrix.n,
            rows=rows,
            next_layout=_layout(reader) if reader else 0,
            x_factor=normed.factor if normed else 1.0,
            epsilon=self._text.eps,
        )
        argument.weights[:] = matrix.codes, second.codes if second else 0
        argument.scales[:] = matrix.scales, second.scales if second else 0
        grid = product_grid(matrix.n, tuning, epilogue, self._device.multiprocessors)
        return Launch(product_kernel(product, several, tuning), (grid, 1, 1), argument)

    def _attention(self, layer: int, rows: int, slots: int, reader: Matrix) -> Launch:
        text, cache = self._text, self._cache
        read = cache.rounded or cache
        several = rows > 1
        argument = Attention(
            qkv=self._qkv,
            cosines=self._weights.cosines,
            sines=self._weights.sines,
            keys=read.keys[layer],
            values=read.values[layer],
            scales=cache.rounded.scales[layer] if cache.rounded else 0,
            copied_keys=cache.keys[layer] if cache.rounded else 0,
            copied_values=cache.values[layer] if cache.rounded else 0,
            lengths=self.lengths,
            row_slots=self.row_slots,
            x=self._inner.x,
            x_sums=self._inner.sums,
            partial=self._partial,
            arrivals=self._arrivals,
            rows=rows,
            heads=text.heads,
            kv_heads=text.kv_heads,
            capacity=cache.capacity,
            layout=_layout(reader),
            least=kernels.LEAST_OF_SPLIT,
            scale=math.log2(math.e) / math.sqrt(text.head_size),
        )
        kernel = kernels.attention_kernel(
            text.head_size, self._group, several, cache.bits, self._device.shared_bytes
        )
        tiles = kernels.query_tiles(self._group, several)
        return Launch(kernel, (text.kv_heads, self._splits, slots * tiles), argument)


def _layout(reader: Matrix) -> int:
    return int(Product(reader.k, reader.bits, reader.block, Epilogue.STORE).layout)


def _splits(text: TextSpec, multiprocessors: int) -> int:
    """So that two CTAs of the attention are there for each multiprocessor."""
    return max(1, min(kernels.MOST_SPLITS, 2 * multiprocessors // text.kv_heads))
