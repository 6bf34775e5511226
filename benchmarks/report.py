"""results/*.jsonl -> one HTML page that needs nothing else, and Markdown tables on stdout for the
README.

    python -m benchmarks.report report.html
    python -m benchmarks.report report.html --results elsewhere/

A series is what may be compared over time: one machine, device, number of threads, checkpoint and
precision. Tables and bars show each series' last record; the history shows all. Medians everywhere,
unless a chart says otherwise.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks import accuracy, batching, compare, engines, predictions, serve, speculation
from benchmarks.batching.tables import report_tables
from benchmarks.svg import Curve, bars, lines, roofline
from pulse_edge.bundle.manifest import NOTICE
from pulse_edge.measure.figures import SCHEMA_VERSION, Point
from pulse_edge.measure.tables import headline, number

Record = dict[str, Any]
Series = dict[str, list[Record]]
STAGES = ("decode_image", "preprocess", "vision", "prefill")
LATENCIES = ("ttft_cold", "ttft_warm", "tpot")
HISTORY = (*LATENCIES, "peak_memory")
SCHEMAS = {
    "bench": SCHEMA_VERSION,
    compare.KIND: compare.SCHEMA,
    predictions.KIND: predictions.SCHEMA,
    engines.KIND: None,
    accuracy.KIND: accuracy.SCHEMA,
    speculation.KIND: speculation.SCHEMA,
    batching.KIND: batching.SCHEMA,
    serve.KIND: serve.SCHEMA,  # not shown: each is of one server and one load
}
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#222;background:#fff}
table{border-collapse:collapse;margin:1rem 0}
td,th{border-bottom:1px solid #ccc;padding:.2rem .7rem;text-align:right}
td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto}small{color:#555}
"""


def read_results(folder: Path) -> Series:
    """Records by series, oldest first.

    Raises `click.ClickException` for a line that is not a record.
    """
    series: Series = {}
    records = [
        (record["time"], name(record), record)
        for record in _records(folder)
        if "kind" not in record
    ]
    for _, key, record in sorted(records, key=lambda r: r[:2]):
        series.setdefault(key, []).append(record)
    return series


def read_kind(folder: Path, kind: str) -> list[Record]:
    """What compare.py and others appended, oldest first; raises as `read_results`."""
    return sorted(
        (r for r in _records(folder) if r.get("kind") == kind), key=lambda r: str(r["time"])
    )


def _records(folder: Path) -> Iterator[Record]:
    for file in sorted(folder.glob("*.jsonl")):
        for line_number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            try:
                record = json.loads(line)
            except ValueError as error:
                raise click.ClickException(f"{file}:{line_number}: not JSON ({error})") from None
            kind = record.get("kind", "bench") if isinstance(record, dict) else None
            if kind not in SCHEMAS or record.get("schema") != SCHEMAS[kind]:
                raise click.ClickException(
                    f"{file}:{line_number}: not a record of schema {SCHEMA_VERSION}"
                )
            yield record


def name(record: Record) -> str:
    """The series that a record belongs to."""
    made, host = record["provenance"], record["machine"]
    engine = made["engine"]
    quick = ", quick" if record["settings"]["quick"] else ""
    return (
        f"{made['checkpoint']['name']} {made['precision']['name']}, {host['name']}, "
        f"{engine['device']}, "
        f"threads {engine['threads'] or 'auto'}{quick}"
    )


def request_table(series: Series) -> list[list[str]]:
    """p50 and p99 of what a user waits for."""
    rows = [
        ["", *(f"{n} p50 / p99" for n in LATENCIES), "1 / TPOT", "load", "peak memory", "measured"]
    ]
    for key, records in series.items():
        f = records[-1]["figures"]
        waits = [f"{number(f[n]['p50'], 's')} / {number(f[n]['p99'], 's')}" for n in LATENCIES]
        others = [
            number(1 / f["tpot"]["p50"], "tokens/s"),
            number(f["load_engine"]["p50"], "s"),
            number(f["peak_memory"]["p50"], "bytes"),
            records[-1]["time"][:10],
        ]
        rows.append([key, *waits, *others])
    return rows


