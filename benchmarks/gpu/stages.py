"""Item: from a page to the first token and on, stage by stage, of one bundle.

    python -m benchmarks.gpu.stages WORK --bundle BUNDLE --variant int4:128:cuda

Times are the wall clock's, medians in milliseconds with the smallest and largest. `views to first
token` starts from normalised views: vision and prefill; what comes before is the host's work on the
file, a row of its own.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.gpu.emit import emit
from pulse_edge import system
from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.engines.engine import Engine, Rows
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.measure import bench
from pulse_edge.measure.requests import QUESTIONS
from pulse_edge.model import Model

PAGE_TOKENS = 2933  # of PULSE-7B's prompt with a page
CONTEXT = 4096


def spread(seconds: list[float]) -> dict[str, float]:
    """Milliseconds."""
    digits = [round(1e3 * s, 4) for s in seconds]
    return {"ms": statistics.median(digits), "ms_min": min(digits), "ms_max": max(digits)}


def timed(
    work: Callable[[], Any], runs: int, before: Callable[[], Any] = lambda: None
) -> list[float]:
    """Seconds of each run, after one that is thrown away."""
    seconds = []
    for _ in range(runs + 1):
        before()
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def requests(model: Model, runs: int) -> None:
    """A page's question, cold and warm, as a user asks it."""
    page = bench.PAGE.read_bytes()
    stages: dict[str, list[float]] = {}
    for number in range(runs + 1):
        model.forget()
        answer = model.ask(page, QUESTIONS[0], max_new_tokens=1)
        warm = model.ask(page, QUESTIONS[1], max_new_tokens=1)
        t = answer.timings
        assert t.ttft is not None
        assert warm.timings.ttft is not None
        host = t.decode_image + t.preprocess
        row = {
            "file to pixels": t.decode_image,
            "pixels to views": t.preprocess,
            "vision": t.vision,
            "prefill": t.prefill,
            "views to first token": t.ttft - host,
            "file to first token": t.ttft,
            "second question": warm.timings.ttft,
        }
        for name, seconds in row.items() if number else ():
            stages.setdefault(name, []).append(seconds)
    for name, samples in stages.items():
        emit("stage", stage=name, tokens=answer.usage.prompt_tokens, **spread(samples))


def answers(model: Model, tokens: int) -> None:
    """Tokens per second of a whole answer, and what our own loop takes of a token."""
    model.ask(None, "Normal?", max_new_tokens=4)
    t = model.ask(bench.PAGE.read_bytes(), QUESTIONS[0], max_new_tokens=tokens).timings
    if t.tpot and t.decode_steps:
        step = statistics.fmean(t.decode_steps)
        emit(
            "answer", tokens=len(t.decode_steps) + 1, tpot_ms=1e3 * t.tpot, step_ms=1e3 * step,
            outside_engine_ms=1e3 * (t.tpot - step),
        )  # fmt: skip


def chunks(engine: Engine, rows: Rows, runs: int) -> None:
    """A page's prompt in pieces: by how many tokens at a time."""
    for chunk in (len(rows), 2048, 1024, 512):

        def feed(chunk: int = chunk) -> None:
            for at in range(0, len(rows), chunk):
                engine.prefill(rows[at : at + chunk])

        emit(
            "prefill by",
            chunk=chunk,
            tokens=len(rows),
            device_memory=system.device_memory(os.getpid()),
            **spread(timed(feed, runs, lambda: engine.rewind(0))),
        )


def steps(engine: Engine, rows: Rows, runs: int, depths: tuple[int, ...]) -> None:
    """Steps at a depth: tokens chosen on the device, logits read, several rows at once."""
    for depth in depths:
        engine.rewind(0)
        if depth:
            engine.prefill(rows[:depth])
        for count in (1, 2, 4, 8, 16):
            ways = (
                {"choose": engine.choose, "step": engine.step}
                if count in (1, 8)
                else {"choose": engine.choose}
            )
            for name, way in ways.items():
                part = rows[:count]
                seconds = timed(lambda w=way, p=part: w(p), runs, lambda d=depth: engine.rewind(d))  # type: ignore[misc]
                emit("step of rows", way=name, rows=count, depth=depth, **spread(seconds))


def run(bundle: Bundle, variant: str, dry_run: bool) -> None:
    start = time.perf_counter()
    engine = open_engine(
        bundle, EngineOptions(context=min(CONTEXT, bundle.manifest.model.text.context))
    )
    emit("loaded", variant=variant, seconds=time.perf_counter() - start, engine=engine.describe())
    runs = 2 if dry_run else 7
    model = Model(bench.endless(bundle), engine)
    requests(model, runs)
    emit("memory", device_memory=system.device_memory(os.getpid()))
    answers(model, 4 if dry_run else 128)
    model.forget()
    most = min(PAGE_TOKENS, engine.capacity - 20)
    vocab = bundle.manifest.model.text.vocab
    rows = engine.rows(np.random.default_rng(0).integers(3, vocab, 3000))
    steps(engine, rows, 4 if dry_run else 24, (0, min(3000, most)))
    chunks(engine, rows[:most], 1 if dry_run else 5)


@click.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--bundle", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--variant", required=True, help="Of the bundle, for the record.")
@click.option("--dry-run", is_flag=True)
def main(work: Path, bundle: Path, variant: str, dry_run: bool) -> None:
    """Time one BUNDLE's stages."""
    run(open_bundle(bundle, check_hashes=False), variant, dry_run)


if __name__ == "__main__":
    main()
