"""What each precision costs in answers: a checkpoint exported in all of them, compared with its
fp32 bundle.

    python -m benchmarks.accuracy    # pulse-nano, every row, 100 pages
    python -m benchmarks.accuracy --rows cpu --append    # what compare.py times, for the report
    python -m benchmarks.accuracy CHECKPOINT --pages 0 --rows int8,w8a8
    python -m benchmarks.accuracy --rows w8a8-naive,w8a8 --fail-over 0.5    # SmoothQuant's gate
    python -m benchmarks.accuracy --rows int4,int4-32-auto --pages 0    # recipes of 4 bits
    python -m benchmarks.accuracy --formats    # the codes alone, against llama.cpp's formats

Logits: fp32 writes its report of each page; every bundle reads the page, the question and that
report, and its logits at the report's positions are compared. Tasks: `pulse-edge eval`. All on the
CPU: W8A8 is simulated by ONNX Runtime, which runs TensorRT's graph with its codes and scales. Pages
are simulated, other ones than the calibration's.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import recipes
from benchmarks.compare import commit
from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.cli.status import Status
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.evaluate.registry import make_task
from pulse_edge.evaluate.run import evaluate_bundles
from pulse_edge.evaluate.scoring import MEAN
from pulse_edge.measure import baseline as figures
from pulse_edge.page import views as images
from pulse_edge.page.tokens import image_rows
from pulse_edge.simulation import cases
from pulse_edge.text.template import prompt_rows
from pulse_export.pipeline import export
from pulse_export.quantize.precision import BLOCK_SIZES
from pulse_export.quantize.recipe import Recipe
from pulse_export.quantize.rounding import ROWS as RECIPES
from pulse_export.verify import Floats, kl_divergence, prompt_ids

REPORT_TOKENS = 120
CHECKPOINT = Path(__file__).parent.parent / "pulse_nano" / "pulse-nano"


@dataclass(frozen=True)
class Row:
    """One way to export; `alpha` where activations are calibrated: 0 is the naive recipe."""

    precision: str
    target: str
    alpha: float | None = None
    block_size: int | None = None
    cache: str = "float"
    head: str | None = None
    recipe: str | None = None


ROWS = {
    "fp32": Row("fp32", "cpu"),
    "int8": Row("int8", "cpu"),
    "int4": Row("int4", "cpu"),
    "int4-128": Row("int4", "cpu", block_size=128),
    "int8-kv8": Row("int8", "cpu", cache="int8"),
    "int4-128-kv8": Row("int4", "cpu", block_size=128, cache="int8"),
    "int4-128-head4": Row("int4", "cpu", block_size=128, head="int4"),
    "int4-128-head4-kv8": Row("int4", "cpu", block_size=128, cache="int8", head="int4"),
    "w8a8-cpu": Row("w8a8", "cpu"),
    "w8a8-cpu-kv8": Row("w8a8", "cpu", cache="int8"),
    "fp16-standard": Row("fp16", "standard"),
    "int8-standard": Row("int8", "standard"),
    "int4-standard": Row("int4", "standard"),
    "w8a8-naive": Row("w8a8", "standard", alpha=0),
    "w8a8": Row("w8a8", "standard", alpha=Recipe.alpha),
}
ROWS |= {
    f"int4-{block}-{recipe}": Row("int4", "cpu", block_size=block, recipe=recipe)
    for block in BLOCK_SIZES
    for recipe in RECIPES
}
CPU = [name for name, row in ROWS.items() if row.target == "cpu" and row.recipe is None]
KIND, SCHEMA = "accuracy", 1  # of a record
RESULTS = Path(__file__).parent / "results" / "accuracy.jsonl"


@dataclass(frozen=True)
class Logits:
    """A bundle's logits against fp32's over `positions` tokens of reports. KL in nats."""

    positions: int
    kl_mean: float
    top1: float
    cosine_mean: float
    cosine_min: float


def answer_logits(
    bundle: Bundle, pages: list[Any], answers: list[list[int]] | None
) -> list[tuple[Floats, list[int]]]:
    """For each page the logits [tokens, vocab] that choose a report's tokens, and those tokens:
    `answers`, or the bundle's own greedy choice.
    """
    engine, ids = open_engine(bundle, EngineOptions("cpu", threads=2)), prompt_ids(bundle)
    spec = bundle.manifest.model
    out = []
    for at, page in enumerate(pages):
        engine.rewind(0)
        pixels = images.preprocess(page, spec)
        numbers = prompt_rows(ids, image_rows(len(pixels), page.size, spec, engine.table_rows))
        rows = [engine.prefill(engine.rows(numbers, engine.encode(pixels))).copy()]
        if answers is None:
            chosen = [int(rows[0].argmax())]
            while len(chosen) < REPORT_TOKENS and chosen[-1] not in spec.text.eos:
                rows.append(engine.step(engine.rows(np.array(chosen[-1:])))[0].copy())
                chosen.append(int(rows[-1].argmax()))
        else:
            chosen = answers[at]
            rows += list(engine.step(engine.rows(np.array(chosen[:-1])))) if len(chosen) > 1 else []
        out.append((np.stack(rows), chosen))
    return out


def compare(expected: list[Floats], got: list[Floats]) -> Logits:
    p, q = np.concatenate(expected).astype(np.float64), np.concatenate(got).astype(np.float64)
    cosine = (p * q).sum(1) / np.linalg.norm(p, axis=1) / np.linalg.norm(q, axis=1)
    top1 = float((p.argmax(1) == q.argmax(1)).mean())
    return Logits(
        len(p), float(kl_divergence(p, q).mean()), top1, float(cosine.mean()), float(cosine.min())
    )


def rows_of(
    bundles: dict[str, Bundle], logits: dict[str, Logits], tasks: dict[str, Any]
) -> list[list[str]]:
    """A header, and a row for each bundle."""
    first = next(iter(bundles))
    rows = [
        [
            "",
            "MB",
            "KL, nats",
            "top-1",
            "cosine, mean",
            "min",
            "tasks, mean",
            f"against {first}, points",
        ]
    ]
    for name, bundle in bundles.items():
        row = logits.get(name)
        cells = [f"{bundle.size / 1e6:.1f}"]
        cells += (
            [
                f"{row.kl_mean:.2e}",
                f"{row.top1:.2%}",
                f"{row.cosine_mean:.6f}",
                f"{row.cosine_min:.6f}",
            ]
            if row
            else ["–"] * 4
        )
        value = tasks[name][MEAN]["value"] if tasks else None
        loss = 100 * (value - tasks[first][MEAN]["value"]) if value is not None else None
        cells += [
            f"{value:.4f}" if value is not None else "–",
            f"{loss:+.2f}" if loss is not None else "–",
        ]
        rows.append([name, *cells])
    return rows


def table(rows: list[list[str]]) -> str:
    """Markdown."""
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "| --- |" + " ---: |" * 7, *body])


def make_bundles(
    checkpoint: Path, rows: list[str], folder: Path, recipe: Recipe
) -> dict[str, Bundle]:
    """Exports those that are not in the folder yet."""
    for name in rows:
        row = ROWS[name]
        calibration = None
        if row.alpha is not None:
            alpha = recipe.alpha if row.alpha else 0
            calibration = Recipe(recipe.images, recipe.prompts, recipe.samples, alpha)
        elif row.recipe is not None and RECIPES[row.recipe].takes_data:
            calibration = Recipe(recipe.images, recipe.prompts, recipe.samples)
        if not (folder / name).exists():
            export(
                checkpoint,
                folder / name,
                precision=row.precision,
                target=row.target,
                block_size=row.block_size,
                calibration=calibration,
                cache=row.cache,
                head=row.head,
                recipe=row.recipe,
            )
    return {name: open_bundle(folder / name) for name in rows}


@click.command(help=(__doc__ or "").split("\n\n", 1)[0])
@click.argument("checkpoint", type=click.Path(path_type=Path), default=CHECKPOINT)
@click.option(
    "--rows",
    default=",".join(name for name, row in ROWS.items() if row.recipe is None),
    show_default=True,
    help="What to compare with fp32; cpu: all of it; also int4-BLOCK-RECIPE.",
)
@click.option(
    "--pages",
    default=100,
    show_default=True,
    help="Held-out pages for the tasks; 0 leaves them out.",
)
@click.option(
    "--logit-pages", default=24, show_default=True, help="Of these, how many for the logits."
)
@click.option("--samples", default=Recipe.samples, show_default=True, help="Calibration pages.")
@click.option("--alpha", default=Recipe.alpha, show_default=True, help="SmoothQuant's.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="Directory of pages [default: simulated ones].",
)
@click.option(
    "--prompts", type=click.Path(path_type=Path), help="Conversations, in ECGInstruct's format."
)
@click.option("--workers", default=os.cpu_count() or 1, show_default=True)
@click.option(
    "--keep",
    type=click.Path(path_type=Path),
    help="Leave the bundles here, and use those that are there.",
)
@click.option(
    "--formats",
    is_flag=True,
    help="Compare 4-bit codes alone, ours and llama.cpp's (benchmarks.recipes has the options).",
)
@click.option("--json", "as_json", is_flag=True)
@click.option("--append", is_flag=True, help=f"Add a line of JSON to results/{RESULTS.name}.")
@click.option(
    "--fail-over",
    type=float,
    metavar="POINTS",
    help="Exit with 9 where the last row loses more on the mean.",
)
def main(
    checkpoint: Path,
    rows: str,
    pages: int,
    logit_pages: int,
    samples: int,
    alpha: float,
    calibration: Path | None,
    prompts: Path | None,
    workers: int,
    keep: Path | None,
    formats: bool,
    as_json: bool,
    append: bool,
    fail_over: float | None,
) -> None:
    if formats:
        _compare_formats(checkpoint, logit_pages, samples, calibration, prompts, as_json, append)
        return
    names = list(dict.fromkeys(["fp32", *(CPU if rows == "cpu" else rows.split(","))]))
    unknown = sorted(set(names) - ROWS.keys())
    if unknown:
        raise click.UsageError(f"unknown row {unknown[0]!r}; there are {', '.join(ROWS)}")
    if fail_over is not None and not pages:
        raise click.UsageError("--fail-over needs --pages")
    task = make_task("simulated", pages)
    recipe = Recipe(calibration, prompts, samples, alpha)
    with tempfile.TemporaryDirectory() as scratch, Status() as status:
        folder = keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        bundles = make_bundles(checkpoint, names, folder, recipe)
        logits = logits_of(bundles, logit_pages) if logit_pages else {}
        tasks: dict[str, Any] = {}
        if pages:
            paths = [str(folder / name) for name in names]
            scores = evaluate_bundles(task, paths, workers, EngineOptions("cpu"), status)
            tasks = task.report(names, scores)["scores"]
    shown = rows_of(bundles, logits, tasks)
    made = record(bundles, logits, tasks, pages, logit_pages, shown)
    if append:
        RESULTS.parent.mkdir(exist_ok=True)
        figures.append(RESULTS, made)
    if as_json:
        click.echo(json.dumps(made))
    else:
        click.echo(table(shown))
        if tasks:
            click.echo("\n" + task.table({"scores": tasks}))
    if fail_over is not None and (loss := points_lost(tasks, names[-1])) > fail_over:
        click.echo(
            f"{names[-1]} loses {loss:.2f} points on the mean of the tasks, over {fail_over:g}",
            err=True,
        )
        sys.exit(9)


def _compare_formats(
    checkpoint: Path,
    pages: int,
    samples: int,
    calibration: Path | None,
    prompts: Path | None,
    as_json: bool,
    append: bool,
) -> None:
    """`benchmarks.recipes` on the same checkpoint, pages and calibration."""
    command = [str(checkpoint), "--pages", str(pages), "--samples", str(samples)]
    for option, value in (("--calibration", calibration), ("--prompts", prompts)):
        command += [option, str(value)] if value is not None else []
    command += ["--json"] * as_json + ["--append"] * append
    recipes.main(command, standalone_mode=False)


def points_lost(tasks: dict[str, Any], row: str) -> float:
    """Of a row, on the mean of the tasks, to the first."""
    first = next(iter(tasks.values()))
    return float(100 * (first[MEAN]["value"] - tasks[row][MEAN]["value"]))


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN, which a class is worth that no page has."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def record(
    bundles: dict[str, Bundle],
    logits: dict[str, Logits],
    tasks: dict[str, Any],
    pages: int,
    logit_pages: int,
    rows: list[list[str]],
) -> dict[str, Any]:
    """JSON-ready. rows: the table, as the report shows it."""
    made = {
        n: {"seal": b.digest, "bytes": b.size, "recipe": b.manifest.precision.recipe}
        for n, b in bundles.items()
    }
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit(),
        "checkpoint": asdict(next(iter(bundles.values())).manifest.checkpoint),
        "pages": pages,
        "logit_pages": logit_pages,
        "bundles": made,
        "logits": {n: asdict(r) for n, r in logits.items()},
        "tasks": {n: {m: _finite(v) for m, v in each.items()} for n, each in tasks.items()},
        "rows": rows,
    }


def logits_of(bundles: dict[str, Bundle], count: int) -> dict[str, Logits]:
    """Against the first bundle, which chooses the answers."""
    pages = [cases.heldout_case(index).image for index in range(count)]
    first, *others = bundles
    reference = answer_logits(bundles[first], pages, None)
    answers = [chosen for _, chosen in reference]
    expected = [rows for rows, _ in reference]
    return {
        name: compare(expected, [rows for rows, _ in answer_logits(bundles[name], pages, answers)])
        for name in others
    }


if __name__ == "__main__":
    main()
