"""A report of scores as Markdown for a README: a column for each run, beside the paper's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pulse_edge.evaluate.ecgbench.summary import (
    MEAN_OF_MAIN,
    Report,
    config_names,
    main_scorer,
    runs_of,
    summary_rows,
)

NOTES = (
    "Figures are fractions of all n items, with 95 % bootstrap intervals. `upstream` and `gem` are "
    "the authors' functions; their `auc` is (sensitivity + specificity) / 2 of the answers' labels."
)
_NOTHING = "–"


def score_markdown(report: Report) -> str:
    """Three tables: the figures, what was counted, and a row for each run.

    Args:
        report: as `score_runs` returns it.
    """
    tables = [_table(head, rows) for head, rows in score_rows(report)]
    notes = [NOTES, mean_note(report)]
    return "\n\n".join([*tables, *notes, *_remarks(runs_of(report))])


def mean_note(report: Report) -> str:
    """What the column `mean` is.

    Args:
        report: as `score_runs` returns it.
    """
    return MEAN_OF_MAIN.format(scorer=f"`{main_scorer(report)}`")


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
    """The three tables as (head, rows).

    Args:
        report: as `score_runs` returns it.
    """
    runs = runs_of(report)
    figures = ["configuration", "figure", "scorer", "paper", *(run["run"] for run in runs)]
    counts = ["configuration", "run", "n", "missing", "unparsable", "guessed by upstream"]
    counts += ["identical answers", "median latency, s"]
    summary = ["run", "precision", "mean", "points to the first", "identical answers"]
    summary += ["median latency, s", "95 % of answers within, s"]
    return [
        (figures, _merged_rows(_figure_rows(runs))),
        (counts, list(_count_rows(runs))),
        (summary, list(summary_rows(report))),
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, row)) + " |" for row in cells)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _merged_rows(rows: Iterator[Sequence[str]]) -> list[Sequence[str]]:
    """Rows of one configuration and figure that differ in the scorer alone, as one row."""
    scorers: dict[tuple[str, ...], list[str]] = {}
    for config, figure, scorer, *cells in rows:
        scorers.setdefault((config, figure, *cells), []).append(scorer)
    return [
        [config, figure, ", ".join(names), *cells]
        for (config, figure, *cells), names in scorers.items()
    ]


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
