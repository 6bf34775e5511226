"""Decode steps of 1, 2, 4 and 8 sequences at once: is a batch worth its cache on a CPU?

    python -m benchmarks.synthetic slice --layers 2
    pulse-edge export slice slice-int4 --precision int4
    python -m benchmarks.batching slice-int4 --layers 32 --append benchmarks/results/batching.jsonl

The decoder's graph is changed to take a batch (graph.py); the weights are the bundle's own. Batch
sizes, depths and the graph without its output matrix are interleaved, in a random order. The cache
holds random numbers. `--layers` says how many layers the whole model has: its step is estimated as
that many layers at the slice's time a layer, and one output matrix.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.batching import KIND, SCHEMA
from benchmarks.batching.options import numbers_option
from benchmarks.batching.steps import BatchedSteps
from benchmarks.batching.tables import rows_of
from pulse_edge import system as machine
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.engines.onnxruntime_library import load_onnxruntime
from pulse_edge.measure.tables import table

Case = tuple[int, int, bool]  # batch, depth, with the output matrix


def measure(
    steps: BatchedSteps, cases: list[Case], sequences: int, repetitions: int, seed: int
) -> dict[Case, list[float]]:
    """Seconds of each case, interleaved. Sequences take turns, so that no cache stays near."""
    rng = np.random.default_rng(seed)
    seconds: dict[Case, list[float]] = defaultdict(list)
    for repetition in range(repetitions + 1):
        for index in rng.permutation(len(cases)):
            batch, depth, head = cases[index]
            first = int(rng.integers(sequences - batch + 1))
            taken, _ = steps(first, batch, depth, head=head)
            if repetition:  # the first round warms up
                seconds[cases[index]].append(taken)
    return seconds


def agreement(steps: BatchedSteps, batch: int, depth: int) -> dict[str, float]:
    """How far a batch's logits are from those of each sequence alone."""
    _, together = steps(0, batch, depth)
    alone = np.concatenate([steps(i, 1, depth)[1] for i in range(batch)])
    spread = float(alone.std())
    return {
        "batch": batch,
        "depth": depth,
        "equal_rows": int((together == alone).all(axis=1).sum()),
        "same_tokens": int((together.argmax(axis=1) == alone.argmax(axis=1)).sum()),
        "largest_difference": float(np.abs(together - alone).max()) / spread,
    }


def points(
    seconds: dict[Case, list[float]], batches: list[int], depths: list[int], layers: int, whole: int
) -> list[dict[str, Any]]:
    """Figures of each batch and depth; `gain` is tokens per second over those of batch 1."""
    rows: list[dict[str, Any]] = []
    for depth in depths:
        for batch in batches:
            full, body = seconds[batch, depth, True], seconds[batch, depth, False]
            estimates = {}
            for name, of in (("min", min), ("median", statistics.median)):
                more = (whole - layers) / layers  # further layers cost what these do
                estimates[name] = of(full) + more * of(body)
            row: dict[str, Any] = {"batch": batch, "depth": depth, "count": len(full)}
            row |= {"step_min": min(full), "step_median": statistics.median(full)}
            row |= {"whole_min": estimates["min"], "whole_median": estimates["median"]}
            rows.append(row)
    for row in rows:
        one = next(r for r in rows if r["depth"] == row["depth"] and r["batch"] == batches[0])
        for name in ("step", "whole"):
            for kind in ("min", "median"):
                share = row["batch"] / batches[0]
                row[f"{name}_gain_{kind}"] = share * one[f"{name}_{kind}"] / row[f"{name}_{kind}"]
    return rows


@click.command(context_settings={"show_default": True})
@click.argument("path", metavar="BUNDLE", type=click.Path(path_type=Path, exists=True))
@click.option("--batches", default="1,2,4,8", callback=numbers_option, help="Sequences of a step.")
@click.option(
    "--depths", default="512,3000", callback=numbers_option, help="Cached positions of each."
)
@click.option("--threads", default=2, type=click.IntRange(min=1))
@click.option("--repetitions", default=15, type=click.IntRange(min=1))
@click.option("--layers", default=0, help="Layers of the whole model; 0: those of the bundle.")
@click.option("--seed", default=0)
@click.option("--json", "as_json", is_flag=True, help="Print the record instead of a table.")
@click.option("--append", type=click.Path(path_type=Path, dir_okay=False))
def main(
    path: Path,
    batches: list[int],
    depths: list[int],
    threads: int,
    repetitions: int,
    layers: int,
    seed: int,
    as_json: bool,
    append: Path | None,
) -> None:
    """Time decode steps of BUNDLE, which is for the CPU."""
    bundle = open_bundle(path, check_hashes=False)
    text = bundle.manifest.model.text
    sequences = max(batches)
    steps = BatchedSteps(bundle, threads, sequences, max(depths) + 1, seed)
    cases = [(b, d, head) for d in depths for b in batches for head in (True, False)]
    load_before = machine.describe()["load_average"]
    seconds = measure(steps, cases, sequences, repetitions, seed)
    record = {
        "kind": KIND,
        "schema": SCHEMA,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.describe() | {"load_average": load_before},
        "threads": threads,
        "repetitions": repetitions,
        "onnxruntime": load_onnxruntime().__version__,
        "bundle": bundle.manifest.checkpoint.name,
        "precision": bundle.manifest.precision.name,
        "kv_cache": bundle.manifest.precision.kv_cache,
        "hidden": text.hidden,
        "layers": text.layers,
        "whole_layers": layers or text.layers,
        "points": points(seconds, batches, depths, text.layers, layers or text.layers),
        "agreement": [agreement(steps, b, d) for d in depths for b in batches if b > 1],
    }
    if append:
        append.parent.mkdir(parents=True, exist_ok=True)
        with append.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
    click.echo(json.dumps(record) if as_json else table(rows_of(record)))


if __name__ == "__main__":
    main()
