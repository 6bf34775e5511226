"""A report of scores as one HTML file that needs nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from pulse_edge.errors import OutputError
from pulse_edge.evaluate.ecgbench.disagreements import (
    Disagreement,
    page_picture,
    worst_disagreements,
)
from pulse_edge.evaluate.ecgbench.items import open_benchmark
from pulse_edge.evaluate.ecgbench.run_file import read_run
from pulse_edge.evaluate.ecgbench.score import run_names, score_configs
from pulse_edge.evaluate.ecgbench.score_table import NOTES, config_names, runs_of, score_rows
from pulse_edge.evaluate.ecgbench.scorers import STRICT
from pulse_edge.guarded import reason

MOST_TEXT = 2000  # characters of an answer
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid #bbb;padding:.2rem .5rem;"
    "text-align:left;vertical-align:top}img{max-width:100%}pre{white-space:pre-wrap}"
)


def write_report(
    report: Mapping[str, Any],
    runs: Sequence[str | os.PathLike[str]],
    bench: str | os.PathLike[str],
    out: str | os.PathLike[str],
) -> None:
    """Write the page: figures, classes, confusions, latency, and the worst disagreements.

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
    report: Mapping[str, Any],
    runs: Sequence[str | os.PathLike[str]],
    bench: str | os.PathLike[str],
) -> Iterator[str]:
    benchmark = open_benchmark(bench)
    names = run_names(runs)
    opened = [read_run(path, name) for path, name in zip(runs, names, strict=True)]
    scored = score_configs(benchmark, opened, (STRICT,), report["answered_only"])
    yield "<!doctype html><html lang=en><meta charset=utf-8><title>ECGBench scores</title>"
    yield f"<style>{_STYLE}</style><h1>ECGBench scores</h1><p>{escape(NOTES)}</p>"
    for title, (head, rows) in zip(
        ("Figures", "Counts and latency"), score_rows(report), strict=True
    ):
        yield f"<h2>{title}</h2>" + _html_table(head, rows)
    for config in config_names(runs_of(report)):
        yield f"<h2>{escape(config)}</h2>"
        for run in runs_of(report):
            yield from _config_part(run["run"], run["configs"].get(config))
        worst = worst_disagreements(config, names, scored)
        if worst:
            yield "<h3>Worst disagreements</h3>"
        for each in worst:
            yield from _disagreement_part(each, benchmark.images)
    yield "</html>\n"


def _config_part(run: str, report: Mapping[str, Any] | None) -> Iterator[str]:
    if report is None:
        return
    strict = report.get("strict", {})
    if "classes" in strict:
        classes = strict["classes"]
        head = ["class", *next(iter(classes.values()))]
        rows = [[name, *map(_table_number, figures.values())] for name, figures in classes.items()]
        yield f"<h3>{escape(run)}: classes</h3>" + _html_table(head, rows)
    if "by_type" in strict:
        types = [
            [name, *map(_table_number, each.values())] for name, each in strict["by_type"].items()
        ]
        yield f"<h3>{escape(run)}: types of question</h3>"
        yield _html_table(["type", "n", "accuracy"], types)
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
    yield f"<h4>{escape(item.id)}</h4><pre>{escape(item.prompt[:MOST_TEXT])}</pre>"
    rows = [["gold", each.gold, ""]]
    rows += [
        [run, read or "nothing read", said[:MOST_TEXT]]
        for run, (read, said) in each.answers.items()
    ]
    yield _html_table(["", "read as", "answer"], rows)
    picture = page_picture(images / item.image)
    yield f'<img alt="page" src="{picture}">' if picture else "<p>The page is not there.</p>"


def _html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}" for cell in head)]
    lines += ["<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) for row in rows]
    return "<table>" + "\n".join(lines) + "</table>"


def _table_number(value: float | None) -> str:
    if value is None:
        return "–"
    return str(int(value)) if value == int(value) and value > 1 else f"{value:.3f}"