def sweep_table(series: Series) -> list[list[str]]:
    """tokens/s of every point that any series has, with its share of the peak that binds it."""
    points = {
        key: {Point(**p).name: p for p in records[-1]["sweeps"]} for key, records in series.items()
    }
    names = list(dict.fromkeys(n for found in points.values() for n in found))
    rows = [
        [
            "tokens/s (pp: share of the GEMM peak of what is multiplied; "
            "tg: share of the read peak)",
            *names,
        ]
    ]
    for key, records in series.items():
        cells = []
        for n in names:
            point, figure = points[key].get(n), records[-1]["figures"].get(n)
            share = point and point["gemm_share" if point["kind"] == "pp" else "read_share"]
            cells.append(
                "-"
                if figure is None
                else f"{figure['p50']:.4g}" + (f" ({share:.0%})" if share else "")
            )
        rows.append([key, *cells])
    return rows


def markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *body = (f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)
    return "\n".join([head, "|" + " --- |" * len(rows[0]), *body])


def html_table(rows: Sequence[Sequence[str]]) -> str:
    def row(cells: Iterable[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + row(rows[0], "th") + "".join(row(r, "td") for r in rows[1:]) + "</table>"


def charts(series: Series) -> Iterator[tuple[str, str, str]]:
    """(title, what it shows, SVG) of every chart there is data for."""
    last = {key: records[-1] for key, records in series.items()}
    figures = {key: record["figures"] for key, record in last.items()}
    stages = {key: [(s, f[s]["p50"]) for s in STAGES] for key, f in figures.items()}
    yield (
        "Stages before the first token",
        "Cold request, seconds; medians of each stage, stacked.",
        bars(stages),
    )
    for latency in LATENCIES:
        percentiles = {
            key: [(p, f[latency][p]) for p in ("p50", "p90", "p99")] for key, f in figures.items()
        }
        what = next(iter(figures.values()))[latency]["what"]
        yield f"{latency}: p50, p90, p99", f"Seconds: {what}.", bars(percentiles, stacked=False)
    for kind, x, along in (("pp", "prompt tokens", "tokens"), ("tg", "cached tokens", "depth")):
        curves = [
            Curve(
                key,
                [
                    (p[along], figures[key][Point(**p).name]["p50"])
                    for p in r["sweeps"]
                    if p["kind"] == kind
                ],
            )
            for key, r in last.items()
        ]
        if any(curve.points for curve in curves):
            title = "Prefill by prompt length" if kind == "pp" else "Decode by depth"
            yield title, "Engine alone, tokens/s.", lines(curves, x, "tokens/s")
    longest = max(series.values(), key=len)
    labels = [(r["commit"] or r["time"][:10])[:8] for r in longest]
    for figure in HISTORY:
        scale, unit = (
            (1e6, "MB")
            if next(iter(figures.values()))[figure]["unit"] == "bytes"
            else (1, "seconds")
        )
        curves = [
            Curve(key, [(i, r["figures"][figure]["p50"] / scale) for i, r in enumerate(records)])
            for key, records in series.items()
        ]
        shown = "By record, oldest first; labelled with the commits of the longest series."
        yield f"History of {figure}", shown, lines(curves, "commit", unit, labels)
    for key, record in last.items():
        if record["peaks"] and record["sweeps"]:
            found = [
                (Point(**p).name, p["flop"] / p["read"], p["flop_per_s"]) for p in record["sweeps"]
            ]
            peaks, kind = record["peaks"], record["gemm_type"]
            kind = kind if kind in peaks["gemm"] else "fp32"
            shown = (
                f"{key}. Roofs: {kind} GEMM ({peaks['gemm_library'][kind]}) and memory reads "
                f"(numpy), {peaks['threads']} threads, as measured; weights that the caches hold "
                "may lie above."
            )
            yield "Roofline", shown, roofline(found, peaks["gemm"][kind], peaks["read"])


def latest(comparisons: Iterable[Record]) -> list[Record]:
    """The last comparison of each machine, geometry and number of threads."""
    last = {
        json.dumps([r["machine"]["name"], r["sizes"], r["settings"]["threads"]]): r
        for r in comparisons
    }
    return list(last.values())


def peer_parts(run: Record) -> Iterator[str]:
    """Peers side by side: HTML of one comparison."""
    yield f"<h2>Peers: {html.escape(compare.title(run))}</h2>"
    yield html_table(compare.speed_table(run)) + html_table(compare.ratio_table(run))
    for case in (c["name"] for c in run["cases"]):
        found = {
            e["name"]: [("median", e["figures"][case]["p50"])]
            for e in run["entries"]
            if case in e["figures"]
        }
        if found:
            yield f"<h3>{html.escape(case)}, tokens/s</h3>{bars(found)}"
    skipped = (
        f"<li>skipped {html.escape(name)}: {html.escape(why)}</li>"
        for name, why in run["skipped"].items()
    )
    engines = (
        f"<li>{html.escape(e['name'] + ': ' + json.dumps(e['engine']))}</li>"
        for e in run["entries"]
    )
    yield f"<ul>{''.join([*engines, *skipped])}</ul>"


def other_tables(folder: Path) -> list[Sequence[Sequence[str]]]:
    """The last of accuracy.py, of each model by speculation.py, of each bundle by predictions.py,
    of each plan by engines.py.
    """
    checked = {
        json.dumps([r["machine"]["name"], r["way"]["precision"], r["way"]["cache"], r["text"]]): r
        for r in read_kind(folder, predictions.KIND)
    }
    built = read_kind(folder, engines.KIND)
    plans = {json.dumps([r["part"], r["key"], r["precision"], r["model"]]): r for r in built}
    tables: list[Sequence[Sequence[str]]] = [
        [
            [
                f"{r['checkpoint']['name']}, {r['logit_pages']} and {r['pages']} pages",
                *r["rows"][0][1:],
            ],
            *r["rows"][1:],
        ]
        for r in read_kind(folder, accuracy.KIND)[-1:]
    ]
    replayed = {r["name"]: r for r in read_kind(folder, speculation.KIND)}
    tables += [speculation.rows_of([*replayed.values()])] if replayed else []
    tables += [predictions.rows_of([*checked.values()])] if checked else []
    tables += report_tables(read_kind(folder, batching.KIND))
    return tables + (
        [[("TensorRT plans",), *((engines.summary(r),) for r in plans.values())]] if plans else []
    )


def page(
    series: Series, comparisons: Sequence[Record], others: Sequence[Sequence[Sequence[str]]] = ()
) -> str:
    """The whole document; refers to nothing outside itself. others: further tables."""
    count = sum(map(len, series.values())) + len(comparisons)
    parts = [f"<h1>pulse-edge: latency</h1><small>{count} records</small>"]
    parts += [part for run in latest(comparisons) for part in peer_parts(run)]
    parts += _latency_parts(series) if series else []
    parts += map(html_table, others)
    parts.append(f"<p><small>{html.escape(NOTICE)}</small></p>")
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        "<title>pulse-edge: latency</title>"
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _latency_parts(series: Series) -> list[str]:
    parts = [html_table(request_table(series)), html_table(sweep_table(series))]
    for title, shown, svg in charts(series):
        parts.append(
            f"<h2>{html.escape(title)}</h2><p><small>{html.escape(shown)}</small></p>{svg}"
        )
    parts.append("<h2>What ran</h2>")
    for key, records in series.items():
        told = "".join(f"<li>{html.escape(line)}</li>" for line in headline(records[-1]))
        parts.append(f"<h3>{html.escape(key)}</h3><ul>{told}</ul>")
    return parts


@click.command()
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--results", type=click.Path(path_type=Path, exists=True), help="[default: benchmarks/results]"
)
def main(out: Path, results: Path | None) -> None:
    """Write the page OUT, print the tables."""
    folder = results or Path(__file__).parent / "results"
    series, comparisons = read_results(folder), read_kind(folder, compare.KIND)
    others = other_tables(folder)
    if not series and not comparisons and not others:
        raise click.ClickException(
            f"no results in {folder}: run python -m benchmarks.latency first"
        )
    out.write_text(page(series, comparisons, others), encoding="utf-8")
    tables: list[Sequence[Sequence[str]]] = (
        [request_table(series), sweep_table(series)] if series else []
    )
    tables += others
    tables += [
        table
        for run in latest(comparisons)
        for table in (compare.speed_table(run), compare.ratio_table(run))
    ]
    click.echo("\n\n".join(map(markdown, tables)))


if __name__ == "__main__":
    main()
