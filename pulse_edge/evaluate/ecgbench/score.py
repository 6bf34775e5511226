"""Scores of runs on a benchmark, as JSON: no model, no network, no random number."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.errors import ParameterError
from pulse_edge.evaluate.ecgbench.compare import differences, identical_share, mcnemar
from pulse_edge.evaluate.ecgbench.configurations import CONFIGURATIONS
from pulse_edge.evaluate.ecgbench.items import BenchItem, Benchmark, open_benchmark
from pulse_edge.evaluate.ecgbench.option_scores import NAME, scores_figure
from pulse_edge.evaluate.ecgbench.reading import Paired, Reading
from pulse_edge.evaluate.ecgbench.reports import compare_reports
from pulse_edge.evaluate.ecgbench.run_file import Answers, RunAnswers, read_run
from pulse_edge.evaluate.ecgbench.scorers import SCORERS, STRICT, figures_of, readings_of
from pulse_edge.evaluate.scoring import percentiles, resamples

SCORES_SCHEMA = "pulse-edge/ecgbench-scores/1"
UNSCORED = ("report", "arena")


@dataclass(frozen=True)
class ScoredConfig:
    """One run's answers to one configuration, and what the scorers make of them.

    Attributes:
        paired: the items and the answers.
        answers: the file as it was read.
        foreign: answers to questions that the benchmark does not have.
        weights: of the bootstrap, the same for all runs.
        scorers: that were asked for.
    """

    paired: Paired
    answers: Answers
    foreign: int
    weights: NDArray[np.float32]
    scorers: tuple[str, ...]

    @property
    def kind(self) -> str:
        """Of the configuration."""
        return CONFIGURATIONS[self.paired.config].kind

    @cached_property
    def readings(self) -> Mapping[str, Reading]:
        """By scorer. `strict` is always among them: it says what is unparsable."""
        if self.kind in UNSCORED:
            return {}
        return readings_of(self.paired, dict.fromkeys((*self.scorers, STRICT)))

    @cached_property
    def figures(self) -> Mapping[str, Mapping[str, NDArray[np.float64]]]:
        """By scorer and name, [1 + draw] each."""
        figures: dict[str, Mapping[str, NDArray[np.float64]]] = {}
        for name in self.scorers:
            reading = self.readings.get(name)
            if reading is None:
                continue
            same = [each for each in figures if self.readings[each] is reading]
            figures[name] = figures[same[0]] if same else figures_of(name, reading, self.weights)
        return figures

    @property
    def unparsable(self) -> int:
        """Answers of which `strict` reads nothing. An item without an answer is not counted."""
        answers = self.paired.by_question
        if self.kind in UNSCORED:
            return sum(not line.whole.strip() for line in answers.values())
        nothing = self.readings[STRICT].unparsable
        return sum(
            bool(empty) and item.id in answers
            for empty, item in zip(nothing, self.paired.items, strict=True)
        )


def score_runs(
    runs: Sequence[str | os.PathLike[str]],
    bench: str | os.PathLike[str],
    scorers: Sequence[str] = tuple(SCORERS),
    answered_only: bool = False,
) -> dict[str, Any]:
    """Score runs side by side, each against the first.

    Args:
        runs: folders; the first is RUN.
        bench: folder of the benchmark.
        scorers: keys of `SCORERS`.
        answered_only: score only the items that every run answered, such as those of `--limit`.
            Otherwise an item without an answer counts as wrong.

    Returns:
        JSON-ready, see docs/ecgbench.md.

    Raises:
        ParameterError: a scorer's name is unknown, or a run or the benchmark cannot be read.
    """
    unknown = [name for name in scorers if name not in SCORERS]
    if unknown or not scorers:
        raise ParameterError(
            f"scorer {', '.join(map(repr, unknown)) or 'list is empty'}: choose of "
            + ",".join(SCORERS)
        )
    benchmark = open_benchmark(bench)
    opened = open_runs(runs)
    scored = score_configs(benchmark, opened, tuple(dict.fromkeys(scorers)), answered_only)
    first, *others = zip(opened, scored, strict=True)
    report: dict[str, Any] = {
        "schema": SCORES_SCHEMA,
        **_run_head(first[0]),
        "scorers": list(dict.fromkeys(scorers)),
        "answered_only": answered_only,
        **_run_report(first[1]),
    }
    if others:
        report["against"] = [
            {
                **_run_head(run),
                **_run_report(configs),
                "comparison": _comparison(first[1], configs),
            }
            for run, configs in others
        ]
    cleaned: dict[str, Any] = without_nan(report)
    return cleaned


def open_runs(paths: Sequence[str | os.PathLike[str]]) -> list[RunAnswers]:
    """Read runs, each named by its model, or by its folder if two have one model.

    Args:
        paths: of their folders.

    Raises:
        ParameterError: see `read_run`.
    """
    opened = [read_run(path) for path in paths]
    models = [run.model for run in opened]
    distinct = all(models) and len(set(models)) == len(models)
    names = models if distinct else run_names(paths)
    return [replace(run, name=name) for run, name in zip(opened, names, strict=True)]


def run_names(runs: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Names of runs for the heads of columns: their folders' names, or their paths if those clash.

    Args:
        runs: folders.
    """
    names = [os.path.basename(os.path.abspath(path)) for path in runs]
    if len(set(names)) < len(names):
        names = [os.fspath(path) for path in runs]
    return names


