"""gemv.cu on the CPU: the same source, compiled by a C++ compiler over cuda_shim.h."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.gpu.gemv.check import Array, Problem
from benchmarks.gpu.gemv.kernels import SOURCE, Loads, Variant

HERE = SOURCE.parent
FAULTS = {
    1: "threads wait for each other",
    2: "an access outside the arguments",
    3: "shared memory written past its end",
    4: "a wait for a barrier that is not initialized",
}
# Every way to load, several rows, rings that wrap, warps with unequal shares of K.
SAMPLES = (
    Variant(Loads.REGISTERS, 4096, 8),
    Variant(Loads.ASYNC, 4096, 8, stages=4, ctas=2),
    Variant(Loads.BULK, 4096, 8, stages=2, ctas=2),
    Variant(Loads.BULK, 4096, 4, stages=1, ctas=2, norm=False),
    Variant(Loads.ASYNC, 11008, 16, stages=3, ctas=1, norm=False),
    Variant(Loads.ASYNC, 4096, 8, stages=4, ctas=1, rows=8),
    Variant(Loads.ASYNC, 11008, 6, stages=3, ctas=1, rows=8, norm=False),
)


class EmulationError(Exception):
    """It cannot be compiled, or a fault of the kernel was found."""


def compiler() -> str | None:
    return shutil.which("g++") or shutil.which("clang++")


@dataclass(frozen=True)
class Emulated:
    """A variant compiled for the CPU."""

    variant: Variant
    library: ctypes.CDLL

    def run(self, problem: Problem, *, ctas: int, seed: int = 0, late: bool = False) -> Array:
        """y [rows, n] float16.

        Args:
            ctas: CTAs of the grid.
            seed: of the order in which warps and lanes run.
            late: asynchronous copies happen when they are waited for, else when they are issued.

        Raises:
            EmulationError: a fault of the kernel was found.
        """
        n = len(problem.w)
        y = np.full((self.variant.rows, n), np.nan, np.float16)
        operands = (problem.w, problem.scales, problem.x, problem.norm, problem.residual)
        aligned = [_aligned(array) for array in operands]
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (*aligned, y)]
        fault = self.library.emulate(
            *pointers, ctypes.c_int(n), ctypes.c_int(ctas), ctypes.c_uint(seed), ctypes.c_int(late)
        )
        if fault:
            raise EmulationError(f"{self.variant.name}: {FAULTS.get(fault, fault)}")
        return y


def build(variant: Variant, folder: Path, source: str | None = None) -> Emulated:
    """Compile a variant.

    Args:
        variant: its macros.
        folder: where the library is written.
        source: instead of gemv.cu; tests pass one with a fault.

    Raises:
        EmulationError: there is no compiler, or it refuses.
    """
    command = compiler()
    if command is None:
        raise EmulationError("no C++ compiler (g++ or clang++)")
    folder.mkdir(parents=True, exist_ok=True)
    include = HERE
    if source is not None:
        include = folder
        (folder / "gemv.cu").write_text(source)
        for name in ("cuda_shim.h", "emulate.cpp"):
            shutil.copy(HERE / name, folder / name)
    library = folder / "gemv.so"
    defines = [f"-D{name}={int(value)}" for name, value in variant.defines.items()]
    options = ["-O1", "-std=c++17", "-w", "-shared", "-fPIC", *defines]
    process = subprocess.run(
        [command, *options, str(include / "emulate.cpp"), "-o", str(library)],
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        raise EmulationError(f"{command}: {process.stderr.strip()[:500]}")
    return Emulated(variant, ctypes.CDLL(str(library)))


def _aligned(array: Array) -> Array:
    """A copy that starts at a multiple of 16 bytes, as device memory does."""
    memory = np.empty(array.nbytes + 16, np.uint8)
    start = -memory.ctypes.data % 16
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
