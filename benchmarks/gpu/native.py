"""Item: decode steps by our own kernels next to ONNX Runtime's, on one bundle, in turns.

    python -m benchmarks.gpu.native WORK --bundle BUNDLE --variant int4:128:cuda

Both engines are open at once and take turns, so that clocks are the same for both. The memory that
each takes is measured before, in a process of its own: it is what of the GPU's memory is no longer
free after a page's prompt and a step of each size, with CUDA's context.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.gpu.emit import emit
from benchmarks.gpu.stages import CONTEXT, spread
from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.engines import cuda_driver
from pulse_edge.engines.engine import Engine, Rows
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import engine_module, open_engine

BASE, NATIVE = "onnxruntime", "native"
DEPTHS = (0, 3000)
ROWS = (1, 2, 4, 8)
PROMPT = 2933  # tokens of a page's question
STEPS, ROUNDS = 32, 5  # of a round; rounds of each engine


def opened(bundle: Bundle, name: str, variant: str, rows: int) -> Engine:
    """An engine that has run."""
    start = time.perf_counter()
    context = min(CONTEXT, bundle.manifest.model.text.context)
    engine = open_engine(bundle, EngineOptions(context=context, engine=name))
    seconds = time.perf_counter() - start
    engine.prefill(engine.rows(np.arange(3, 3 + rows)))
    for count in ROWS:
        engine.choose(engine.rows(np.arange(3, 3 + count)))
    engine.reset()
    emit("opened", variant=variant, engine=name, seconds=seconds, about=engine.describe())
    return engine


def free_memory() -> int | None:
    """Bytes of the GPU."""
    memory = cuda_driver.gpu_memory()
    return memory[0] if memory else None


def memory_in_a_process(work: Path, bundle: Bundle, name: str, variant: str) -> None:
    """Bytes that an engine takes of the GPU."""
    arguments = (str(work), "--bundle", str(bundle.path), "--variant", variant, "--memory-of", name)
    done = subprocess.run(
        (sys.executable, "-m", "benchmarks.gpu.native", *arguments),
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stdout.splitlines()[-1:] if done.returncode == 0 else []
    if last and last[0].isdigit():
        emit("memory", engine=name, device_memory=int(last[0]))
    else:
        emit("memory", engine=name, reason=done.stderr[-500:])


def print_memory(bundle: Bundle, name: str, variant: str, rows: int) -> None:
    """See `memory_in_a_process`."""
    before = free_memory()
    engine = opened(bundle, name, variant, rows)
    after = free_memory()
    if before is not None and after is not None:
        print(before - after)
    del engine


def step_seconds(engine: Engine, part: Rows, depth: int, steps: int) -> float:
    """Median of steps at a depth, each of which chooses its tokens."""
    seconds = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        engine.choose(part)
        seconds.append(time.perf_counter() - start)
        engine.rewind(depth)
    return statistics.median(seconds[1:])


def compare(engines: dict[str, Engine], steps: int, rounds: int) -> None:
    """Rates and the ratio of each number of rows at each depth."""
    for depth in DEPTHS:
        rows: dict[str, Rows] = {}
        for name, engine in engines.items():
            depth = min(depth, engine.capacity - max(ROWS))
            numbers = np.random.default_rng(0).integers(3, 200, depth + max(ROWS))
            rows[name] = engine.rows(numbers)
            engine.rewind(0)
            if depth:
                engine.prefill(rows[name][:depth])
        for count in ROWS:
            seconds: dict[str, list[float]] = {name: [] for name in engines}
            for _ in range(rounds):
                for name, engine in engines.items():
                    part = rows[name][depth : depth + count]
                    seconds[name].append(step_seconds(engine, part, depth, steps))
            for name, samples in seconds.items():
                emit("step", engine=name, rows=count, depth=depth, **spread(samples))
            if len(engines) > 1:
                ratios = [a / b for a, b in zip(seconds[BASE], seconds[NATIVE], strict=True)]
                ratio = round(statistics.median(ratios), 4)
                emit("speedup", rows=count, depth=depth, ratio=ratio)


def run(work: Path, bundle: Bundle, variant: str, dry_run: bool) -> None:
    """Compare the engines; a dry run, on a CPU, has ONNX Runtime alone."""
    if not dry_run and (problem := engine_module(NATIVE).why_not(bundle)):
        emit("skipped", reason=f"the kernels cannot run {variant}: {problem}")
        return
    names = (BASE,) if dry_run else (BASE, NATIVE)
    prompt = 16 if dry_run else PROMPT
    for name in () if dry_run else names:
        memory_in_a_process(work, bundle, name, variant)
    engines = {name: opened(bundle, name, variant, prompt) for name in names}
    compare(engines, *((2, 1) if dry_run else (STEPS, ROUNDS)))
    summary: dict[str, Any] = {"engines": len(engines)}
    if NATIVE in engines:
        about = engines[NATIVE].describe()["native"]
        summary["self_check"] = about.get("self_check")
    emit("summary", **summary)


@click.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--bundle", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--variant", required=True, help="Of the bundle, for the record.")
@click.option("--memory-of", metavar="ENGINE", help="Only print what it takes of the GPU.")
@click.option("--dry-run", is_flag=True)
def main(work: Path, bundle: Path, variant: str, memory_of: str | None, dry_run: bool) -> None:
    """Time both engines' steps over one BUNDLE."""
    checked = open_bundle(bundle, check_hashes=False)
    if memory_of:
        print_memory(checked, memory_of, variant, PROMPT)
    else:
        run(work, checked, variant, dry_run)


if __name__ == "__main__":
    main()
