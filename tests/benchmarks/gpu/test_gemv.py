"""The int4 kernels of benchmarks/gpu/gemv, on the CPU: the same source that a GPU runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu.gemv import __main__ as item
from benchmarks.gpu.gemv import check, emulation, kernels, nvrtc
from benchmarks.gpu.gemv.check import Array, Problem
from benchmarks.gpu.gemv.driver import CudaError
from benchmarks.gpu.gemv.kernels import HEAD, LAYER, SOURCE, Loads, Variant

TEXT = SOURCE.read_text()
REGISTERS, ASYNC, BULK = emulation.SAMPLES[:3]
no_compiler = emulation.compiler() is None
needs_compiler = pytest.mark.skipif(no_compiler, reason="no C++ compiler (g++ or clang++)")


def small(variant: Variant, tiles: int = 2) -> tuple[Problem, Array]:
    """Random operands and what they must give."""
    problem = check.random_problem(16 * tiles, variant.k, variant.rows)
    return problem, check.reference(problem, variant.norm)


def error_of(source: str, variant: Variant, folder: Path, late: bool = False) -> float:
    """The largest of two orders; infinite for a fault that the emulator finds itself."""
    problem, expected = small(variant, tiles=3)
    errors = []
    try:
        kernel = emulation.build(variant, folder, source)
        for seed in range(2):
            y = kernel.run(problem, ctas=1, seed=seed, late=late)
            errors.append(check.relative_error(y, expected))
    except emulation.EmulationError:
        return float("inf")
    return float(np.max(errors))


def without(text: str, source: str = TEXT) -> str:
    """The source without a line that it has exactly once."""
    assert source.count(text) == 1, text
    return source.replace(text, "")


@needs_compiler
@pytest.mark.parametrize("variant", emulation.SAMPLES, ids=lambda v: f"{v.name}-{v.k}-{v.rows}")
def test_every_variant_is_right_in_any_order(variant: Variant, tmp_path: Path) -> None:
    """Outputs begin as NaN; tiles are no multiple of CTAs; copies happen early and late."""
    kernel = emulation.build(variant, tmp_path)
    problem, expected = small(variant)
    first = kernel.run(problem, ctas=1, seed=1)
    assert check.relative_error(first, expected) < check.MOST_ERROR
    other = kernel.run(problem, ctas=2, seed=99, late=True)
    assert other.tobytes() == first.tobytes()


@needs_compiler
@pytest.mark.parametrize(
    ("variant", "source"),
    [
        pytest.param(
            REGISTERS,
            without("    __syncthreads();  // one a tile: the next tile writes the other half"),
            id="barrier before the sum over warps",
        ),
        pytest.param(
            REGISTERS,
            without("  __syncthreads();  // every warp has its part of the squares"),
            id="barrier of RMSNorm",
        ),
        pytest.param(
            REGISTERS,
            TEXT.replace("ZERO_POINT = 8.f", "ZERO_POINT = 7.f"),
            id="zero point",
        ),
        pytest.param(
            REGISTERS,
            without("  wait_for_previous_kernel();\n"),
            id="wait for the kernel before",
        ),
        pytest.param(
            ASYNC,
            TEXT.replace("wait_for_copies<STAGES - 2>", "wait_for_copies<STAGES - 1>"),
            id="wait for one copy less",
        ),
        pytest.param(
            BULK,
            without("    barrier_wait(&s.ready[slot], parity);"),
            id="wait for the tile",
        ),
        pytest.param(
            replace(BULK, norm=False),  # RMSNorm has a barrier of its own
            without("  __syncthreads();  // the barriers are initialized"),
            id="barrier after the barriers",
        ),
    ],
)
def test_faults_are_found(variant: Variant, source: str, tmp_path: Path) -> None:
    assert source != TEXT
    error = error_of(source, variant, tmp_path, late=variant.loads is not Loads.REGISTERS)
    assert not error < check.MOST_ERROR


@needs_compiler
def test_early_copies_find_a_slot_that_is_written_too_soon(tmp_path: Path) -> None:
    soon = TEXT.replace("load_next(slot == 0 ? STAGES - 1 : slot - 1);", "load_next(slot);")
    assert soon != TEXT
    assert not error_of(soon, ASYNC, tmp_path) < check.MOST_ERROR


def test_reference_by_hand() -> None:
    """One output of one block: weights q - 8 = -8, -7, … over and over, activations 1."""
    w = np.tile(np.array([0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE], np.uint8), 8)
    problem = Problem(
        w=w[None],
        scales=np.array([[0.5]], np.float16),
        x=np.ones((1, 128), np.float16),
        norm=np.ones(128, np.float16),
        residual=np.array([[3]], np.float16),
    )
    assert check.reference(problem, norm=False) == 128 * -0.5 * 0.5 + 3


def test_shared_memory_fits_every_variant() -> None:
    """227 KB is what an H100 gives a CTA, 228 KB an SM, of which each CTA takes 1 KB more."""
    for shape in (*LAYER, HEAD):
        for variant in (*kernels.candidates(shape), kernels.of_rows(shape, 8)):
            assert variant.shared_bytes <= 227 << 10
            assert max(variant.ctas, 1) * (variant.shared_bytes + 1024) <= 228 << 10


def test_a_step_reads_3_4_gb() -> None:
    total = 32 * sum(shape.bytes for shape in LAYER) + HEAD.bytes
    assert total / 1e9 == pytest.approx(3.41, abs=0.01)


@pytest.mark.parametrize("arch", [75, 90])
def test_kernels_compile_without_spills(arch: int) -> None:
    compiler = nvrtc.find(arch)
    if compiler is None:
        pytest.skip(f"no NVRTC or nvcc for sm_{arch}")
    variants = [v for v in kernels.candidates(LAYER[0]) if kernels.OLDEST_ARCH[v.loads] <= arch]
    first_of = {variant.loads: variant for variant in reversed(variants)}
    for variant in first_of.values():
        compiled = compiler.compile(TEXT, arch, variant.defines)
        assert compiled.cubin[:4] == b"\x7fELF"
        assert not compiled.spill_bytes


def test_a_compiler_that_refuses_says_why() -> None:
    compiler = nvrtc.find(90)
    if compiler is None:
        pytest.skip("no NVRTC or nvcc")
    variant = kernels.candidates(LAYER[0])[0]
    with pytest.raises(nvrtc.CompileError, match="too little shared memory"):
        compiler.compile(TEXT, 90, {**variant.defines, "SHARED_BYTES": 1000})


def test_item_without_a_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(emulation, "compiler", lambda: None)
    monkeypatch.setattr(nvrtc, "find", lambda arch: None)
    assert item.main([str(tmp_path), "--dry-run"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == {"result": "gemv emulation", "skipped": "no C++ compiler"}
    assert {line["skipped"] for line in lines[1:]} == {"no compiler"}


def test_item_without_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_gpu() -> None:
        raise CudaError("no CUDA driver: libcuda.so.1")

    monkeypatch.setattr(item, "Gpu", no_gpu)
    assert item.main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "no CUDA driver: libcuda.so.1"