def score_configs(
    benchmark: Benchmark, runs: Sequence[RunAnswers], scorers: tuple[str, ...], answered_only: bool
) -> list[dict[str, ScoredConfig]]:
    """What the scorers make of each run, by configuration.

    Args:
        benchmark: the items.
        runs: the answers.
        scorers: keys of `SCORERS`.
        answered_only: see `score_runs`.

    Raises:
        ParameterError: a run answers none of the benchmark's questions.
    """
    scored: list[dict[str, ScoredConfig]] = [{} for _ in runs]
    for config, items in benchmark.items.items():
        having = [run.answers[config] for run in runs if config in run.answers]
        kept = _answered(items, having) if answered_only else list(items)
        if not having or not kept:
            continue
        weights = resamples(len(kept))
        ids = {item.id for item in kept}
        known = {item.id for item in items}
        for run, configs in zip(runs, scored, strict=True):
            answers = run.answers.get(config)
            if answers is not None:
                lines = [line for line in answers.lines if line.question_id in ids]
                foreign = sum(line.question_id not in known for line in answers.lines)
                paired = Paired(config, kept, lines)
                configs[config] = ScoredConfig(paired, answers, foreign, weights, scorers)
    for run, configs in zip(runs, scored, strict=True):
        if not any(each.paired.lines for each in configs.values()):
            raise ParameterError(
                f"{run.folder}: answers no question of {benchmark.folder}; give the benchmark "
                "that was run"
            )
    return scored


def _answered(items: Sequence[BenchItem], having: Sequence[Answers]) -> list[BenchItem]:
    answered = [{line.question_id for line in answers.lines} for answers in having]
    return [item for item in items if all(item.id in ids for ids in answered)]


def _run_head(run: RunAnswers) -> dict[str, Any]:
    return {"run": run.name, "model": run.model or None, "precision": run.precision}


def _run_report(configs: Mapping[str, ScoredConfig]) -> dict[str, Any]:
    return {
        "configs": {name: config_report(each) for name, each in configs.items()},
        "latency_s": _latency([each.paired for each in configs.values()]),
    }


def config_report(scored: ScoredConfig) -> dict[str, Any]:
    """The report of one run on one configuration.

    Args:
        scored: what the scorers made of it.
    """
    paired = scored.paired
    row = CONFIGURATIONS[paired.config]
    figures = scored.figures
    report: dict[str, Any] = {
        "n": len(paired.items),
        "unparsable": scored.unparsable,
        "scores": {
            scorer: {name: float(values[0]) for name, values in by_name.items()}
            for scorer, by_name in figures.items()
        },
        "intervals": {
            scorer: {name: percentiles(values[1:]) for name, values in by_name.items()}
            for scorer, by_name in figures.items()
        },
        "paper": dict(row.paper),
        "random": dict(row.random),
        "missing": len(paired.items) - len(paired.lines),
        "duplicates": scored.answers.duplicates,
        "foreign": scored.foreign,
        "truncated": scored.answers.truncated,
        "guessed": {
            name: scored.readings[name].guessed for name in scored.scorers if row.kind == "choice"
        },
        "latency_s": _latency([paired]),
    }
    if row.kind in UNSCORED:
        return report | ({"statements": compare_reports(paired)} if row.kind == "report" else {})
    strict = scored.readings[STRICT]
    report["strict"] = dict(strict.notes)
    # Options of ECG-QA differ from question to question: they are no classes.
    auc = None if row.kind == "qa" else scores_figure(paired, strict)
    return report | ({NAME: auc} if auc else {})


def _latency(parts: Sequence[Paired]) -> dict[str, float] | None:
    """Seconds an answer took, of the lines that say so."""
    seconds = []
    for line in (line for paired in parts for line in paired.lines):
        timings = line.metadata.get("timings")
        total = timings.get("total") if isinstance(timings, dict) else None
        if isinstance(total, int | float):
            seconds.append(float(total))
    if not seconds:
        return None
    median, high = np.percentile(seconds, [50, 95])
    return {"median": float(median), "p95": float(high), "n": len(seconds)}


def _comparison(
    first: Mapping[str, ScoredConfig], second: Mapping[str, ScoredConfig]
) -> dict[str, Any]:
    return {
        config: identical_share(first[config].paired, second[config].paired)
        | {"scores": _score_comparison(first[config], second[config])}
        for config in first
        if config in second
    }


def _score_comparison(first: ScoredConfig, second: ScoredConfig) -> dict[str, Any]:
    compared: dict[str, Any] = {}
    for scorer, figures in first.figures.items():
        compared[scorer] = {"difference": differences(figures, second.figures[scorer])}
        if first.kind != "labels":
            right = first.readings[scorer].right
            compared[scorer]["mcnemar"] = mcnemar(right, second.readings[scorer].right)
    return compared


def without_nan(value: Any) -> Any:
    """JSON-ready: null in place of every NaN.

    Args:
        value: of dictionaries, lists and numbers.
    """
    if isinstance(value, dict):
        return {key: without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
