"""Kernels with one thing taken out or turned: some emulated run must see it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pytest

from pulse_edge.engines.native.arguments import Choose, Embed, Quantize
from pulse_edge.engines.native.kernels import (
    CHOOSE,
    EMBED,
    FOLDER,
    MOST_ROWS,
    TILE,
    ActivationLayout,
    Epilogue,
    Product,
    Tuning,
    attention_kernel,
    product_kernel,
    quantize_kernel,
)

from support import attention_runs, gemv_runs
from support.attention_runs import Case
from support.emulation import EmulationError, Kind, Memory, Workshop
from support.gemv_runs import BEST
from support.kernel_reference import laid_out, random_case

SYNCHRONIZATION = re.compile(
    r"(__syncthreads|__syncwarp|wait_for_copies<[^>]*>|wait_for_previous_kernel|close_copy_group)"
    r"\(\);"
)
KERNELS = ("gemv.cu", "attention.cu", "cache.cu", "step.cu")
SOURCES = sorted(file.name for file in FOLDER.glob("*.cu*") if file.name != "device.cuh")

# What may be taken out unseen: the end of the line it ends, and why.
REDUNDANT = {
    "  prepare_zero(s.zero, p, first, count, lane);\n  __syncwarp();": (
        "the ring's barrier of the first slot comes before the first use as well"
    ),
    "  wait_for_copies<0>();": "groups that are under way after the last position are empty",
}


@dataclass(frozen=True)
class Fault:
    """One piece of a source replaced by another."""

    file: str
    offset: int
    old: str
    new: str = ";"

    def text(self) -> str:
        source = (FOLDER / self.file).read_text()
        end = self.offset + len(self.old)
        assert source[self.offset : end] == self.old
        return source[: self.offset] + self.new + source[end:]

    def __str__(self) -> str:
        line = (FOLDER / self.file).read_text()[: self.offset].count("\n") + 1
        return f"{self.file}:{line}:{self.old}"


def removals(redundant: bool = False) -> list[Fault]:
    """Every barrier and wait of the kernels that is needed, or that is not."""
    faults = []
    for file in SOURCES:
        text = (FOLDER / file).read_text()
        for match in SYNCHRONIZATION.finditer(text):
            if redundant == any(text[: match.end()].endswith(end) for end in REDUNDANT):
                faults.append(Fault(file, match.start(), match[0]))
    return faults


def altered(file: str, old: str, new: str) -> Fault:
    """A fault by its text, which the source has once."""
    text = (FOLDER / file).read_text()
    assert text.count(old) == 1, (file, old)
    return Fault(file, text.index(old), old, new)


def product_fault(workshop: Workshop, changes: dict[str, str]) -> str | None:
    """What is wrong with a product, of several kernels; None: nothing is seen."""
    for bits, block, epilogue, several, tuning in (
        (4, 128, Epilogue.RESIDUAL, False, Tuning(4, 3, 1, 1, 1)),
        (8, 32, Epilogue.GATED, True, Tuning(4, 2, 2, 1, 1)),
        (16, 0, Epilogue.LOGITS, True, Tuning(4, 3, 2, 1, 1)),
    ):
        product = Product(1024, bits, block, epilogue)
        kernel = product_kernel(product, several, tuning)
        case = random_case(product, 128, 5 if several else 1, seed=bits)
        layout = ActivationLayout.INT8_FINE
        compiled = workshop.build(kernel, changes)
        try:
            for seed in range(2):
                outputs = gemv_runs.run(
                    compiled, case, ctas=2, next_layout=layout, seed=seed, late=seed == 1
                )
                if wrong := gemv_runs.problem(case, outputs, layout):
                    return wrong
        except EmulationError as error:
            return str(error)
    return None


def attention_fault(workshop: Workshop, changes: dict[str, str]) -> str | None:
    for bits in (16, 8):
        for case, splits in (
            (Case(64, 2, 4, (200,), (5,), bits=bits), 3),
            (Case(64, 2, 4, (300, 3), (3, 4), (1, 0), bits=bits), 1),
            (Case(64, 1, 4, (600,), (2,), bits=bits, sink=True), 2),
        ):
            kernel = attention_kernel(case.head, case.group, True, bits, 227 << 10)
            compiled = workshop.build(kernel, changes)
            try:
                for seed in range(2):
                    wrong = attention_runs.wrong(compiled, case, splits, seed=seed, late=seed == 1)
                    if wrong:
                        return wrong
            except EmulationError as error:
                return str(error)
    return None


def cache_fault(workshop: Workshop, changes: dict[str, str]) -> str | None:
    keys = np.random.default_rng(0).normal(size=(1, 1, 8, 64)).astype(np.float16)
    memory = Memory()
    argument = Quantize(
        keys=memory.put("keys", keys),
        values=memory.put("values", keys),
        key_bytes=memory.empty("key bytes", keys.size),
        value_bytes=memory.empty("value bytes", keys.size),
        scales=memory.empty("scales", 4 * keys.size // 64),
        kv_heads=1,
        capacity=8,
        begin=1,
        end=8,
        slot=0,
    )
    kernel = workshop.build(quantize_kernel(64), changes)
    try:
        kernel.launch(argument, (1, 1), memory)
    except EmulationError as error:
        return str(error)
    codes = memory.read(argument.key_bytes, keys.shape, np.uint8)[..., 1:, :]
    off = np.abs(codes.astype(int) - attention_runs.rounded(keys)[0][..., 1:, :])
    return "bytes differ" if off.max() > 1 else None


def step_fault(workshop: Workshop, changes: dict[str, str]) -> str | None:
    """Of both kernels of step.cu."""
    generator = np.random.default_rng(0)
    hidden, rows = 256, 3
    table = generator.normal(size=(rows, hidden)).astype(np.float16)
    best = np.zeros((40, MOST_ROWS), BEST)
    best["index"] = generator.permutation(40 * MOST_ROWS).reshape(40, MOST_ROWS)
    memory = Memory()
    embed = Embed(
        table=memory.put("table", table),
        numbers=memory.put("numbers", np.arange(rows)[::-1]),
        gain=memory.put("gain", np.ones(hidden, np.float16), Kind.READ_ONLY),
        residual=memory.empty("residual", 2 * rows * hidden),
        x=memory.empty("x", 2 * rows * hidden),
        sums=memory.empty("sums", 4 * rows * hidden // TILE),
        squares=memory.empty("squares", 4 * rows * hidden // TILE),
        hidden=hidden,
        layout=int(ActivationLayout.INT4),
    )
    choose = Choose(
        best=memory.put("best", best),
        tokens=memory.empty("tokens", 8 * MOST_ROWS),
        count=40,
    )
    first, last = (workshop.build(kernel, changes) for kernel in (EMBED, CHOOSE))
    try:
        first.launch(embed, (rows,), memory)
        last.launch(choose, (MOST_ROWS,), memory)
    except EmulationError as error:
        return str(error)
    x = memory.read(embed.x, (rows, hidden), np.float16)
    if (x != laid_out(table[::-1], ActivationLayout.INT4)).any():
        return "x differs"
    tokens = memory.read(choose.tokens, (MOST_ROWS,), np.int64)
    return None if (tokens == best["index"].min(0)).all() else "tokens differ"


def fault_of(workshop: Workshop, file: str, changes: dict[str, str]) -> str | None:
    if file in ("gemv.cu", "blocks.cuh", "halves.cuh"):
        return product_fault(workshop, changes)
    if file in ("attention.cu", "cache_bytes.cuh", "cache_halves.cuh"):
        return attention_fault(workshop, changes)
    return (cache_fault if file == "cache.cu" else step_fault)(workshop, changes)


@pytest.mark.parametrize("file", KERNELS)
def test_nothing_is_seen_in_the_kernels_as_they_are(workshop: Workshop, file: str) -> None:
    assert fault_of(workshop, file, {}) is None


@pytest.mark.parametrize("fault", removals(), ids=str)
def test_every_barrier_and_wait_is_needed(workshop: Workshop, fault: Fault) -> None:
    seen = fault_of(workshop, fault.file, {fault.file: fault.text()})
    assert seen is not None


def test_what_is_redundant_still_is(workshop: Workshop) -> None:
    faults = removals(redundant=True)
    assert len(faults) == len(REDUNDANT)
    for fault in faults:
        assert fault_of(workshop, fault.file, {fault.file: fault.text()}) is None


ATTENTION, BYTES, HALVES = "attention.cu", "cache_bytes.cuh", "cache_halves.cuh"
GEMV, BLOCKS = "gemv.cu", "blocks.cuh"
SPLIT_END = "(split + 1) * size, length)"
ARRIVE = "arrive(p.arrivals + blockIdx.z * p.kv_heads + kv_head, used)"
ALTERED = {  # file, old, new
    "columns": (GEMV, "TILE + column;\n          if", "TILE + (column ^ 1);\n          if"),
    "halves of a tile": (GEMV, "g + (e & 2 ? 8 : 0)] = sums", "g + (e & 2 ? 0 : 8)] = sums"),
    "words of blocks": (BLOCKS, "[FINE ? t : quarter];", "[FINE ? quarter : t];"),
    "matrices of halves": ("halves.cuh", "(lane >> 3 & 1))]);", "(lane >> 4 & 1))]);"),
    "keys": (HALVES, "(lane & 7) + (lane >> 4) * 8", "(lane & 7) + (lane >> 3 & 1) * 8"),
    "elements of bytes": (BYTES, "8 * t + 4 * e + c % 4;", "8 * t + 4 * (1 - e) + c % 4;"),
    "a split one longer": (ATTENTION, SPLIT_END, "(split + 1) * size + 1, length)"),
    "a split one shorter": (ATTENTION, SPLIT_END, "(split + 1) * size - 1, length)"),
    "a cache one shorter": (ATTENTION, SPLIT_END, "(split + 1) * size, length - 1)"),
    "a split too many": (ATTENTION, "(length + size - 1) / size)", "(length + size) / size + 1)"),
    "sight of the next row": (ATTENTION, "{query / GROUP + 1, ", "{query / GROUP + 2, "),
    "attention waits too little": (ATTENTION, "<STAGES - 2>", "<STAGES - 1>"),
    "attention copies too soon": (ATTENTION, "stage == 0 ? STAGES - 1 : stage - 1", "stage"),
    "the first arrival adds up": (ATTENTION, "s.arrival != used - 1", "s.arrival != 0"),
    "no arrival": (ATTENTION, ARRIVE, "split"),
    "products wait too little": (GEMV, "<STAGES - 2>", "<STAGES - 1>"),
    "products copy too soon": (GEMV, "stage == 0 ? STAGES - 1 : stage - 1", "stage"),
    "a slot is left out": (GEMV, "/ WARPS - first;", "/ WARPS - first - (warp == 1);"),
    "one buffer of sums": (GEMV, "    turn ^= 1;\n", ""),
    "zero point": (BLOCKS, "BITS == 4 ? 8.f : 128.f", "BITS == 4 ? 7.f : 127.f"),
    "digits of small weights": (BYTES, "LIFT = 64", "LIFT = 1"),
    "middle of bytes": (BYTES, "(score - queries.bias[below])", "(score)"),
}  # fmt: skip


@pytest.mark.parametrize("name", ALTERED)
def test_a_swapped_index_or_one_off_is_seen(workshop: Workshop, name: str) -> None:
    fault = altered(*ALTERED[name])
    assert fault_of(workshop, fault.file, {fault.file: fault.text()}) is not None
