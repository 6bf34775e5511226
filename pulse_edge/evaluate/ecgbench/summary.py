"""One figure for each configuration, and a row for each run: accuracy beside latency."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pulse_edge.evaluate.ecgbench.configurations import CONFIGURATIONS

Report = Mapping[str, Any]
MAIN_FIGURES = {"labels": "f1", "choice": "accuracy", "qa": "accuracy"}  # by kind
STATEMENTS = "f1 of statements"
MEAN_OF_MAIN = (
    "The mean is of f1 (labels, statements of reports) and accuracy (choices, ECG-QA) over the "
    "configurations that all runs answer, by the scorer {scorer}."
)


@dataclass(frozen=True)
class MainFigure:
    """The figure of a configuration that a chart and a mean show.

    Attributes:
        name: of the figure.
        value: a fraction.
        interval: 95 %; None for none.
    """

    name: str
    value: float
    interval: Sequence[float] | None


def runs_of(report: Report) -> list[Report]:
    """The runs of a report, the first one first.

    Args:
        report: as `score_runs` returns it.
    """
    return [report, *report.get("against", ())]


def config_names(runs: Sequence[Report]) -> list[str]:
    """Configurations that any of the runs answers, in their order.

    Args:
        runs: of a report.
    """
    return list(dict.fromkeys(config for run in runs for config in run["configs"]))


def main_scorer(report: Report) -> str:
    """The scorer whose figures a summary takes: `strict` if it was asked for, else the first.

    Args:
        report: as `score_runs` returns it.
    """
    scorers: list[str] = report["scorers"]
    return "strict" if "strict" in scorers else scorers[0]


def main_figure(run: Report, config: str, scorer: str) -> MainFigure | None:
    """The figure of a run in a configuration; None if it has none there.

    Args:
        run: of a report.
        config: its name.
        scorer: whose figure.
    """
    report = run["configs"].get(config)
    if report is None:
        return None
    if "statements" in report:
        value = report["statements"]["f1"]
        return None if value is None else MainFigure(STATEMENTS, value, None)
    name = MAIN_FIGURES.get(CONFIGURATIONS[config].kind)
    if name is None or report["scores"][scorer][name] is None:
        return None
    return MainFigure(name, report["scores"][scorer][name], report["intervals"][scorer][name])


def summary_rows(report: Report) -> Iterator[list[str]]:
    """A row for each run: its name, precision, mean, change, identical answers and latency.

    Args:
        report: as `score_runs` returns it.
    """
    runs = runs_of(report)
    scorer = main_scorer(report)
    figures = {
        config: [main_figure(run, config, scorer) for run in runs] for config in config_names(runs)
    }
    common = [each for each in figures.values() if all(each)]
    first: float | None = None
    for place, run in enumerate(runs):
        values = [figure.value for row in common if (figure := row[place])]
        mean = sum(values) / len(values) if values else None
        change = "" if first is None or mean is None else f"{100 * (mean - first):+.1f}"
        first = mean if place == 0 else first
        latency = run["latency_s"]
        yield [
            run["run"],
            run["precision"] or "–",
            "–" if mean is None else f"{mean:.3f}",
            change or "–",
            _identical(run),
            *(("–", "–") if latency is None else (f"{latency[k]:.2f}" for k in ("median", "p95"))),
        ]


def _identical(run: Report) -> str:
    """Share of answers that are those of the first run, over all configurations."""
    compared = [each for each in run.get("comparison", {}).values() if each["answered_by_both"]]
    total = sum(each["answered_by_both"] for each in compared)
    same = sum(each["identical"] * each["answered_by_both"] for each in compared)
    return f"{100 * same / total:.1f} %" if total else "–"
