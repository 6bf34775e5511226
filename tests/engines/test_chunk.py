"""How many tokens of a prompt go at once on a GPU: arithmetic against PULSE-7B's sizes."""

from __future__ import annotations

import dataclasses

import pytest

from pulse_edge.engines.chunk import plan_rows, prefill_chunk, scratch, scratch_row_bytes
from pulse_edge.measure.profiles import PULSE_7B

TEXT = PULSE_7B.text
ROW = (4 * 11008 + 10 * 4096) * 2  # bytes of a row
WEIGHT = 3 * 4096 * 4096 * 2  # q, k and v side by side are the largest


def test_scratch_of_pulse_7b() -> None:
    assert scratch_row_bytes(TEXT) == ROW == 169_984
    assert scratch(TEXT, 0) == WEIGHT == 100_663_296
    assert scratch(TEXT, 2933) == 2933 * ROW + WEIGHT
    assert scratch(TEXT, 2933) == pytest.approx(0.6e9, rel=0.01)
    wide = dataclasses.replace(TEXT, ffn=14336, kv_heads=8)  # now up and gate are
    assert scratch(wide, 0) == 14336 * 4096 * 2


@pytest.mark.parametrize("capacity", [4096, 3200, 700])
def test_the_whole_prompt_where_twice_its_scratch_is_free(capacity: int) -> None:
    needed = 2 * (capacity * ROW + WEIGHT)
    assert prefill_chunk(needed, TEXT, capacity) == 0
    assert prefill_chunk(needed - 1, TEXT, capacity) != 0
    assert prefill_chunk(80 * 10**9, TEXT, capacity) == 0


@pytest.mark.parametrize(("rows", "less"), [(2048, 1024), (1024, 512), (512, 512)])
def test_pieces_where_it_is_not(rows: int, less: int) -> None:
    needed = 2 * (rows * ROW + WEIGHT)
    assert prefill_chunk(needed, TEXT, 4096) == rows
    assert prefill_chunk(needed - 1, TEXT, 4096) == less


def test_512_at_least_and_2048_where_nothing_is_known() -> None:
    assert prefill_chunk(0, TEXT, 4096) == 512
    assert prefill_chunk(-(10**9), TEXT, 4096) == 512
    assert prefill_chunk(None, TEXT, 4096) == 2048


def test_more_memory_never_means_more_passes() -> None:
    chunks = [prefill_chunk(free << 20, TEXT, 4096) for free in range(0, 2000, 10)]
    passes = [-(-4096 // (chunk or 4096)) for chunk in chunks]
    assert passes == sorted(passes, reverse=True)
    assert set(passes) == {8, 4, 2, 1}


GIB = 1 << 30


@pytest.mark.parametrize(
    ("memory", "rows"),
    [
        (None, 512),
        (8 * GIB, 512),
        (12 * GIB, 512),  # the most that a device of 12 GB can report
        (int(14.6 * GIB), 2048),  # a T4 of 16 GB whose driver takes some
        (15 * GIB, 2048),
        (int(15.6 * GIB), 2048),  # an Orin NX
        (16 * 10**9, 2048),
        (80 * GIB, 2048),
    ],
)
def test_rows_of_a_plan(memory: int | None, rows: int) -> None:
    assert plan_rows(memory) == rows
