"""Checks `pulse-edge fit` on this CPU: predicts prefill, decode and vision of bundles, and measures
them.

    python -m benchmarks.predictions work/ours/2x4096-…/int4-128 smaller/int4-128 --threads 2

Peaks are measured first, then the engine alone in `bench`'s manner; with one thread both by the
processor's clock, so that other work on the machine does little harm. A line of JSON for each
bundle is added to results/predictions.jsonl. Exits with 1 where a prediction is off by more than
`LIMIT`.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.compare import commit
from pulse_edge import system
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.cli import numbers
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.measure import profiles, roofline
from pulse_edge.measure.baseline import append
from pulse_edge.measure.devices import Device, this_device
from pulse_edge.measure.sweep import Settings, plan_runs, sweep
from pulse_edge.measure.tables import number, table

KIND, SCHEMA = "prediction", 1  # of a record
RESULTS = Path(__file__).parent / "results" / "predictions.jsonl"
LIMIT = 0.25


def check(
    path: Path, device: Device, threads: int, settings: Settings, views: int
) -> dict[str, Any]:
    """JSON-ready; seconds of a prefill, of one step, and of the views."""
    bundle = open_bundle(path, check_hashes=False)
    geometry = dataclasses.replace(profiles.geometry_of_bundle(bundle), views=views)
    profile = profiles.profile_of_bundle(bundle, geometry)
    weights = profiles.stored_weights(geometry, profile)
    read = weights.decoder + weights.head
    engine = open_engine(bundle, EngineOptions("cpu", threads))
    clock = time.process_time if threads == 1 else time.perf_counter
    runs, _ = plan_runs(settings, engine.capacity)
    sweep(engine, geometry.text, settings, runs, clock=clock)
    found = {}
    for run in runs:
        if run.kind == "pp":
            predicted = roofline.prefill_seconds(geometry.text, profile, device, read, run.tokens)
        else:
            predicted = sum(
                roofline.step_seconds(geometry.text, profile, device, read, run.depth + i)
                for i in range(run.tokens)
            )
        found[run.name] = predicted, statistics.median(run.seconds)
    if views:
        predicted = roofline.vision_seconds(geometry, profile, device)
        found[f"vision{views}"] = predicted, _vision(engine, geometry, settings, clock)
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit(),
        "machine": system.describe(),
        "threads": threads,
        "device": dataclasses.asdict(device),
        "way": dataclasses.asdict(profile),
        "text": dataclasses.asdict(geometry.text),
        "repetitions": settings.repetitions,
        "points": {
            name: {"predicted": predicted, "measured": measured, "off": predicted / measured - 1}
            for name, (predicted, measured) in found.items()
        },
    }


def _vision(
    engine: Any, geometry: profiles.Geometry, settings: Settings, clock: Callable[[], float]
) -> float:
    side = geometry.vision.image_size
    pixels = np.random.default_rng(0).standard_normal((geometry.views, 3, side, side), np.float32)
    seconds = []
    for _ in range(settings.warmup + settings.repetitions):
        start = clock()
        engine.encode(pixels)
        seconds.append(clock() - start)
    return statistics.median(seconds[settings.warmup :])


def rows_of(records: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """What was predicted, what was measured, and how far off that is."""
    rows: list[tuple[str, ...]] = [("fit's predictions", "", "predicted", "measured", "off by")]
    for record in records:
        sizes, way = record["text"], record["way"]
        name = f"{sizes['layers']} x {sizes['hidden']}, {way['precision']}, cache {way['cache']}"
        for point, p in record["points"].items():
            rows.append(
                (
                    name,
                    point,
                    number(p["predicted"], "s"),
                    number(p["measured"], "s"),
                    f"{p['off']:+.0%}",
                )
            )
    return rows


@click.command(context_settings={"show_default": True})
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--threads", default=0)
@click.option("-r", "--repetitions", type=click.IntRange(1), default=3)
@click.option("--prompt-lengths", callback=numbers, default="512,2933")
@click.option("--depths", callback=numbers, default="0,3000")
@click.option("-n", "--steps", type=click.IntRange(2), default=16)
@click.option("--views", default=5, help="Through the vision tower; 0 leaves it out.")
@click.option(
    "--append", "out", type=click.Path(path_type=Path), default=RESULTS, help="[default: results/…]"
)
def main(
    bundles: tuple[Path, ...], threads: int, repetitions: int, prompt_lengths: tuple[int, ...],
    depths: tuple[int, ...], steps: int, views: int, out: Path,
) -> None:  # fmt: skip
    """Predict and measure BUNDLES."""
    threads = threads or system.physical_cores()
    device = this_device(threads)
    settings = Settings(repetitions, 1, 1, steps, prompt_lengths, depths)
    records = [check(path, device, threads, settings, views) for path in bundles]
    out.parent.mkdir(exist_ok=True)
    for record in records:
        append(out, record)
    click.echo(table(rows_of(records), left=(0, 1)))
    if any(abs(p["off"]) > LIMIT for record in records for p in record["points"].values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
