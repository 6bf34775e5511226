"""Runs attention.cu in emulation and compares all that it writes with float64."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.engines.native.arguments import Attention
from pulse_edge.engines.native.kernels import TILE, Layout, queries_of, query_tiles

from support.emulation import Emulated, Kind, Memory
from support.kernel_reference import order_of

Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """A step of several slots; rows of a slot follow each other.

    Attributes:
        lengths: [slots], positions filled before the step.
        rows: [slots], new positions of each; slots without rows take no part.
        order: of the slots in the step.
    """

    head: int
    kv_heads: int
    group: int
    lengths: tuple[int, ...]
    rows: tuple[int, ...]
    order: tuple[int, ...] = (0,)
    spare: int = 0  # positions that stay empty
    least: int = 1  # positions of a split
    layout: Layout = Layout.PLAIN
    seed: int = 0

    @property
    def capacity(self) -> int:
        return max(a + b for a, b in zip(self.lengths, self.rows, strict=True)) + self.spare

    @property
    def heads(self) -> int:
        return self.kv_heads * self.group


@dataclass(frozen=True)
class Operands:
    """qkv [rows, (heads + 2 kv) * head], cosines and sines [capacity, head / 2], caches."""

    qkv: Array
    cosines: Array
    sines: Array
    keys: Array
    values: Array


def operands(case: Case) -> Operands:
    """Positions that are not filled are NaN."""
    generator = np.random.default_rng(case.seed)
    slots, head = len(case.lengths), case.head
    shape = (slots, case.kv_heads, case.capacity, head)
    keys = generator.normal(size=shape).astype(np.float16)
    values = generator.normal(size=shape).astype(np.float16)
    for slot, length in enumerate(case.lengths):
        keys[slot, :, length:] = values[slot, :, length:] = np.nan
    width = (case.heads + 2 * case.kv_heads) * head
    angles = generator.uniform(0, 2 * np.pi, (case.capacity, head // 2))
    return Operands(
        qkv=(1.5 * generator.normal(size=(sum(case.rows), width))).astype(np.float16),
        cosines=np.cos(angles).astype(np.float16),
        sines=np.sin(angles).astype(np.float16),
        keys=keys,
        values=values,
    )


def rotated(x: Array, cosines: Array, sines: Array) -> Array:
    """x [..., head] at one position, rounded to float16."""
    half = x.shape[-1] // 2
    a, b = x[..., :half].astype(np.float64), x[..., half:].astype(np.float64)
    c, s = cosines.astype(np.float64), sines.astype(np.float64)
    return np.concatenate([a * c - b * s, b * c + a * s], -1).astype(np.float16)


def reference(case: Case, o: Operands) -> tuple[Array, Array, Array]:
    """Attention [rows, heads * head] float64, and the caches afterwards."""
    keys, values = o.keys.copy(), o.values.copy()
    head, heads, kv_heads = case.head, case.heads, case.kv_heads
    outputs = []
    row = 0
    for slot in case.order:
        for i in range(case.rows[slot]):
            position = case.lengths[slot] + i
            q, k, v = np.split(
                o.qkv[row].reshape(-1, head), [heads, heads + kv_heads]
            )  # [heads, head]
            row += 1
            turn = o.cosines[position], o.sines[position]
            q = rotated(q, *turn).astype(np.float64).reshape(kv_heads, case.group, head)
            keys[slot, :, position] = rotated(k, *turn)
            values[slot, :, position] = v
            seen_keys = keys[slot, :, : position + 1].astype(np.float64)
            scores = np.einsum("kgd,kpd->kgp", q, seen_keys) / math.sqrt(head)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            seen_values = values[slot, :, : position + 1].astype(np.float64)
            outputs.append(np.einsum("kgp,kpd->kgd", weights, seen_values).reshape(-1))
    return np.array(outputs), keys, values


def wrong(
    kernel: Emulated, case: Case, splits: int, *, seed: int = 0, late: bool = False
) -> str | None:
    """What is wrong with what the kernel writes; None if nothing is."""
    o = operands(case)
    expected, keys, values = reference(case, o)
    memory = Memory()
    several = max(case.rows) > 1 or len(case.order) > 1
    rows, width = len(o.qkv), case.heads * case.head
    tiles = query_tiles(case.group, several)
    ctas = len(case.order) * tiles * case.kv_heads
    queries = queries_of(case.group, several)
    row_slots = np.repeat(case.order, [case.rows[slot] for slot in case.order]).astype(np.int32)
    argument = Attention(
        qkv=memory.put("qkv", o.qkv),
        cosines=memory.put("cosines", o.cosines, Kind.READ_ONLY),
        sines=memory.put("sines", o.sines, Kind.READ_ONLY),
        keys=memory.put("keys", o.keys, Kind.READ_EARLY),
        values=memory.put("values", o.values, Kind.READ_EARLY),
        lengths=memory.put("lengths", np.array(case.lengths, np.int32), Kind.READ_ONLY),
        row_slots=memory.put("row_slots", row_slots, Kind.READ_ONLY),
        x=memory.empty("x", 2 * rows * width),
        x_sums=memory.empty("x_sums", 4 * rows * width // TILE),
        partial=memory.empty("partial", 4 * ctas * splits * queries * (case.head + 4)),
        arrivals=memory.put("arrivals", np.zeros(ctas, np.uint32)),
        rows=rows,
        heads=case.heads,
        kv_heads=case.kv_heads,
        capacity=case.capacity,
        layout=int(case.layout),
        least=case.least,
        scale=math.log2(math.e) / math.sqrt(case.head),
    )
    grid = (case.kv_heads, splits, len(case.order) * tiles)
    kernel.launch(argument, grid, memory, seed=seed, late=late)
    for name, cache in (("keys", keys), ("values", values)):
        actual = memory.read(getattr(argument, name), cache.shape, np.float16)
        same = (actual == cache) | (np.isnan(actual) & np.isnan(cache))
        close = np.abs(actual - cache) <= 2e-3 * np.abs(cache)  # rounded from float32, not 64
        if not (same | close).all() or not same.mean() > 0.99:
            return f"{name} in the cache differ at {np.argwhere(~same)[0]}"
    if memory.read(argument.arrivals, (ctas,), np.uint32).any():
        return "arrivals are not 0 again"
    stored = memory.read(argument.x, (rows, width), np.float16)
    order = order_of(case.layout, width)
    x = np.empty((rows, width))
    x[:, order] = stored.astype(np.float64)
    if case.layout in (Layout.INT4, Layout.INT4_FINE):
        x[:, 1::2] *= 16
    error = np.abs(x - expected).max() / np.abs(expected).max()
    if not error < 2e-3:
        return f"x differs by {error:.2g}"
    sums = memory.read(argument.x_sums, (rows, width // TILE), np.float32)
    error = np.abs(sums - expected.reshape(rows, -1, TILE).sum(-1)).max() / np.abs(sums).max()
    return None if error < 2e-3 else f"x_sums differ by {error:.2g}"
