"""A report of scores as one HTML file that needs nothing else, on a screen, a phone or paper."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from pulse_edge.bundle.manifest import NOTICE
from pulse_edge.errors import OutputError
from pulse_edge.evaluate.ecgbench.chart import COLOURS, ChartPoint, latency_chart
from pulse_edge.evaluate.ecgbench.disagreements import (
    Disagreement,
    page_picture,
    worst_disagreements,
)
from pulse_edge.evaluate.ecgbench.items import open_benchmark
from pulse_edge.evaluate.ecgbench.page_style import STYLE
from pulse_edge.evaluate.ecgbench.score import open_runs, score_configs
from pulse_edge.evaluate.ecgbench.score_table import NOTES, mean_note, score_rows
from pulse_edge.evaluate.ecgbench.scorers import STRICT
from pulse_edge.evaluate.ecgbench.summary import (
    config_names,
    main_figure,
    main_scorer,
    runs_of,
)
from pulse_edge.guarded import reason

MOST_TEXT = 2000  # characters of an answer
MOST_OPTIONS = 30  # rows of a table of options

Report = Mapping[str, Any]


def write_report(
    report: Report,
    runs: Sequence[str | os.PathLike[str]],
    bench: str | os.PathLike[str],
    out: str | os.PathLike[str],
) -> None:
    """Write the page: figures beside latency, classes, confusions, and the worst disagreements.

    Args:
        report: as `score_runs` returns it.
        runs: the same folders.
        bench: of the benchmark. Pages of which it has no image are shown without.
        out: file to write.

    Raises:
        OutputError: it cannot be written.
        ParameterError: see `score_runs`.
    """
    text = "".join(_document(report, runs, bench))
    try:
        Path(out).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"{out}: cannot be written ({reason(error)}); name another file"
        ) from None


def _document(
    report: Report,
    runs: Sequence[str | os.PathLike[str]],
    bench: str | os.PathLike[str],
) -> Iterator[str]:
    benchmark = open_benchmark(bench)
    opened = open_runs(runs)
    names = [run.name for run in opened]
    scored = score_configs(benchmark, opened, (STRICT,), report["answered_only"])
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width,initial-scale=1">'
    yield f"<title>ECGBench scores</title><style>{STYLE}</style></head><body>"
    yield f"<h1>ECGBench scores</h1><p>{_note_html(NOTES)}</p>"
    yield f"<p><small>{escape(NOTICE)}</small></p>"
    yield from _overview(report)
    for config in config_names(runs_of(report)):
        yield f"<h2>{escape(config)}</h2>"
        for run in runs_of(report):
            yield from _config_part(run["run"], run["configs"].get(config))
        worst = worst_disagreements(config, names, scored)
        if worst:
            yield "<h3>Worst disagreements</h3>"
        for each in worst:
            yield from _disagreement_part(each, benchmark.images)
    yield "</body></html>\n"


def _note_html(markdown: str) -> str:
    """A sentence with names in backticks."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(markdown))


def _overview(report: Report) -> Iterator[str]:
    figures, counts, summary = score_rows(report)
    yield "<h2>Runs: accuracy beside latency</h2>" + _html_table(*summary)
    yield f"<p><small>{_note_html(mean_note(report))}</small></p>"
    yield from _charts(report)
    yield "<h2>Figures</h2>" + _html_table(*figures)
    yield "<h2>Counts and latency</h2>" + _html_table(*counts)


def _charts(report: Report) -> Iterator[str]:
    """A chart for each configuration, under the legend that they share."""
    runs = runs_of(report)
    charts = []
    for config in config_names(runs):
        points = list(_points(runs, config, main_scorer(report)))
        if points:
            figure = next(name for name, _ in points)
            chart = latency_chart([point for _, point in points], figure)
            caption = f"<figcaption>{escape(config)}: {escape(figure)}</figcaption>"
            charts.append(f"<figure>{caption}{chart}</figure>")
    if not charts:
        yield "<p>The answers say nothing of their latency, so there is no chart.</p>"
        return
    legend = "".join(
        f'<li><b class="k{number % COLOURS}">{number + 1}</b> {escape(_run_title(run))}</li>'
        for number, run in enumerate(runs)
    )
    yield f'<ul class="legend">{legend}</ul><div class="grid">{"".join(charts)}</div>'


