"""python -m benchmarks.gpu.gemv WORK [--dry-run] [--layers N]"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.gpu.emit import emit
from benchmarks.gpu.gemv import check, emulation, nvrtc
from benchmarks.gpu.gemv.driver import CudaError, Gpu
from benchmarks.gpu.gemv.kernels import LAYER, OLDEST_ARCH, SOURCE, Loads, Variant, candidates
from benchmarks.gpu.gemv.measure import Measurement, NothingMeasured

ARCHITECTURES = (75, 80, 86, 87, 89, 90, 100, 110, 120)
DETAILED = 90  # the architecture that a dry run compiles every way to load for
TILES = 3  # of a dry run's products


def main(arguments: Sequence[str] | None = None) -> int:
    """The item. 0 where something was measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.gemv", description=__doc__)
    parser.add_argument("work", type=Path, help="folder for temporary files")
    parser.add_argument("--dry-run", action="store_true", help="emulate and compile; no GPU")
    parser.add_argument("--layers", type=int, default=32)
    options = parser.parse_args(arguments)
    try:
        if options.dry_run:
            dry_run(options.work / "gemv")
        else:
            measure(options.layers)
    except (CudaError, NothingMeasured, emulation.EmulationError) as error:
        print(str(error).replace("\n", " "), file=sys.stderr)
        return 1
    return 0


def measure(layers: int) -> None:
    """On the GPU."""
    gpu = Gpu()
    compiler = nvrtc.find(gpu.arch)
    if compiler is None:
        hint = "pip install nvidia-cuda-nvrtc, or put nvcc on PATH"
        raise NothingMeasured(f"no compiler for sm_{gpu.arch}: {hint}")
    emit("gemv machine", card=gpu.name, arch=gpu.arch, compiler=compiler.name)
    measurement = Measurement(gpu, compiler, layers, SOURCE.read_text())
    try:
        measurement.run()
    except CudaError as error:
        if not measurement.measured:
            raise
        emit("gemv stopped", reason=str(error))
    finally:
        measurement.close()


def dry_run(folder: Path) -> None:
    """Run small products on the CPU, and compile for architectures that may not be here."""
    if emulation.compiler() is None:
        emit("gemv emulation", skipped="no C++ compiler")
    else:
        jobs = [(folder / str(number), variant) for number, variant in enumerate(emulation.SAMPLES)]
        with ThreadPoolExecutor(2) as pool:
            wrong = [text for text in pool.map(lambda job: _emulate(*job), jobs) if text]
        if wrong:
            raise emulation.EmulationError("; ".join(wrong))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(_compile, ARCHITECTURES))


def _emulate(folder: Path, variant: Variant) -> str | None:
    """Emit a variant's error; what is wrong with it."""
    problem = check.random_problem(TILES * 16, variant.k, variant.rows)
    y = emulation.build(variant, folder).run(problem, ctas=2, late=True)
    error = check.relative_error(y, check.reference(problem, variant.norm))
    emit(
        "gemv emulation",
        variant=variant.name,
        k=variant.k,
        rows=variant.rows,
        error=float(f"{error:.2g}"),
    )
    return None if error <= check.MOST_ERROR else f"{variant.name}: relative error {error:.1e}"


def _compile(arch: int) -> None:
    """Emit registers and spills for an architecture: of one way to load, of all for one."""
    compiler = nvrtc.find(arch)
    if compiler is None:
        emit("gemv compile", arch=arch, skipped="no compiler")
        return
    first_of = {variant.loads: variant for variant in reversed(candidates(LAYER[0]))}
    every = [loads for loads in Loads if OLDEST_ARCH[loads] <= arch]
    for loads in every if arch == DETAILED else every[:2][-1:]:
        variant = first_of[loads]
        try:
            compiled = compiler.compile(SOURCE.read_text(), arch, variant.defines)
        except nvrtc.CompileError as error:
            emit("gemv compile", arch=arch, variant=variant.name, failed=str(error)[:300])
            continue
        emit(
            "gemv compile",
            arch=arch,
            variant=variant.name,
            registers=compiled.registers,
            spill_bytes=compiled.spill_bytes,
            compiler=compiler.name,
        )


if __name__ == "__main__":
    sys.exit(main())
