"""A report of scores as Markdown for a README: a column for each run, beside the paper's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

NOTES = (
    "Figures are fractions of all n items, with 95 % bootstrap intervals. `upstream` and `gem` are "
    "the authors' functions; their `auc` is (sensitivity + specificity) / 2 of the answers' labels."
)
_NOTHING = "–"

Report = Mapping[str, Any]


def score_markdown(report: Report) -> str:
    """Two tables: the figures, and what was counted.

    Args:
        report: as `score_runs` returns it.
    """
    tables = [_table(head, rows) for head, rows in score_rows(report)]
    return "\n\n".join([*tables, NOTES, *_remarks(runs_of(report))])


def _remarks(runs: Sequence[Report]) -> Iterator[str]:
    """What a reader of the tables must know of the files."""
    for config in config_names(runs):
        for run in runs:
            report = run["configs"].get(config)
            if report is None:
                continue
            where = f"{config} of {run['run']}"
            replaced = _many(report["duplicates"], "line")
            foreign = _many(report["foreign"], "answer")
            if report["missing"]:
                yield (
                    f"{where}: {report['missing']} of {report['n']} items have no answer and count "
                    "as wrong; --answered-only leaves them out"
                )
            if report["duplicates"]:
                yield f"{where}: {replaced} replaced by a later one of its question"
            if report["foreign"]:
                yield f"{where}: {foreign} to a question that the benchmark does not have"
            if report["truncated"]:
                yield f"{where}: the last line is cut off and was left out"


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def score_rows(report: Report) -> list[tuple[list[str], list[Sequence[str]]]]:
    """The two tables as (head, rows).

    Args:
        report: as `score_runs` returns it.
    """
    runs = runs_of(report)
    figures = ["configuration", "figure", "scorer", "paper", *(run["run"] for run in runs)]
    counts = ["configuration", "run", "n", "missing", "unparsable", "guessed by upstream"]
    counts += ["identical answers", "median latency, s"]
    return [(figures, list(_figure_rows(runs))), (counts, list(_count_rows(runs)))]


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


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, row)) + " |" for row in cells)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _figure_rows(runs: Sequence[Report]) -> Iterator[Sequence[str]]:
    for config in config_names(runs):
        reports = [run["configs"].get(config) for run in runs]
        sample = next(each for each in reports if each)
        for scorer, figures in sample["scores"].items():
            for figure in figures:
                cells = [_score(run, config, scorer, figure) for run in runs]
                # The paper's figures are the authors' functions'.
                paper = sample["paper"].get(figure) if scorer != "strict" else None
                yield config, figure, scorer, _fraction_cell(paper), *cells
        if "strict" in sample["scores"] and "accuracy_with_guesses" in sample["strict"]:
            guesses = [(each or {}).get("strict", {}) for each in reports]
            cells = [_fraction_cell(each.get("accuracy_with_guesses")) for each in guesses]
            yield config, "accuracy with random guesses, expected", "strict", _NOTHING, *cells
        if any(each and "auc (scores)" in each for each in reports):
            areas = [(each or {}).get("auc (scores)") or {} for each in reports]
            yield (
                config,
                "auc (scores)",
                "",
                "",
                *(_fraction_cell(area.get("value")) for area in areas),
            )
        if "statements" in sample:
            f1s = [((each or {}).get("statements") or {}).get("f1") for each in reports]
            yield (
                config,
                "f1 of statements",
                "offline, not the judge",
                "",
                *map(_fraction_cell, f1s),
            )


def _score(run: Report, config: str, scorer: str, figure: str) -> str:
    report = run["configs"].get(config)
    if report is None:
        return _NOTHING
    text = _fraction_cell(report["scores"][scorer][figure])
    text += _between(report["intervals"][scorer][figure])
    compared = run.get("comparison", {}).get(config)
    if compared is None:
        return text
    scores = compared["scores"][scorer]
    change = scores["difference"][figure]
    if change["value"] is not None:
        text += f"; {change['value']:+.3f}{_between(change['interval'], '+')}"
    if "mcnemar" in scores:
        text += f", p = {scores['mcnemar']['p']:.2g}"
    return text


def _fraction_cell(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.3f}"


def _between(ends: Sequence[float] | None, sign: str = "") -> str:
    return "" if ends is None else f" ({ends[0]:{sign}.3f} to {ends[1]:{sign}.3f})"


def _count_rows(runs: Sequence[Report]) -> Iterator[Sequence[str]]:
    for config in config_names(runs):
        for run in runs:
            report = run["configs"].get(config)
            if report is None:
                continue
            guessed = report["guessed"].get("upstream")
            identical = run.get("comparison", {}).get(config, {}).get("identical")
            latency = report["latency_s"]
            yield (
                *(config, run["run"], str(report["n"]), str(report["missing"])),
                str(report["unparsable"]),
                _NOTHING if guessed is None else str(guessed),
                _NOTHING if identical is None else f"{100 * identical:.1f} %",
                _NOTHING if latency is None else f"{latency['median']:.2f}",
            )