def _run_title(run: Report) -> str:
    """A run's name, and its precision where the name does not say it."""
    precision = run["precision"]
    name = str(run["run"])
    return name if precision is None or precision in name else f"{name}, {precision}"


def _points(runs: Sequence[Report], config: str, scorer: str) -> Iterator[tuple[str, ChartPoint]]:
    for number, run in enumerate(runs, 1):
        figure = main_figure(run, config, scorer)
        latency = run["configs"].get(config, {}).get("latency_s")
        if figure and latency:
            point = ChartPoint(number, run["run"], latency["median"], figure.value, figure.interval)
            yield figure.name, point


def _config_part(run: str, report: Report | None) -> Iterator[str]:
    if report is None:
        return
    strict = report.get("strict", {})
    if "classes" in strict:
        classes = strict["classes"]
        head = ["class", *next(iter(classes.values()))]
        rows = [[name, *map(_table_number, figures.values())] for name, figures in classes.items()]
        yield f"<h3>{escape(run)}: classes</h3>" + _html_table(head, rows)
    for key, title, first in (
        ("by_type", "types of question", "type"),
        ("by_option", "options that are right", "option"),
    ):
        table = list(strict.get(key, {}).items())[:MOST_OPTIONS]
        if table:
            rows = [[name, *map(_table_number, each.values())] for name, each in table]
            yield f"<h3>{escape(run)}: {title}</h3>" + _html_table([first, "n", "accuracy"], rows)
    if "confusion" in strict:
        yield f"<h3>{escape(run)}: confusion</h3>" + _confusion_table(strict["confusion"])
    if "statements" in report:
        parts = report["statements"]
        yield f"<h3>{escape(run)}: statements</h3><p>{escape(parts['what'])}</p>"
        rows = [[name, _table_number(parts[name])] for name in ("precision", "recall", "f1")]
        for kind in ("missed", "added"):
            rows += [[f"{kind}: {name}", str(times)] for name, times in parts[kind].items()]
        yield _html_table(["statement", "figure"], rows)


def _confusion_table(table: Mapping[str, Mapping[str, int]]) -> str:
    columns = sorted({column for row in table.values() for column in row})
    head = ["truth \\ answer", *(column or "nothing read" for column in columns)]
    rows = [
        [name or "none", *(str(row.get(column, 0)) for column in columns)]
        for name, row in table.items()
    ]
    return _html_table(head, rows)


def _disagreement_part(each: Disagreement, images: Path) -> Iterator[str]:
    item = each.item
    yield f"<article><h4>{escape(item.id)}</h4><pre>{escape(item.prompt[:MOST_TEXT])}</pre>"
    rows = [["gold", each.gold, ""]]
    rows += [
        [run, read or "nothing read", said[:MOST_TEXT]]
        for run, (read, said) in each.answers.items()
    ]
    yield _html_table(["", "read as", "answer"], rows, "text")
    picture = page_picture(images / item.image)
    yield f'<img alt="page" src="{picture}">' if picture else "<p>The page is not there.</p>"
    yield "</article>"


def _html_table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "numbers") -> str:
    """A table that scrolls by itself where the screen is narrow."""
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    lines += [
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    ]
    return f'<div class="wide"><table class="{kind}">' + "\n".join(lines) + "</table></div>"


def _table_number(value: float | None) -> str:
    if value is None:
        return "–"
    return str(int(value)) if value == int(value) and value > 1 else f"{value:.3f}"
