"""`pulse-edge eval`: bundles scored on held-out simulated pages."""

from __future__ import annotations

from pathlib import Path

import click

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.cli.options import default_bundle, options_from
from pulse_edge.cli.status import Status
from pulse_edge.cli.terminal import printable, show_json, show_text
from pulse_edge.engines.options import EngineOptions
from pulse_edge.evaluate.registry import TASKS
from pulse_edge.system import most_threads, usable_cores

MOST_PAGES = 1_000_000  # 3 days at 4 pages a second
MOST_SEED = (1 << 63) - 1


@click.command("eval")
@click.argument("bundles", nargs=-1)
@click.option(
    "--task",
    "task_name",
    type=click.Choice(list(TASKS)),
    default="simulated",
    show_default=True,
    help="simulated: the trained questions. wording: free words and later turns.",
)
@click.option("--pages", type=click.IntRange(1, MOST_PAGES), default=1000, show_default=True)
@click.option(
    "--seed",
    type=click.IntRange(0, MOST_SEED),
    help="Another held-out set [default: the fixed one].",
)
@click.option(
    "--workers",
    type=click.IntRange(1, most_threads()),
    default=usable_cores(),
    show_default=True,
    help="Processes.",
)
@options_from(EngineOptions, "options", only=("device", "engine"))
@click.option("--json", "as_json", is_flag=True, help="Print scores and confusions as JSON.")
def eval_command(
    bundles: tuple[str, ...],
    task_name: str,
    pages: int,
    seed: int | None,
    workers: int,
    options: EngineOptions,
    as_json: bool,
) -> None:
    """Score BUNDLES on held-out simulated ECG pages, side by side, each against the first.

    The questions are those that pulse-nano is trained on, or others that ask for the same; no score
    says anything about patients.
    """
    from pulse_edge.evaluate.registry import make_task
    from pulse_edge.evaluate.run import evaluate_bundles

    paths = [str(bundle) for bundle in bundles or (default_bundle(),)]
    names = [Path(path).name for path in paths]
    if len(set(names)) < len(names):
        raise click.UsageError("bundles need different names, which head the columns")
    task = make_task(task_name, pages, seed)
    with Status() as status:
        for path in paths:
            open_bundle(path, progress=status)  # a broken bundle is refused here, not in a worker
        scores = evaluate_bundles(task, paths, workers, options, status)
    if as_json:
        show_json(task.report(names, scores), indent=1)
    else:
        report = task.report([printable(name) for name in names], scores)
        show_text(f"{task.table(report)}\n\n{report['notice']}")
