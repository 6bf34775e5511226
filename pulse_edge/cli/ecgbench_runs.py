"""How `pulse-edge ecgbench run` asks: one model after the other, and not for hours unannounced."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pulse_edge.cli.status import Status
from pulse_edge.cli.terminal import show
from pulse_edge.engines.options import EngineOptions
from pulse_edge.errors import ParameterError

if TYPE_CHECKING:
    from pulse_edge.evaluate.ecgbench.ask import Asker, Mode
    from pulse_edge.evaluate.ecgbench.items import Benchmark
    from pulse_edge.evaluate.ecgbench.run import RunCounts, RunPrediction

ASK_FROM = 3600.0  # predicted seconds above which a run wants --yes


def server_opener(base_url: str, model: str | None, key: str | None) -> Callable[[], Asker]:
    """What connects to a server.

    Args:
        base_url: of an OpenAI-compatible server.
        model: its name there; None for the only one.
        key: of the server.
    """

    def open_server() -> Asker:
        from pulse_edge.evaluate.ecgbench.ask_server import ServerAsker

        return ServerAsker.connect(base_url, model, key)

    return open_server


def model_opener(
    path: str, mode: Mode, scores: bool, options: EngineOptions, status: Status
) -> Callable[[], Asker]:
    """What loads a bundle, which is checked here.

    Args:
        path: of the bundle.
        mode: of the prompts.
        scores: whether options are scored, too.
        options: of the engine.
        status: shows how far it is.

    Raises:
        BundleError: it is broken.
    """
    from pulse_edge.bundle.bundle import open_bundle

    open_bundle(path, progress=status)  # a broken one is refused before the first one is asked

    def open_model() -> Asker:
        from pulse_edge.evaluate.ecgbench.ask_model import ModelAsker
        from pulse_edge.model import load

        alpha = "drop" if mode == "upstream" else "white"
        keywords = dataclasses.asdict(options) | {"alpha": alpha, "progress": status}
        model = load(path, **keywords)
        return ModelAsker(model, Path(path).resolve().name, mode, scores)

    return open_model


def run_all(
    openers: list[Callable[[], Asker]],
    bench: Benchmark,
    plan: Any,
    out: Path,
    yes: bool,
    status: Status,
    aside: bool,
) -> list[Path]:
    """Run one model after the other, so that one at a time is in memory.

    Args:
        openers: of the models; those after the first are compared with it.
        bench: the benchmark.
        plan: what is asked.
        out: the first model's RUN; those of others lie in it.
        yes: do not ask whether a long run should begin.
        status: shows how far it is.
        aside: keep stdout for what follows.

    Returns:
        The RUNs.
    """
    from pulse_edge.evaluate.ecgbench.run import run_items

    runs = []
    for number, open_asker in enumerate(openers):
        folder = out / ("against" if number == 1 else f"against-{number}") if number else out
        announce = _announcer(status, len(openers) - number, yes)
        asker = open_asker()
        status.clear()
        counts = run_items(asker, plan, bench.images, folder, announce, status)
        status.clear()
        _show_counts(asker, counts, folder, aside)
        yes = True  # the first question was about all of them
        del asker
        runs.append(folder)
    return runs


def _announcer(status: Status, models: int, yes: bool) -> Callable[[RunPrediction], None]:
    def announce(prediction: RunPrediction) -> None:
        status.clear()
        items = f"{prediction.items:,} question{'s' if prediction.items > 1 else ''}"
        if prediction.seconds is None or prediction.each_s is None:
            show(f"predicted time: {prediction.source} ({items})", err=True)
            return
        seconds = prediction.seconds * models
        more = f", {models} bundles as this one" if models > 1 else ""
        each = f"{items} at {prediction.each_s:.3g} s, {prediction.source}{more}"
        show(f"predicted time: {duration_text(seconds)} ({each})", err=True)
        if seconds <= ASK_FROM or yes:
            return
        if sys.stdin.isatty() and click.confirm("Go on?", err=True):
            return
        raise ParameterError(
            f"the predicted time of {duration_text(seconds)} is over an hour; run again with "
            "--yes, which goes on from here, or ask less by --limit, --sample or --shard"
        )

    return announce


def duration_text(seconds: float) -> str:
    """Seconds in words of two units at most.

    Args:
        seconds: from 0.
    """
    whole = round(seconds)
    for unit, size, smaller, part in (
        ("d", 86_400, "h", 3600),
        ("h", 3600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part} {smaller}"
    return f"{seconds:.2g} s"


def _show_counts(asker: Asker, counts: RunCounts, folder: Path, aside: bool) -> None:
    failed = f", {counts.failed} without an answer (metadata.error says why)"
    show(
        f"{asker.name} (mode {asker.mode}): {counts.asked} asked, {counts.before} were answered "
        f"before{failed if counts.failed else ''}; {folder}",
        err=aside,
    )
