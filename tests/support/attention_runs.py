"""Runs attention.cu in emulation and compares all that it writes with float64."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.engines.native.arguments import Attention
from pulse_edge.engines.native.kernels import TILE, ActivationLayout, queries_of, query_tiles

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
    layout: ActivationLayout = ActivationLayout.PLAIN
    bits: int = 16  # of a number in the cache
    copied: bool = True  # a cache of bytes has one of fp16 beside it
    sink: bool = False  # queries look at the first position, which has next to no value
    seed: int = 0

    @property
    def capacity(self) -> int:
        return max(a + b for a, b in zip(self.lengths, self.rows, strict=True)) + self.spare

    @property
    def heads(self) -> int:
        return self.kv_heads * self.group


@dataclass(frozen=True)
class Operands:
    """qkv [rows, (heads + 2 kv) * head], cosines and sines [capacity, head / 2], fp16 caches."""

    qkv: Array
    cosines: Array
    sines: Array
    keys: Array
    values: Array


def rounded(x: Array) -> tuple[Array, Array]:
    """Numbers [..., head] as bytes around 128, and their scales [...] float16."""
    largest = np.abs(x.astype(np.float64)).max(-1)
    scales = np.maximum(largest / 127, 6.2e-5).astype(np.float16)
    steps = np.rint(x.astype(np.float64) / scales[..., None].astype(np.float64))
    filled = ~np.isnan(scales)
    codes = np.where(filled[..., None], np.clip(steps, -127, 127) + 128, 255)
    return codes.astype(np.uint8), np.where(filled, scales, np.float16(np.nan))


def restored(codes: Array, scales: Array) -> Array:
    """The float64 that bytes stand for."""
    values: Array = (codes.astype(np.float64) - 128) * scales.astype(np.float64)[..., None]
    return values


def operands(case: Case) -> Operands:
    """Positions that are not filled are NaN."""
    generator = np.random.default_rng(case.seed)
    slots, head = len(case.lengths), case.head
    shape = (slots, case.kv_heads, case.capacity, head)
    keys: Array = generator.normal(size=shape).astype(np.float16)
    values: Array = generator.normal(size=shape).astype(np.float16)
    if case.sink:
        keys, values = keys / np.float16(8), values / np.float16(32)
        keys[:, :, 0] = 8 / np.sqrt(head)
        values[:, :, 0] = 0
    for slot, length in enumerate(case.lengths):
        keys[slot, :, length:] = values[slot, :, length:] = np.nan
    width = (case.heads + 2 * case.kv_heads) * head
    angles = generator.uniform(0, 2 * np.pi, (case.capacity, head // 2))
    qkv = 1.5 * generator.normal(size=(sum(case.rows), width))
    if case.sink:
        angles[:] = 0
        qkv[:, : case.heads * head] = 1 + qkv[:, : case.heads * head] / 8
        qkv[:, case.heads * head :] /= 64
    return Operands(
        qkv=qkv.astype(np.float16),
        cosines=np.cos(angles).astype(np.float16),
        sines=np.sin(angles).astype(np.float16),
        keys=keys,
        values=values,
    )


def rotated(x: Array, cosines: Array, sines: Array) -> Array:
    """x [..., head] at one position, float64."""
    half = x.shape[-1] // 2
    a, b = x[..., :half].astype(np.float64), x[..., half:].astype(np.float64)
    c, s = cosines.astype(np.float64), sines.astype(np.float64)
    return np.concatenate([a * c - b * s, b * c + a * s], -1)


def attended(q: Array, keys: Array, values: Array) -> Array:
    """Attention of queries [kv_heads, group, head] over [kv_heads, positions, head], flat."""
    scores = np.einsum("kgd,kpd->kgp", q, keys) / math.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    output: Array = np.einsum("kgp,kpd->kgd", weights, values).reshape(-1)
    return output


def reference(case: Case, o: Operands) -> tuple[Array, Array, Array]:
    """Attention [rows, heads * head] float64, and the caches afterwards.

    New keys of a cache of bytes are rounded once: before, they are no fp16.
    """
    dtype = np.float16 if case.bits == 16 else np.float64
    keys, values = o.keys.astype(dtype), o.values.astype(dtype)
    heads, kv_heads = case.heads, case.kv_heads
    outputs = []
    row = 0
    for slot in case.order:
        for i in range(case.rows[slot]):
            position = case.lengths[slot] + i
            parts = o.qkv[row].reshape(-1, case.head)
            q, k, v = np.split(parts, [heads, heads + kv_heads])
            row += 1
            turn = o.cosines[position], o.sines[position]
            q = rotated(q, *turn).astype(np.float16).astype(np.float64)
            keys[slot, :, position] = rotated(k, *turn)
            values[slot, :, position] = v
            seen = [cache[slot, :, : position + 1] for cache in (keys, values)]
            if case.bits == 8:
                seen = [restored(*rounded(cache)) for cache in seen]
            q = q.reshape(kv_heads, case.group, case.head)
            outputs.append(attended(q, *(cache.astype(np.float64) for cache in seen)))
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
    early = Kind.READ_EARLY
    if case.bits == 16:
        argument.keys = memory.put("keys", o.keys, early)
        argument.values = memory.put("values", o.values, early)
    else:
        (key_bytes, key_scales), (value_bytes, value_scales) = rounded(o.keys), rounded(o.values)
        argument.keys = memory.put("key bytes", key_bytes, early)
        argument.values = memory.put("value bytes", value_bytes, early)
        scales = np.stack([key_scales, value_scales], -1)
        argument.scales = memory.put("scales", scales, early)
        if case.copied:
            argument.copied_keys = memory.put("copied keys", o.keys)
            argument.copied_values = memory.put("copied values", o.values)
    grid = (case.kv_heads, splits, len(case.order) * tiles)
    kernel.launch(argument, grid, memory, seed=seed, late=late)
    for problem in (
        _fp16_problem(memory, case, argument, keys, values),
        _bytes_problem(memory, argument, keys, values) if case.bits == 8 else None,
    ):
        if problem:
            return problem
    if memory.read(argument.arrivals, (ctas,), np.uint32).any():
        return "arrivals are not 0 again"
    stored = memory.read(argument.x, (rows, width), np.float16)
    order = order_of(case.layout, width)
    x = np.empty((rows, width))
    x[:, order] = stored.astype(np.float64)
    if case.layout in (ActivationLayout.INT4, ActivationLayout.INT4_FINE):
        x[:, 1::2] *= 16
    error = np.abs(x - expected).max() / np.abs(expected).max()
    if not error < 2e-3:
        return f"x differs by {error:.2g}"
    sums = memory.read(argument.x_sums, (rows, width // TILE), np.float32)
    error = np.abs(sums - x.reshape(rows, -1, TILE).sum(-1)).max()
    return None if error < 1e-3 else f"x_sums differ by {error:.2g}"


def _fp16_problem(
    memory: Memory, case: Case, argument: Attention, keys: Array, values: Array
) -> str | None:
    """Of the fp16 cache, if the case has one."""
    prefix = "" if case.bits == 16 else "copied_"
    for name, cache in (("keys", keys), ("values", values)):
        address = getattr(argument, prefix + name)
        if not address:
            continue
        actual = memory.read(address, cache.shape, np.float16)
        cache = cache.astype(np.float16)
        same = (actual == cache) | (np.isnan(actual) & np.isnan(cache))
        close = np.abs(actual - cache) <= 2e-3 * np.abs(cache) + 1e-4  # of float32, not 64
        if not (same | close).all() or not same.mean() > 0.99:
            return f"{name} in the cache differ at {np.argwhere(~same)[0]}"
    return None


def _bytes_problem(memory: Memory, argument: Attention, keys: Array, values: Array) -> str | None:
    """Of the cache of bytes."""
    scales = memory.read(argument.scales, (*keys.shape[:-1], 2), np.float16)
    for i, (name, cache) in enumerate((("keys", keys), ("values", values))):
        codes = memory.read(getattr(argument, name), cache.shape, np.uint8)
        expected, expected_scales = rounded(cache)
        if not np.allclose(scales[..., i], expected_scales, rtol=2e-3, atol=0, equal_nan=True):
            return f"scales of {name} differ"
        off = np.abs(codes.astype(int) - expected)
        if off.max() > 1 or off.mean() > 1e-3:  # of float32, not 64
            return f"bytes of {name} differ"
    return None
