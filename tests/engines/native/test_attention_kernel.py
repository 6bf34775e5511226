"""attention.cu and cache.cu in emulation against float64."""

from __future__ import annotations

import numpy as np
import pytest

from pulse_edge.engines.native.arguments import Quantize
from pulse_edge.engines.native.kernels import (
    ActivationLayout,
    Kernel,
    attention_kernel,
    quantize_kernel,
)

from support import attention_runs
from support.attention_runs import Case
from support.emulation import Memory, Workshop

LARGE, SMALL = 227 << 10, 64 << 10  # shared memory of an H100's CTA and of a T4's
LENGTHS = (0, 1, 15, 16, 17, 63, 64, 65, 200)


def kernel_of(case: Case, room: int = LARGE) -> Kernel:
    several = max(case.rows) > 1 or len(case.order) > 1
    return attention_kernel(case.head, case.group, several, case.bits, room)


def check(workshop: Workshop, case: Case, splits: int, room: int = LARGE, seed: int = 0) -> None:
    kernel = kernel_of(case, room)
    compiled = workshop.build(kernel)
    assert compiled.shared_bytes == kernel.shared_bytes <= room
    assert compiled.threads == kernel.threads
    late = bool(seed & 1)
    assert attention_runs.wrong(compiled, case, splits, seed=seed, late=late) is None, case


@pytest.mark.parametrize("bits", [16, 8])
@pytest.mark.parametrize("group", [1, 4, 8])
@pytest.mark.parametrize("head", [32, 64, 128])
def test_lengths_rows_and_splits(workshop: Workshop, head: int, group: int, bits: int) -> None:
    """Capacity is tight, or one position is spare; rows and splits go round."""
    rows_and_splits = ((1, 1), (8, 2), (1, 4), (5, 7), (2, 4), (1, 7))
    for number, length in enumerate(LENGTHS):
        for turn in range(2):
            rows, splits = rows_and_splits[(number + 3 * turn) % 6]
            layout = ActivationLayout((number + turn) % 3 if head * group >= 64 else 0)
            case = Case(
                head=head,
                kv_heads=2,
                group=group,
                lengths=(length,),
                rows=(rows,),
                spare=number % 2,
                layout=layout,
                bits=bits,
                copied=turn == 0,
                seed=number,
            )
            check(workshop, case, splits, seed=number + turn)


@pytest.mark.parametrize("bits", [16, 8])
@pytest.mark.parametrize("group", [1, 3, 8])
def test_two_slots_in_a_step(workshop: Workshop, group: int, bits: int) -> None:
    """In any order, beside a slot without rows; groups that do not fill a tile of queries."""
    for number, (lengths, rows, order) in enumerate(
        (
            ((200, 70), (3, 5), (1, 0)),
            ((20, 130), (1, 1), (0, 1)),
            ((20, 9, 130), (2, 0, 4), (2, 0)),
            ((0, 0), (4, 4), (0, 1)),
        )
    ):
        case = Case(64, 2, group, lengths, rows, order, bits=bits, seed=number)
        check(workshop, case, splits=4, seed=number)


@pytest.mark.parametrize("bits", [16, 8])
def test_small_shared_memory(workshop: Workshop, bits: int) -> None:
    """Fewer stages, then fewer warps."""
    for rows in (1, 6):
        case = Case(128, 1, 2, (150,), (rows,), bits=bits)
        assert kernel_of(case, SMALL).shared_bytes <= SMALL
        check(workshop, case, splits=3, room=SMALL, seed=rows)


def test_fewer_splits_than_ctas(workshop: Workshop) -> None:
    """A split has at least so many positions; CTAs beyond them end at once."""
    check(workshop, Case(32, 2, 2, (200,), (3,), least=128), splits=8)
    check(workshop, Case(32, 2, 2, (200,), (3,), least=1000), splits=8)


@pytest.mark.parametrize("head", [32, 64, 128])
def test_a_cache_is_rounded_to_bytes(workshop: Workshop, head: int) -> None:
    """Of one slot, from one position to another; others stay."""
    generator = np.random.default_rng(head)
    slots, kv_heads, capacity, begin, end = 2, 3, 40, 7, 33
    shape = (slots, kv_heads, capacity, head)
    keys, values = (generator.normal(size=shape).astype(np.float16) for _ in range(2))
    keys[1, 0, 9] = 0
    values[1, 1, 10] = 1e-6
    memory = Memory()
    argument = Quantize(
        keys=memory.put("keys", keys),
        values=memory.put("values", values),
        key_bytes=memory.empty("key bytes", keys.size),
        value_bytes=memory.empty("value bytes", keys.size),
        scales=memory.empty("scales", 4 * keys.size // head),
        kv_heads=kv_heads,
        capacity=capacity,
        begin=begin,
        end=end,
        slot=1,
    )
    workshop.build(quantize_kernel(head)).launch(argument, (kv_heads, 3), memory, seed=1)
    scales = memory.read(argument.scales, (*shape[:3], 2), np.float16)
    filled = np.zeros(shape[:3], bool)
    filled[1, :, begin:end] = True
    assert (np.isnan(scales).all(-1) == ~filled).all()
    for i, (name, cache) in enumerate((("key_bytes", keys), ("value_bytes", values))):
        codes = memory.read(getattr(argument, name), shape, np.uint8)
        assert (codes[~filled] == 255).all()
        restored = attention_runs.restored(codes[filled], scales[..., i][filled])
        largest = np.abs(cache[filled].astype(np.float64)).max(-1, keepdims=True)
        error = np.abs(restored - cache[filled].astype(np.float64))
        assert (error <= np.maximum(largest / 254 * 1.01, 3.2e-5)).all()


@pytest.mark.parametrize("bits", [16, 8])
def test_beside_an_attention_sink(workshop: Workshop, bits: int) -> None:
    """Small weights of small values keep their digits: the first position has almost all weight."""
    case = Case(64, 1, 4, (600,), (2,), bits=bits, sink=True)
    check(workshop, case, splits=2)
